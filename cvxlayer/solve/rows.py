# SPDX-License-Identifier: Apache-2.0
"""What every backend around an outside solver shares: one instance after the other.

`read_instance` hands out an instance that any solver can take; `judge` measures what came back
and decides its status; `solve_rows` spreads the instances over threads and stacks the answers.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float

from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.errors import Status, UnsupportedProblemError
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.convexity import find_indefinite
from cvxlayer.program.solution import ConeSolution, SolvedBy
from cvxlayer.solve.backend import AbstractBackend, Settings, log_solve
from cvxlayer.solve.interrupts import keep_interrupt_handler
from cvxlayer.solve.residuals import UNKNOWN, RowResiduals, measure

T = TypeVar("T")

_INACCURATE_FACTOR = 1e3
_DEFAULT_EPS = Settings().eps_abs
# A solver's claim that there is no solution stands if its certificate holds to this accuracy.
_CERTIFICATE_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Row:
    """What one instance comes back with, in canonical scaling; see `ConeSolution`.

    Attributes:
        x, y, s, status, iterations: as there.
        residuals: measured by ourselves; `UNKNOWN` without a solution.
        adjoint: see `ConeSolution.adjoints`.
    """

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " m"]
    s: Float[np.ndarray, " m"]
    status: Status
    iterations: int
    residuals: RowResiduals
    adjoint: Any = None


@dataclasses.dataclass(frozen=True)
class Instance:
    """One cone program with at least one variable and one row, all of its numbers finite.

    Attributes:
        P, q, A, b: its data; P holds the upper triangle, and both matrices are copies that
            may be changed.
        cones: K, without the rows whose bound is infinite.
        is_present: which rows of the structure it has.
        num_variables: n of the structure; `q` is longer only if that is 0.
    """

    P: sp.csc_matrix
    q: Float[np.ndarray, " n"]
    A: sp.csc_matrix
    b: Float[np.ndarray, " m"]
    cones: ConeProduct
    is_present: Bool[np.ndarray, " rows"]
    num_variables: int


def refuse_missing_cones(name: str, cones: ConeProduct, missing: frozenset[ConeKind]) -> None:
    """Refuse a product that has a cone its solver lacks.

    Raises:
        UnsupportedProblemError: names the cone, and solvers that have it.
    """
    for cone in cones.curved:
        if cone.kind in missing:
            kind = cone.kind.name.lower().replace("_", "-")
            raise UnsupportedProblemError(
                f"The problem has a {kind} cone, which the solver `{name}` does not have. "
                "Choose one that has it, such as `clarabel` or `scs`."
            )


def read_instance(batch: ConeProgramBatch, index: int) -> Instance | None:
    """Return one instance in a form that every solver can take.

    An inequality with an infinite bound is no constraint and is left out. Solvers refuse
    programs without a row or without a variable: these get the row 0ᵀx + s = 1, s ≥ 0, or a
    variable that occurs nowhere.

    Returns:
        The instance, or None if some other number is not finite.
    """
    P, q, A, b = batch.instance(index)
    cones, n = batch.structure.cones, batch.structure.num_variables
    is_present = is_bound(batch, b)
    rhs = b[is_present]
    if not all(np.isfinite(block).all() for block in (P.data, q, A.data, rhs)):
        return None
    num_inequalities = cones.nonnegative - int(np.count_nonzero(~is_present))
    cones = cones.with_linear(cones.zero, num_inequalities)
    # Some solvers remove zeros in place, and some know matrices only.
    quadratic, rows = sp.csc_matrix(P, copy=True), sp.csc_matrix(A[is_present], copy=True)
    if n == 0:
        quadratic, q, rows = sp.csc_matrix((1, 1)), np.zeros(1), sp.csc_matrix((len(rhs), 1))
    if len(rhs) == 0:
        rows, rhs, cones = sp.csc_matrix((1, len(q))), np.ones(1), ConeProduct(nonnegative=1)
    return Instance(quadratic, q.copy(), rows, rhs.copy(), cones, is_present, n)


def is_bound(batch: ConeProgramBatch, b: Float[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    """Return which rows bind: all but inequalities with an infinite bound, which is legal."""
    cones = batch.structure.cones
    is_present = ~np.isposinf(b)
    is_present[: cones.zero] = is_present[cones.num_linear :] = True
    return is_present


def judge(
    batch: ConeProgramBatch,
    index: int,
    instance: Instance,
    point: tuple[np.ndarray, np.ndarray, np.ndarray],
    claim: Status,
    iterations: int,
    settings: Settings,
) -> Row:
    """Measure a point that a solver returned, and decide how its row ended.

    Certificates are checked and normalized; any other point is graded by our own residuals,
    and where these are large, the row ended as the solver says.

    Args:
        batch: the programs.
        index: which of them.
        instance: what the solver was given.
        point: (x, y, s) for `instance`.
        claim: how it ended, according to the solver.
        iterations: how many it took.
        settings: with the tolerances.
    """
    x, y, s = (np.array(part, dtype=float).ravel() for part in point)
    x = x[: instance.num_variables]
    y, s = _spread(instance, y, 0.0), _spread(instance, s, np.inf)
    program = batch.instance(index)
    certificate = certify(program, x, y, s, claim)
    if certificate is not None:
        return Row(*certificate, claim, iterations, UNKNOWN)
    residuals = measure(program, x, y, s)
    otherwise = claim if claim is Status.MAX_ITERATIONS else Status.NUMERICAL_ERROR
    return Row(x, y, s, grade(residuals, settings, otherwise), iterations, residuals)


def grade(residuals: RowResiduals, settings: Settings, otherwise: Status) -> Status:
    """Return SOLVED or INACCURATE where residuals are small enough for it, else `otherwise`.

    Inaccurate are those within a thousand times the tolerance, or the default one if larger.
    Comparisons with NaN are false, so nothing that is not finite is either.
    """
    tolerances = settings.eps_abs, settings.eps_rel
    if residuals.are_below(*tolerances):
        return Status.SOLVED
    if residuals.are_below(*(_INACCURATE_FACTOR * max(eps, _DEFAULT_EPS) for eps in tolerances)):
        return Status.INACCURATE
    return otherwise


def certify(
    program: tuple[sp.csc_array, np.ndarray, sp.csc_array, np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    s: np.ndarray,
    claim: Status,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the normalized certificate of what is claimed, or None if it certifies nothing.

    Args:
        program: (P upper triangle, q, A, b), as from `ConeProgramBatch.instance`.
        x: of any length, like y and s.
        y: what should have Aᵀy = 0 and bᵀy < 0, for a row that is infeasible.
        s: what should, with x, have Px = 0, Ax + s = 0 and qᵀx < 0, for one that is unbounded.
        claim: what it should certify.
    """
    P, q, A, b = program
    is_present = np.isfinite(b)
    if claim is Status.INFEASIBLE and 0.0 < (size := -(b[is_present] @ y[is_present])) < np.inf:
        if _vanishes(A.T @ y, A, y):
            return x * np.nan, y / size, s * np.nan
    elif claim is Status.UNBOUNDED and 0.0 < (size := -(q @ x)) < np.inf:
        Px, left = P @ x + sp.triu(P, 1).T @ x, (A @ x + s)[is_present]
        if _vanishes(Px, P, x) and _vanishes(left, A, x):
            return x / size, y * np.nan, s / size
    return None


