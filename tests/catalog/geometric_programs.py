# SPDX-License-Identifier: Apache-2.0
"""Geometric programs with parameters in every place they may stand in."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np

from tests.catalog.dpp_problems import DppCase, Parts, Values


def _positive(*shapes: Any) -> Any:
    return lambda rng: [np.asarray(rng.uniform(0.5, 2.0, size=shape)) for shape in shapes]


def _box() -> Parts:
    h, w, d = (cp.Variable(pos=True, name=name) for name in "hwd")
    wall, floor, ratio = (cp.Parameter(pos=True, name=n) for n in ("wall", "floor", "ratio"))
    limits = [2 * (h * w + h * d) <= wall, w * d <= floor, h / w <= ratio, w <= 3 * d]
    return cp.Problem(cp.Maximize(h * w * d), limits), [wall, floor, ratio], [h, w, d]


def _monomials() -> Parts:
    x, y = cp.Variable(pos=True, name="x"), cp.Variable(pos=True, name="y")
    a, b = cp.Parameter(pos=True, name="a"), cp.Parameter(pos=True, name="b")
    problem = cp.Problem(cp.Minimize(a * x / y + y + b / x), [x * y**2 == a * b, x <= 4])
    return problem, [a, b], [x, y]


def _exponents() -> Parts:
    x, y = cp.Variable(pos=True, name="x"), cp.Variable(pos=True, name="y")
    p, c = cp.Parameter(name="p"), cp.Parameter(pos=True, name="c")
    problem = cp.Problem(cp.Minimize(c * x + y), [x**p * y >= 1, x >= 0.1])
    return problem, [p, c], [x, y]


def _exponent_and_factor() -> Parts:
    x, y = cp.Variable(pos=True, name="x"), cp.Variable(pos=True, name="y")
    c = cp.Parameter(pos=True, name="c")
    return cp.Problem(cp.Minimize(c * x + y), [x**c * y >= 2]), [c], [x, y]


def _posynomials_of_parameters() -> Parts:
    x = cp.Variable(3, pos=True, name="x")
    a, b = cp.Parameter(3, pos=True, name="a"), cp.Parameter(pos=True, name="b")
    problem = cp.Problem(
        cp.Minimize(cp.sum(cp.multiply(a, x)) + cp.prod(x) ** -0.5),
        [cp.max(x) * (b + 1) <= 3, cp.geo_mean(x) >= 0.2],
    )
    return problem, [a, b], [x]


def _bounds_and_symmetry() -> Parts:
    X = cp.Variable((2, 2), pos=True, symmetric=True, name="X")
    y = cp.Variable(2, pos=True, bounds=[0.5, np.array([0.8, np.inf])], name="y")
    a = cp.Parameter((2, 2), pos=True, name="a")
    cost = cp.sum(cp.multiply(a, X)) + 1 / (X[0, 1] * X[0, 0] * X[1, 1]) + y[0] / y[1] + y[1]
    return cp.Problem(cp.Minimize(cost), [X[0, 1] <= y[0]]), [a], [X, y]


def _perron_frobenius() -> Parts:
    X = cp.Variable((2, 2), pos=True, name="X")
    a = cp.Parameter(pos=True, name="a")
    limits = [cp.prod(cp.multiply(X, np.array([[1.0, 2.0], [0.5, 1.0]]))) == a, X[0, 0] >= 0.6]
    limits.append(X[0, 1] == X[1, 0])
    return cp.Problem(cp.Minimize(cp.pf_eigenvalue(X)), limits), [a], [X]


def _matrix_exponents() -> Parts:
    x = cp.Variable(3, pos=True, name="x")
    A, b = cp.Parameter((2, 3), name="A"), cp.Parameter(2, pos=True, name="b")
    problem = cp.Problem(cp.Minimize(cp.sum(x) + 1 / cp.prod(x)), [cp.gmatmul(A, x) <= b])
    return problem, [A, b], [x]


def _sample_exponents(rng: np.random.Generator) -> Values:
    return [np.asarray(rng.uniform(0.5, 1.5)), np.asarray(rng.uniform(0.5, 2.0))]


GEOMETRIC_PROGRAMS = [
    DppCase("box", _box, _positive((), (), ())),
    DppCase("monomials", _monomials, _positive((), ())),
    DppCase("exponents", _exponents, _sample_exponents),
    DppCase("exponent and factor", _exponent_and_factor, _positive(())),
    DppCase("posynomials of parameters", _posynomials_of_parameters, _positive((3,), ())),
    DppCase("bounds and symmetry", _bounds_and_symmetry, _positive((2, 2))),
    DppCase("Perron-Frobenius eigenvalue", _perron_frobenius, _positive(())),
    DppCase(
        "matrix of exponents",
        _matrix_exponents,
        lambda rng: [rng.normal(size=(2, 3)), rng.uniform(0.5, 2.0, size=2)],
    ),
]
