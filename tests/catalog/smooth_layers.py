# SPDX-License-Identifier: Apache-2.0
"""Small layers of every kind, sampled where they are twice differentiable: for transforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np

Parts = tuple[cp.Problem, list[cp.Parameter], list[Any]]
Values = list[np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class SmoothCase:
    """A small problem and where to evaluate it.

    Attributes:
        name: for the name of the test.
        build: makes (problem, parameters, variables), new objects each time.
        sample: draws one value for each parameter, away from kinks.
        gp: whether it is a geometric program.
        is_curved: whether one of its cones is not linear.
    """

    name: str
    build: Callable[[], Parts]
    sample: Callable[[np.random.Generator], Values]
    gp: bool = False
    is_curved: bool = True

    def __str__(self) -> str:
        return self.name

    def options(self) -> dict[str, Any]:
        """Return the options of a layer whose answers are right to rounding."""
        return {"gp": self.gp, "solver_args": {"eps": 1e-11}}

    def sample_batch(self, rng: np.random.Generator, size: int) -> Values:
        """Draw a batch, the instances along the first dimension."""
        draws = [self.sample(rng) for _ in range(size)]
        return [np.stack(values) for values in zip(*draws, strict=True)]


def _near(*centers: Any, by: float = 0.1) -> Callable[[np.random.Generator], Values]:
    """Draw near given values, where the same constraints are active."""
    arrays = [np.asarray(center, dtype=float) for center in centers]
    return lambda rng: [a + by * rng.uniform(-1, 1, size=a.shape) for a in arrays]


def _linear_program() -> Parts:
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c")
    G, h = cp.Parameter((2, 2), name="G"), cp.Parameter(2, name="h")
    limit = G @ x <= h
    problem = cp.Problem(cp.Minimize(c @ x), [limit, x >= -5])
    return problem, [c, G, h], [x, limit.dual_variables[0]]


def _quadratic_program() -> Parts:
    x, root = cp.Variable(3, name="x"), cp.Parameter((3, 3), name="root")
    q, h = cp.Parameter(3, name="q"), cp.Parameter(name="h")
    limits = [cp.sum(x) == h, x[0] <= 0.1]
    objective = cp.Minimize(0.5 * cp.sum_squares(root @ x) + q @ x + cp.square(h) * 2)
    return cp.Problem(objective, limits), [root, q, h], [x, limits[1].dual_variables[0]]


def _maximize() -> Parts:
    x, c, r = cp.Variable(2, name="x"), cp.Parameter(2, name="c"), cp.Parameter(name="r")
    limit = cp.norm(x) <= r
    problem = cp.Problem(cp.Maximize(c @ x - 0.1 * cp.sum_squares(x)), [limit])
    return problem, [c, r], [x, limit.dual_variables[0]]


def _second_order() -> Parts:
    x, point = cp.Variable(3, name="x"), cp.Parameter(3, name="point")
    A, r = cp.Parameter((2, 3), name="A"), cp.Parameter(name="r")
    problem = cp.Problem(cp.Minimize(cp.norm(x - point)), [cp.norm(A @ x) <= r])
    return problem, [point, A, r], [x]


def _exponential() -> Parts:
    x, c, w = cp.Variable(3, name="x"), cp.Parameter(3, name="c"), cp.Parameter(3, name="w")
    problem = cp.Problem(cp.Maximize(c @ x + cp.sum(cp.entr(x))), [w @ x == 1])
    return problem, [c, w], [x]


def _power() -> Parts:
    x, c, b = cp.Variable(2, name="x"), cp.Parameter(2, name="c"), cp.Parameter(name="b")
    problem = cp.Problem(cp.Minimize(cp.pnorm(x, 3) + c @ x), [cp.sum(x) == b])
    return problem, [c, b], [x]


def _semidefinite() -> Parts:
    X, H = cp.Variable((2, 2), symmetric=True, name="X"), cp.Parameter((2, 2), name="H")
    t = cp.Parameter(name="t")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - H)), [X >> 0, cp.trace(X) <= t])
    return problem, [H, t], [X]


def _geometric() -> Parts:
    x, y = cp.Variable(pos=True, name="x"), cp.Variable(pos=True, name="y")
    a, p = cp.Parameter(pos=True, name="a"), cp.Parameter(name="p")
    problem = cp.Problem(cp.Minimize(a * x + y / a + 1 / x), [x**p * y >= a])
    return problem, [a, p], [x, y]


def _complex() -> Parts:
    z, c = cp.Variable(2, complex=True, name="z"), cp.Parameter(2, complex=True, name="c")
    a = cp.Parameter(2, complex=True, name="a")
    equal = cp.sum(cp.multiply(a, z)) == 0.3
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - c)), [equal, cp.norm(z) <= 1])
    return problem, [c, a], [z, equal.dual_variables[0]]


def _sample_complex(rng: np.random.Generator) -> Values:
    real, imaginary = _near([2.0, 1.0], [1.0, 0.5])(rng), _near([0.5, -1.0], [0.2, -0.3])(rng)
    return [a + 1j * b for a, b in zip(real, imaginary, strict=True)]


SMOOTH_LAYERS = [
    SmoothCase(
        "linear",
        _linear_program,
        _near([-1.0, -1.5], [[1.0, 0.3], [0.2, 1.0]], [1.0, 2.0]),
        is_curved=False,
    ),
    SmoothCase(
        "quadratic",
        _quadratic_program,
        _near(np.eye(3) + 0.2, [-3.0, 1.0, 0.5], 1.0),
        is_curved=False,
    ),
    SmoothCase("maximize", _maximize, _near([1.0, -2.0], 1.0)),
    SmoothCase(
        "second-order", _second_order, _near([2.0, -1.0, 1.0], [[1, 0.2, 0], [0, 1, 1]], 1.0)
    ),
    SmoothCase("exponential", _exponential, _near([0.5, -0.5, 0.2], [1.0, 1.5, 0.7])),
    SmoothCase("power", _power, _near([-0.3, 0.2], 1.0)),
    SmoothCase("semidefinite", _semidefinite, _near([[2.0, 1.0], [0.6, -1.0]], 1.2)),
    SmoothCase("geometric", _geometric, _near(1.2, 0.7), gp=True),
    SmoothCase("complex", _complex, _sample_complex),
]
"""Linear, quadratic and of each curved cone; with duals, to maximize, geometric and complex."""


def smooth_layer(name: str) -> SmoothCase:
    """Return the case of a name."""
    return next(case for case in SMOOTH_LAYERS if case.name == name)
