# SPDX-License-Identifier: Apache-2.0
"""Solves a batch and reports how it went and what it cost."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from cvxlayer.checks.report import SolveReport, TimingReport
from cvxlayer.checks.sampling import Values
from cvxlayer.compiler import CompiledProgram, ProgramSolution
from cvxlayer.errors import Status
from cvxlayer.program.cone_derivative import ConeDerivative
from cvxlayer.solve.backend import AbstractBackend

# Enough calls to leave out those that another program disturbed.
_MOST_REPEATS = 20
_TIMING_SECONDS = 0.4


def solve_batch(program: CompiledProgram, values: Values, backend: AbstractBackend) -> SolveReport:
    """Solve every instance once.

    Args:
        program: the compiled problem.
        values: what to solve it at.
        backend: the solver.

    Returns:
        Status counts, worst residuals, and advice if some rows have no solution.
    """
    solution = program.solve(values.rows, backend=backend, batch=values.batch)
    cone, solved = solution.cone, solution.has_solution
    codes, counts = np.unique(cone.status, return_counts=True)
    statuses = {Status(int(c)).name: int(k) for c, k in zip(codes, counts, strict=True)}

    def worst(figures: np.ndarray) -> float:
        return float(figures[solved].max()) if solved.any() else float("nan")

    return SolveReport(
        values.batch,
        values.is_given,
        statuses,
        worst(cone.primal_residual),
        worst(cone.dual_residual),
        worst(cone.gap),
        int(cone.iterations[solved].max(initial=0)),
        _advice(solution, values),
    )


def _advice(solution: ProgramSolution, values: Values) -> str | None:
    """Say what the rows without a solution mean and what to do."""
    failed = ~solution.has_solution
    if not failed.any():
        return None
    counts = np.bincount(solution.cone.status[failed])
    status, num_failed = Status(int(counts.argmax())), int(failed.sum())
    share = "all" if counts.max() == num_failed else "most"
    which = (
        f"No instance has a solution: {share} are {status.name}."
        if failed.all()
        else f"{num_failed} of {values.batch} instances have no solution: {share} are "
        f"{status.name}, the first at index {int(np.argmax(failed))}."
    )
    if values.is_given:
        return f"{which} {_REMEDIES[status]}"
    return (
        f"{which} The values were sampled, so this may say little about yours: give some with "
        "--values, or set `.value` of the parameters in the file to sample near them. Otherwise: "
        f"{_REMEDIES[status][0].lower()}{_REMEDIES[status][1:]}"
    )


_REMEDIES = {
    Status.INFEASIBLE: "The constraints contradict each other: relax one, or add a slack variable.",
    Status.UNBOUNDED: "The objective has no lower bound: add a bound or a quadratic term.",
    Status.MAX_ITERATIONS: "Rescale the parameters, or allow more iterations.",
    Status.NUMERICAL_ERROR: "The data are badly scaled: rescale the parameters.",
    Status.NOT_CONVEX: "The matrix of a quadratic form is not positive semidefinite: correct it.",
}


def measure(
    program: CompiledProgram,
    values: Values,
    backend: AbstractBackend,
    derivative: ConeDerivative | None,
) -> TimingReport:
    """Time solve and vjp, for the batch and for its first instance alone.

    Args:
        program: the compiled problem.
        values: what to solve it at.
        backend: the solver.
        derivative: the engine of the derivative; None to time the solve only.
    """
    first = tuple(np.ascontiguousarray(rows[:1]) for rows in values.rows)
    forward, backward = _time_calls(program, values.rows, values.batch, backend, derivative)
    alone, alone_backward = _time_calls(program, first, 1, backend, derivative)
    return TimingReport(
        values.batch,
        forward / max(values.batch, 1),
        None if backward is None else backward / max(values.batch, 1),
        alone,
        alone_backward,
        _num_cores(),
    )


def _time_calls(
    program: CompiledProgram,
    rows: tuple[np.ndarray, ...],
    batch: int,
    backend: AbstractBackend,
    derivative: ConeDerivative | None,
) -> tuple[float, float | None]:
    """Return median seconds of a solve and of a vjp."""
    solution = program.solve(rows, backend=backend, batch=batch)
    forward = _median_seconds(lambda: program.solve(rows, backend=backend, batch=batch))
    if derivative is None:
        return forward, None
    outputs_bar = [np.ones(output.shape) for output in solution.outputs]
    backward = _median_seconds(lambda: program.vjp(solution, outputs_bar, derivative=derivative))
    return forward, backward


def _median_seconds(call: Callable[[], object]) -> float:
    call()
    seconds: list[float] = []
    while len(seconds) < _MOST_REPEATS and (len(seconds) < 3 or sum(seconds) < _TIMING_SECONDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