def _vanishes(product: np.ndarray, matrix: sp.csc_array, vector: np.ndarray) -> bool:
    """Whether a product is small beside what its factors could make."""
    scale = np.max(np.abs(matrix.data), initial=0.0) * np.max(np.abs(vector), initial=0.0)
    largest = np.max(np.abs(product), initial=0.0)
    return bool(largest <= _CERTIFICATE_TOLERANCE * scale < np.inf)


def _spread(instance: Instance, part: np.ndarray, absent: float) -> np.ndarray:
    """Return a vector on all rows of the structure from one on those of the instance."""
    everywhere = np.full(len(instance.is_present), absent)
    everywhere[instance.is_present] = part[: np.count_nonzero(instance.is_present)]
    return everywhere


def fail(num_variables: int, num_rows: int, status: Status = Status.NUMERICAL_ERROR) -> Row:
    """Return the row of an instance that nothing came back from."""
    x, nothing = np.full(num_variables, np.nan), np.full(num_rows, np.nan)
    return Row(x, nothing, nothing, status, 0, UNKNOWN)


def solve_rows(
    backend: AbstractBackend,
    batch: ConeProgramBatch,
    settings: Settings,
    solve_row: Callable[[int], Row],
) -> ConeSolution:
    """Solve every instance by `solve_row`, in threads, and stack what comes back.

    Instances that are not convex are not tried: NOT_CONVEX.

    Args:
        backend: for the log.
        batch: the programs.
        settings: threads and verbosity.
        solve_row: solves the instance of an index; must release the GIL for threads to pay.
    """
    start = time.perf_counter()
    is_indefinite = find_indefinite(batch)
    n, m = batch.structure.num_variables, batch.structure.num_rows

    def solve_convex_row(index: int) -> Row:
        return fail(n, m, Status.NOT_CONVEX) if is_indefinite[index] else solve_row(index)

    with keep_interrupt_handler():
        rows = map_in_threads(solve_convex_row, batch.size, settings.threads)
    solution = _stack(batch, rows, time.perf_counter() - start)
    if settings.verbose:
        log_solve(backend, solution)
    return solution


def map_in_threads(function: Callable[[int], T], count: int, threads: int | None) -> list[T]:
    """Return `[function(0), …, function(count − 1)]`, computed by several threads.

    Args:
        function: must release the GIL for threads to pay.
        count: number of instances.
        threads: how many; None for as many as cores.
    """
    threads = min(threads or _num_cores(), count)
    if threads <= 1:
        return [function(index) for index in range(count)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, range(count)))


def _stack(batch: ConeProgramBatch, rows: list[Row], seconds: float) -> ConeSolution:
    n, m = batch.structure.num_variables, batch.structure.num_rows
    return ConeSolution(
        x=np.array([row.x for row in rows], dtype=float).reshape(len(rows), n),
        y=np.array([row.y for row in rows], dtype=float).reshape(len(rows), m),
        s=np.array([row.s for row in rows], dtype=float).reshape(len(rows), m),
        status=np.array([row.status for row in rows], dtype=np.int32),
        iterations=np.array([row.iterations for row in rows], dtype=np.int32),
        primal_residual=np.array([row.residuals.primal for row in rows], dtype=float),
        dual_residual=np.array([row.residuals.dual for row in rows], dtype=float),
        gap=np.array([row.residuals.gap for row in rows], dtype=float),
        solved_by=np.full(len(rows), SolvedBy.FIRST_PASS, dtype=np.int32),
        is_active=np.full((len(rows), m), -1, dtype=np.int8),
        solve_seconds=seconds,
        adjoints=tuple(row.adjoint for row in rows),
    )


def _num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
