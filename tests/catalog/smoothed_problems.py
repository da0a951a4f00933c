# SPDX-License-Identifier: Apache-2.0
"""Small problems, one for each kind of cone, whose smoothed derivative is to be taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class SmoothedProblem:
    """A problem with values for its parameters.

    Attributes:
        name: for the name of the test.
        build: makes (problem, parameters, variables).
        values: of the parameters.
    """

    name: str
    build: Callable[[], tuple[cp.Problem, list[Any], list[Any]]]
    values: tuple[np.ndarray, ...]

    def __str__(self) -> str:
        return self.name


def _simplex() -> tuple[cp.Problem, list[Any], list[Any]]:
    cost, x = cp.Parameter(4), cp.Variable(4)
    return cp.Problem(cp.Minimize(cost @ x), [cp.sum(x) == 1, x >= 0]), [cost], [x]


def _polyhedron() -> tuple[cp.Problem, list[Any], list[Any]]:
    A, b, c, x = cp.Parameter((4, 2)), cp.Parameter(4), cp.Parameter(2), cp.Variable(2)
    constraint = A @ x <= b
    problem = cp.Problem(cp.Maximize(c @ x - 0.1 * cp.sum_squares(x)), [constraint])
    return problem, [A, b, c], [x, constraint.dual_variables[0]]


def _ball() -> tuple[cp.Problem, list[Any], list[Any]]:
    p, radius, x = cp.Parameter(3), cp.Parameter(nonneg=True), cp.Variable(3)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - p)), [cp.norm(x) <= radius])
    return problem, [p, radius], [x]


def _large_ball() -> tuple[cp.Problem, list[Any], list[Any]]:
    c, shift, x = cp.Parameter(9), cp.Parameter(9), cp.Variable(9)
    return cp.Problem(cp.Minimize(c @ x), [cp.norm(x - shift) <= 2, x >= -1.5]), [c, shift], [x]


def _correlation() -> tuple[cp.Problem, list[Any], list[Any]]:
    C, X = cp.Parameter((3, 3), symmetric=True), cp.Variable((3, 3), PSD=True)
    return cp.Problem(cp.Minimize(cp.trace(C @ X)), [cp.diag(X) == 1]), [C], [X]


def _entropy() -> tuple[cp.Problem, list[Any], list[Any]]:
    c, x = cp.Parameter(3), cp.Variable(3)
    problem = cp.Problem(cp.Maximize(cp.sum(cp.entr(x)) + c @ x), [cp.sum(x) == 1])
    return problem, [c], [x]


def _power() -> tuple[cp.Problem, list[Any], list[Any]]:
    c, x, y, z = cp.Parameter(3), cp.Variable(), cp.Variable(), cp.Variable()
    constraints = [cp.PowCone3D(x, y, z, 0.3), x + y <= 2]
    return cp.Problem(cp.Minimize(c[0] * x + c[1] * y + c[2] * z), constraints), [c], [x, y, z]


_C = np.array([[0.0, 0.9, 0.4], [0.9, 0.0, -0.3], [0.4, -0.3, 0.0]])
PROBLEMS = [
    SmoothedProblem("simplex", _simplex, (np.array([0.1, 0.5, 0.3, 0.9]),)),
    SmoothedProblem(
        "polyhedron",
        _polyhedron,
        (
            np.array([[1.0, 0.2], [-0.3, 1.0], [-1.0, 0.1], [0.1, -1.0]]),
            np.array([1.0, 0.8, 1.2, 0.9]),
            np.array([0.7, 0.4]),
        ),
    ),
    SmoothedProblem("ball", _ball, (np.array([0.9, -0.6, 0.5]), np.array(1.0))),
    SmoothedProblem(
        "large ball", _large_ball, (np.cos(np.arange(9.0)), 0.3 * np.sin(np.arange(9.0)))
    ),
    SmoothedProblem("correlation", _correlation, (_C,)),
    SmoothedProblem("entropy", _entropy, (np.array([0.3, -0.5, 0.1]),)),
    SmoothedProblem("power", _power, (np.array([0.5, 0.4, -1.0]),)),
]
