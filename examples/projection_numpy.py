# SPDX-License-Identifier: Apache-2.0
"""Project a batch of points onto the probability simplex, in NumPy.

There is a formula for this projection, so the answers can be judged; CVXPY's stand beside.

    python examples/projection_numpy.py [--batch 1000]
"""

from __future__ import annotations

import argparse
import time

import cvxpy as cp
import numpy as np

from cvxlayer import Layer, Status

COMPARED = 20


def build_problem(size: int) -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    nearest, point = cp.Variable(size, name="nearest"), cp.Parameter(size, name="point")
    objective = cp.Minimize(cp.sum_squares(nearest - point))
    return cp.Problem(objective, [nearest >= 0, cp.sum(nearest) == 1]), point, nearest


def project(points: np.ndarray) -> np.ndarray:
    """Shift each point so that its positive part sums to one; sorting finds the shift."""
    descending = -np.sort(-points, axis=1)
    shifts = (np.cumsum(descending, axis=1) - 1) / np.arange(1, points.shape[1] + 1)
    count = np.sum(descending > shifts, axis=1)
    return np.maximum(points - shifts[np.arange(len(points)), count - 1][:, None], 0)


def main(batch: int, size: int = 50) -> float:
    """Print times and errors; return the largest error of the layer."""
    problem, point, nearest = build_problem(size)
    layer = Layer(problem, parameters=[point], variables=[nearest])
    points = np.random.default_rng(0).standard_normal((batch, size))
    exact = project(points)

    layer(points[:1])  # The first call prepares the engine.
    start = time.perf_counter()
    solution = layer.solve(points)
    each = (time.perf_counter() - start) / batch
    error = float(np.abs(solution.variables[0] - exact).max())
    solved = int(np.sum(solution.status == Status.SOLVED))
    print(f"layer:  {1e6 * each:7.1f} µs each, error {error:.0e}, {solved} of {batch} solved")

    worst = 0.0
    start = time.perf_counter()
    for row, answer in zip(points[:COMPARED], exact, strict=False):
        point.value = row
        problem.solve(solver=cp.CLARABEL)
        worst = max(worst, float(np.abs(nearest.value - answer).max()))
    each = (time.perf_counter() - start) / min(COMPARED, batch)
    print(f"CVXPY:  {1e6 * each:7.1f} µs each, error {worst:.0e}, one at a time, by Clarabel")
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Project a batch of points onto the simplex.")
    parser.add_argument("--batch", type=int, default=1000)
    main(parser.parse_args().batch)
