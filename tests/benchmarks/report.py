# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.benchmarks.report`: what the derivative report costs, in solves.

Solve, backward pass and report take turns in one process on one thread; the ratio of their
median processor times is printed as the table of docs/report.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import cvxpy as cp
import numpy as np

import cvxlayer
from cvxlayer.reporting import report_derivative

Case = tuple[cvxlayer.Layer, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]]
TURNS = 40
BATCHES = ((), (64,))


def _normal(n: int) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    return lambda rng, batch: rng.normal(size=(*batch, n))


def _symmetric(rng: np.random.Generator, batch: tuple[int, ...]) -> np.ndarray:
    matrix = rng.normal(size=(*batch, 6, 6))
    return matrix + matrix.swapaxes(-1, -2)


def _simplex() -> Case:
    x, point = cp.Variable(10), cp.Parameter(10)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [cp.sum(x) == 1, x >= 0])
    return cvxlayer.Layer(problem, [point], [x]), _normal(10)


def _quadratic() -> Case:
    rng = np.random.default_rng(0)
    x, q = cp.Variable(30), cp.Parameter(30)
    A, b = rng.normal(size=(40, 30)), rng.uniform(0.1, 1.0, 40)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + q @ x), [A @ x <= b])
    return cvxlayer.Layer(problem, [q], [x]), _normal(30)


def _ball() -> Case:
    x, point = cp.Variable(10), cp.Parameter(10)
    constraints = [cp.norm(x) <= 1, x >= -0.2]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), constraints)
    return cvxlayer.Layer(problem, [point], [x]), _normal(10)


def _spectrahedron() -> Case:
    X, C = cp.Variable((6, 6), symmetric=True), cp.Parameter((6, 6), symmetric=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0, cp.trace(X) == 1])
    return cvxlayer.Layer(problem, [C], [X]), _symmetric


def _assignment() -> Case:
    """Every vertex is degenerate, though the parameters do not notice."""
    X, cost = cp.Variable((4, 4), nonneg=True), cp.Parameter((4, 4))
    constraints = [cp.sum(X, axis=0) == 1, cp.sum(X, axis=1) == 1]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(cost, X))), constraints)
    return cvxlayer.Layer(problem, [cost], [X]), lambda rng, batch: rng.normal(size=(*batch, 4, 4))


CASES = {
    "projection onto a simplex, 10 variables": _simplex,
    "quadratic program, 30 variables, 40 constraints": _quadratic,
    "projection onto a ball with bounds, 10 variables": _ball,
    "projection onto a spectrahedron, 6 × 6": _spectrahedron,
    "assignment, 4 × 4: every row in doubt": _assignment,
}


def measure(case: Case, batch: tuple[int, ...]) -> tuple[float, float, float]:
    """Return seconds of a solve, and the backward pass and the report in solves."""
    layer, draw = case
    evaluator, arguments = layer._evaluator, {"threads": 1}
    values = [draw(np.random.default_rng(1), batch)]
    evaluation = evaluator.evaluate(values, [0.0], arguments)
    ones = [np.ones_like(array) for array in evaluation.read_outputs().arrays]
    jobs: list[Callable[[], object]] = [
        lambda: evaluator.evaluate(values, [0.0], arguments),
        lambda: evaluation.pull_back_outputs(ones, [True]),
        lambda: report_derivative(evaluation.solution, batch),
    ]
    seconds: list[list[float]] = [[], [], []]
    for turn in range(TURNS):
        for job, own in zip(jobs, seconds, strict=True):
            start = time.process_time()
            job()
            if turn:
                own.append(time.process_time() - start)
    solve, backward, report = map(statistics.median, seconds)
    return solve, backward / solve, report / solve


def main() -> None:
    """Print the table."""
    columns = [
        f"{what}, {'one' if not b else b[0]}" for b in BATCHES for what in ("backward", "report")
    ]
    print("| problem | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, build in CASES.items():
        case = build()
        found = [figure for batch in BATCHES for figure in measure(case, batch)[1:]]
        print(f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in found) + " |", flush=True)


if __name__ == "__main__":
    main()
