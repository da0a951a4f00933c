# SPDX-License-Identifier: Apache-2.0
"""One small problem for each kind of cone and output, sampled where its solution is smooth.

There derivatives of every order exist, and can be held against finite differences of those
one order lower.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np

Parts = tuple[cp.Problem, list[cp.Parameter], list[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class SmoothCase:
    """A problem with a smooth solution.

    Attributes:
        name: for the name of the test.
        build: makes (problem, parameters, variables), new objects each time.
        center: one value per parameter; those that are sampled lie around it.
        spread: how far.
        gp: whether it is a geometric program.
    """

    name: str
    build: Callable[[], Parts]
    center: tuple[Any, ...]
    spread: float = 0.1
    gp: bool = False

    def __str__(self) -> str:
        return self.name

    def sample(self, rng: np.random.Generator, *batch: int) -> list[np.ndarray]:
        """Draw one value per parameter, with the given batch dimensions."""
        return [self._near(np.asarray(value), rng, batch) for value in self.center]

    def _near(
        self, value: np.ndarray, rng: np.random.Generator, batch: tuple[int, ...]
    ) -> np.ndarray:
        shape = (*batch, *value.shape)
        noise = rng.uniform(-1, 1, size=shape)
        if np.iscomplexobj(value):
            noise = noise + 1j * rng.uniform(-1, 1, size=shape)
        return value + self.spread * noise


def _linear() -> Parts:
    x = cp.Variable(3, name="x")
    cost, A, b = (
        cp.Parameter(3, name="cost"),
        cp.Parameter((2, 3), name="A"),
        cp.Parameter(2, name="b"),
    )
    return cp.Problem(cp.Minimize(cost @ x), [A @ x <= b, x >= -1, x <= 1]), [cost, A, b], [x]


def _quadratic() -> Parts:
    x = cp.Variable(3, name="x")
    q, A, b = cp.Parameter(3, name="q"), cp.Parameter((1, 3), name="A"), cp.Parameter(1, name="b")
    objective = cp.sum_squares(x) + cp.square(x[0] - x[1]) + q @ x
    return cp.Problem(cp.Minimize(objective), [A @ x == b, x >= 0]), [q, A, b], [x]


def _maximize() -> Parts:
    x = cp.Variable(2, name="x")
    weight, limit = cp.Parameter(2, name="weight"), cp.Parameter(name="limit", nonneg=True)
    bound = cp.sum(x) <= limit
    problem = cp.Problem(cp.Maximize(weight @ x - cp.sum_squares(x)), [bound, x >= 0])
    return problem, [weight, limit], [x, bound.dual_variables[0]]


def _second_order() -> Parts:
    x = cp.Variable(3, name="x")
    c, radius = cp.Parameter(3, name="c"), cp.Parameter(name="radius", nonneg=True)
    ball = cp.norm(x, 2) <= radius
    return cp.Problem(cp.Minimize(c @ x), [ball]), [c, radius], [x, ball.dual_variables[0]]


def _norms() -> Parts:
    x = cp.Variable(3, name="x")
    A, b = cp.Parameter((4, 3), name="A"), cp.Parameter(4, name="b")
    return cp.Problem(cp.Minimize(cp.norm(A @ x - b, 2) + cp.sum_squares(x))), [A, b], [x]


def _exponential() -> Parts:
    x = cp.Variable(3, name="x")
    c, total = cp.Parameter(3, name="c"), cp.Parameter(name="total", pos=True)
    problem = cp.Problem(cp.Minimize(c @ x - cp.sum(cp.entr(x))), [cp.sum(x) == total])
    return problem, [c, total], [x]


def _power() -> Parts:
    x = cp.Variable(2, name="x")
    c = cp.Parameter(2, name="c")
    return cp.Problem(cp.Minimize(c @ x + cp.sum(cp.power(x, 3)))), [c], [x]


def _semidefinite() -> Parts:
    X = cp.Variable((3, 3), symmetric=True, name="X")
    C = cp.Parameter((3, 3), name="C")
    return cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0]), [C], [X]


def _geometric() -> Parts:
    h, w, d = (cp.Variable(pos=True, name=name) for name in "hwd")
    wall, floor = cp.Parameter(pos=True, name="wall"), cp.Parameter(pos=True, name="floor")
    limits = [2 * (h * w + h * d) <= wall, w * d <= floor, w <= 2 * d]
    return cp.Problem(cp.Maximize(h * w * d), limits), [wall, floor], [h, w, d]


def _complex() -> Parts:
    z = cp.Variable(2, complex=True, name="z")
    point, radius = cp.Parameter(2, complex=True, name="point"), cp.Parameter(name="r", nonneg=True)
    return (
        cp.Problem(cp.Minimize(cp.sum_squares(z - point)), [cp.norm(z, 2) <= radius]),
        [point, radius],
        [z],
    )


_ROOT = np.array([[1.0, 0.2, 0.0], [0.3, -0.8, 0.1], [0.0, 0.4, -0.5]])

SMOOTH = [
    SmoothCase(
        "linear",
        _linear,
        ([-1.0, -1.3, -0.5], [[1.0, 0.5, 0.2], [0.3, 1.0, -0.4]], [0.5, 0.4]),
    ),
    SmoothCase("quadratic", _quadratic, ([-1.0, 0.5, -0.3], [[1.0, 0.7, 0.9]], [0.8])),
    SmoothCase("maximize", _maximize, ([2.0, 1.5], 0.8)),
    SmoothCase("second_order", _second_order, ([1.0, -0.5, 0.7], 1.3)),
    SmoothCase(
        "norms",
        _norms,
        ([[1.0, 0, 0.3], [0, 1.2, 0], [0.2, 0, 0.9], [0.5, 0.5, 0]], [1.0, -2.0, 1.5, 2.0]),
    ),
    SmoothCase("exponential", _exponential, ([0.3, -0.2, 0.5], 1.5)),
    SmoothCase("power", _power, ([-1.0, -2.0],)),
    SmoothCase("semidefinite", _semidefinite, (_ROOT,)),
    SmoothCase("geometric", _geometric, (12.0, 4.0), gp=True),
    SmoothCase("complex", _complex, ([1.0 + 0.5j, -0.7 + 1.2j], 1.1)),
]
CURVED = [case for case in SMOOTH if case.name not in ("linear", "quadratic", "maximize")]


def smooth_case(name: str) -> SmoothCase:
    """Return the case of a name."""
    return next(case for case in SMOOTH if case.name == name)
