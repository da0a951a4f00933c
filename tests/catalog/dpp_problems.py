# SPDX-License-Identifier: Apache-2.0
"""DPP problems that exercise every part of canonicalization; CVXPY itself is the judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np

Parts = tuple[cp.Problem, list[cp.Parameter], list[Any]]
Values = list[np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class DppCase:
    """A problem and how to sample its parameters.

    Attributes:
        name: for the name of the test.
        build: makes (problem, parameters, variables), new objects each time.
        sample: draws one value for each parameter, away from kinks.
        direction: draws a perturbation that stays in the parameters' domains; by default
            any.
        has_unique_duals: whether the duals of all constraints can be compared.
    """

    name: str
    build: Callable[[], Parts]
    sample: Callable[[np.random.Generator], Values]
    direction: Callable[[np.random.Generator], Values] | None = None
    has_unique_duals: bool = True

    def __str__(self) -> str:
        return self.name

    def perturbation(self, rng: np.random.Generator) -> Values:
        """Draw a direction for finite differences."""
        if self.direction is not None:
            return self.direction(rng)
        return [rng.normal(size=np.shape(value)) for value in self.sample(rng)]


def _normal(*shapes: Any) -> Callable[[np.random.Generator], Values]:
    return lambda rng: [rng.normal(size=shape) for shape in shapes]


_CONSTANTS = np.random.default_rng(7)
_TALL = _CONSTANTS.normal(size=(8, 4))
_WIDE = _CONSTANTS.normal(size=(3, 6))
_ROOT = _CONSTANTS.normal(size=(4, 4))


def _linear_program() -> Parts:
    x = cp.Variable(3, name="x")
    c, h = cp.Parameter(3, name="c"), cp.Parameter(3, name="h")
    problem = cp.Problem(cp.Minimize(c @ x), [x >= -1, x <= h, cp.sum(x) == 0.4])
    return problem, [c, h], [x]


def _quadratic_program() -> Parts:
    x = cp.Variable(4, name="x")
    root, q = cp.Parameter((4, 4), name="root"), cp.Parameter(4, name="q")
    G, h, e = cp.Parameter((3, 4), name="G"), cp.Parameter(3, name="h"), cp.Parameter(name="e")
    objective = cp.Minimize(0.5 * cp.sum_squares(root @ x) + q @ x + 3)
    problem = cp.Problem(objective, [G @ x <= h, cp.sum(x) == e])
    return problem, [root, q, G, h, e], [x]


def _sample_quadratic_program(rng: np.random.Generator) -> Values:
    root = 2 * np.eye(4) + 0.3 * rng.normal(size=(4, 4))
    return [root, rng.normal(size=4), rng.normal(size=(3, 4)), rng.random(3) - 0.3, rng.normal()]


def _parametric_quad_form() -> Parts:
    x = cp.Variable(4, name="x")
    P, q = cp.Parameter((4, 4), PSD=True, name="P"), cp.Parameter(4, name="q")
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, P) + q @ x), [x >= -0.2, cp.sum(x) == 1])
    return problem, [P, q], [x]


def _sample_psd(rng: np.random.Generator) -> Values:
    root = rng.normal(size=(4, 4))
    return [root @ root.T + np.eye(4), rng.normal(size=4)]


def _symmetric_direction(rng: np.random.Generator) -> Values:
    change = rng.normal(size=(4, 4))
    return [change + change.T, rng.normal(size=4)]


def _maximize_shifted_quad_form() -> Parts:
    x, mu = cp.Variable(4, name="x"), cp.Parameter(4, name="mu")
    fixed = cp.quad_form(x - mu, _ROOT @ _ROOT.T + np.eye(4))
    objective = cp.Maximize(5 - fixed + cp.sum(mu))
    return cp.Problem(objective, [cp.sum(x) <= 0.1, x[0] - x[1] == 0.3]), [mu], [x]


def _several_quad_forms() -> Parts:
    x, y = cp.Variable(4, name="x"), cp.Variable(4, name="y", nonneg=True)
    P, mu = cp.Parameter((4, 4), PSD=True, name="P"), cp.Parameter(4, name="mu")
    cost = 0.5 * cp.quad_form(x - mu, P + np.eye(4)) + cp.quad_form(y, P) / 4
    cost += cp.sum_squares(x + y) + cp.quad_form(y - x, _ROOT @ _ROOT.T)
    return cp.Problem(cp.Maximize(3 - cost), [cp.sum(x) + cp.sum(y) == 1]), [P, mu], [x, y]


def _least_squares() -> Parts:
    x, b = cp.Variable(4, name="x"), cp.Parameter(8, name="b")
    return cp.Problem(cp.Minimize(cp.sum_squares(_TALL @ x - b)), [x >= 0]), [b], [x]


def _ridge() -> Parts:
    x, A = cp.Variable(4, name="x"), cp.Parameter((8, 4), name="A")
    b, weight = cp.Parameter(8, name="b"), cp.Parameter(name="weight", nonneg=True)
    objective = cp.sum_squares(A @ x - b) + weight * cp.sum_squares(x)
    return cp.Problem(cp.Minimize(objective)), [A, b, weight], [x]


def _lasso() -> Parts:
    x, b = cp.Variable(4, name="x"), cp.Parameter(8, name="b")
    weight = cp.Parameter(name="weight", nonneg=True)
    objective = cp.sum_squares(_TALL @ x - b) + weight * cp.norm1(x)
    return cp.Problem(cp.Minimize(objective)), [b, weight], [x]


def _huber() -> Parts:
    x, b = cp.Variable(4, name="x"), cp.Parameter(8, name="b")
    return cp.Problem(cp.Minimize(cp.sum(cp.huber(_TALL @ x - b, 0.7)))), [b], [x]


def _chebyshev() -> Parts:
    x, b = cp.Variable(4, name="x"), cp.Parameter(8, name="b")
    objective = cp.norm_inf(_TALL @ x - b) + 0.01 * cp.sum_squares(x)
    return cp.Problem(cp.Minimize(objective)), [b], [x]


def _norm_ball() -> Parts:
    x, c = cp.Variable(4, name="x"), cp.Parameter(4, name="c")
    radius = cp.Parameter(name="radius", nonneg=True)
    problem = cp.Problem(
        cp.Maximize(c @ x), [cp.norm(_ROOT @ x) <= radius + 0.1 * x[0], cp.abs(x) <= 3]
    )
    return problem, [c, radius], [x]


def _sum_of_norms() -> Parts:
    x, points = cp.Variable(2, name="x"), cp.Parameter((3, 2), name="points")
    objective = sum(cp.norm(x - points[i], 2) for i in range(3))
    return cp.Problem(cp.Minimize(objective)), [points], [x]


def _second_order_cone() -> Parts:
    x, t = cp.Variable((2, 3), name="x"), cp.Variable(3, name="t")
    target = cp.Parameter((2, 3), name="target")
    cones = cp.SOC(t, x, axis=0)
    objective = cp.Minimize(cp.sum_squares(x - target) + cp.sum(t))
    problem = cp.Problem(objective, [cones, cp.sum(t) <= 2])
    return problem, [target], [x, t, cones.dual_variables[0], cones.dual_variables[1]]


def _second_order_cone_by_rows() -> Parts:
    x, t = cp.Variable((2, 3), name="x"), cp.Variable(2, name="t")
    target = cp.Parameter((2, 3), name="target")
    cones = cp.SOC(t, x, axis=1)
    objective = cp.Minimize(cp.sum_squares(x - target) + cp.sum(t))
    problem = cp.Problem(objective, [cones])
    return problem, [target], [x, cones.dual_variables[1]]


def _portfolio() -> Parts:
    w = cp.Variable(5, name="w")
    mu, root = cp.Parameter(5, name="mu"), cp.Parameter((5, 5), name="root")
    risk = cp.norm(root @ w, 2) <= 0.6
    problem = cp.Problem(cp.Maximize(mu @ w), [risk, cp.sum(w) == 1, w >= 0])
    return problem, [mu, root], [w, risk.dual_variables[0]]


def _sample_portfolio(rng: np.random.Generator) -> Values:
    return [rng.random(5), np.eye(5) + 0.1 * rng.normal(size=(5, 5))]


def _control() -> Parts:
    x, u = cp.Variable((3, 6), name="x"), cp.Variable((2, 5), name="u")
    F, H = cp.Parameter((3, 3), name="F"), cp.Parameter((3, 2), name="H")
    start, target = cp.Parameter(3, name="start"), cp.Parameter(3, name="target")
    constraints = [x[:, 0] == start, cp.abs(u) <= 0.5, x <= 2]
    cost = 0
    for t in range(5):
        constraints.append(x[:, t + 1] == F @ x[:, t] + H @ u[:, t])
        cost += cp.sum_squares(x[:, t + 1] - target) + 0.1 * cp.sum_squares(u[:, t])
    return cp.Problem(cp.Minimize(cost), constraints), [F, H, start, target], [u, x]


def _sample_control(rng: np.random.Generator) -> Values:
    F = 0.9 * np.eye(3) + 0.1 * rng.normal(size=(3, 3))
    start = rng.uniform(-1, 1, 3)
    return [F, rng.normal(size=(3, 2)), start, rng.normal(size=3)]


_F = 0.9 * np.eye(3) + 0.1 * _CONSTANTS.normal(size=(3, 3))
_H = _CONSTANTS.normal(size=(3, 2))


def _control_with_constant_dynamics() -> Parts:
    x, u = cp.Variable((3, 6), name="x"), cp.Variable((2, 5), name="u")
    miss = cp.Variable((3, 5), name="miss")
    start, target = cp.Parameter(3, name="start"), cp.Parameter(3, name="target")
    begin = x[:, 0] == start
    # The user's own name for a residual, and states without bounds.
    shortfall = miss == x[:, 1:] - cp.reshape(target, (3, 1), order="C") @ np.ones((1, 5))
    constraints = [begin, cp.abs(u) <= 0.5, shortfall]
    for t in range(5):
        constraints.append(x[:, t + 1] == _F @ x[:, t] + _H @ u[:, t])
    cost = cp.sum_squares(miss) + 0.1 * cp.sum_squares(u) + cp.sum_squares(x[:, 0] - target)
    duals = [begin.dual_variables[0], shortfall.dual_variables[0]]
    return cp.Problem(cp.Minimize(cost), constraints), [start, target], [u, x, miss, *duals]


def _symmetric_variable() -> Parts:
    X, C = cp.Variable((3, 3), symmetric=True, name="X"), cp.Parameter((3, 3), name="C")
    bound = cp.sum(X, axis=1) <= 1
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [bound, X[0, 2] == 0.3])
    return problem, [C], [X, bound.dual_variables[0]]


def _diagonal_and_bounded() -> Parts:
    D = cp.Variable((3, 3), diag=True, name="D")
    z = cp.Variable((2, 3), bounds=[-0.5, 0.8], name="z")
    C, E = cp.Parameter((3, 3), diag=True, name="C"), cp.Parameter((2, 3), name="E")
    objective = cp.sum_squares(D - C) + cp.sum_squares(z - E) + cp.trace(D)
    return cp.Problem(cp.Minimize(objective)), [C, E], [D, z]


def _diagonal(draw: Callable[[np.random.Generator], np.ndarray]) -> Callable[..., Values]:
    return lambda rng: [np.diag(draw(rng)), rng.normal(size=(2, 3))]


def _matrix_products() -> Parts:
    X = cp.Variable((2, 3), name="X", nonneg=True)
    left, right = cp.Parameter((4, 2), name="left"), cp.Parameter((3, 2), name="right")
    equal = cp.sum(X, axis=0) == np.array([1.0, 0.5, 0.2])
    objective = cp.sum_squares(left @ X) + cp.sum_squares(X @ right) + cp.sum_squares(X)
    return cp.Problem(cp.Minimize(objective), [equal]), [left, right], [X, equal.dual_variables[0]]


def _sparse_parameter() -> Parts:
    x = cp.Variable(3, name="x")
    M = cp.Parameter((3, 3), sparsity=([0, 1, 2, 2], [1, 1, 0, 2]), name="M")
    c = cp.Parameter(3, name="c")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [M @ x <= 0.1]), [M, c], [x]


_PATTERN = np.zeros((3, 3))
_PATTERN[[0, 1, 2, 2], [1, 1, 0, 2]] = 1


def _sparse(rng: np.random.Generator) -> Values:
    # Rows 0 and 2 bind, row 1 does not.
    M = _PATTERN * rng.uniform(0.5, 1.5, (3, 3)) * np.array([[1.0], [-1.0], [1.0]])
    return [M, rng.uniform(0.5, 1.5, 3)]


def _sparse_direction(rng: np.random.Generator) -> Values:
    return [_PATTERN * rng.normal(size=(3, 3)), rng.normal(size=3)]


def _symmetric_parameter() -> Parts:
    x = cp.Variable(4, name="x")
    M, c = cp.Parameter((4, 4), symmetric=True, name="M"), cp.Parameter(4, name="c")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [M @ x <= 0.1]), [M, c], [x]


def _with_constants() -> Parts:
    x = cp.Variable(4, name="x")
    gain, c = cp.Parameter(name="gain", value=2.0), cp.Parameter(4, name="c")
    W = cp.Parameter((3, 4), name="W", value=_WIDE[:, :4])
    # `gain` and `W` are not inputs, so their product is a constant and allowed.
    objective = cp.sum_squares(x - c) + cp.sum_squares(c) + gain * cp.sum(c)
    return cp.Problem(cp.Minimize(objective), [gain * (W @ x) <= 1]), [c], [x]


def _piecewise() -> Parts:
    x, a = cp.Variable(3, name="x"), cp.Parameter((4, 3), name="a")
    b = cp.Parameter(4, name="b")
    low = cp.min(x) >= -1
    objective = cp.max(a @ x + b) + 0.5 * cp.sum_squares(x)
    problem = cp.Problem(cp.Minimize(objective), [low, cp.max(x) <= 0.3])
    return problem, [a, b], [x]


def _squares_bounded() -> Parts:
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c")
    r = cp.Parameter(name="r", nonneg=True)
    limits = [cp.sum_squares(x) <= r, cp.square(x) <= 0.6, cp.quad_over_lin(x, x[0] + 5) <= 9 + r]
    return cp.Problem(cp.Minimize(3 * c @ x + cp.sum_squares(x)), limits), [c, r], [x]


def _total_variation() -> Parts:
    x, y = cp.Variable((3, 4), name="x"), cp.Parameter((3, 4), name="y")
    weight = cp.Parameter(name="weight", nonneg=True)
    objective = 0.5 * cp.sum_squares(x - y) + weight * cp.tv(x)
    return cp.Problem(cp.Minimize(objective)), [y, weight], [x]


def _norms_that_do_not_bind() -> Parts:
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c")
    limits = [cp.norm(x, 2) <= 50, cp.norm_inf(x) <= 40 + x[0], cp.norm1(x) <= 60]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - c)), limits), [c], [x]


DPP_CASES = [
    DppCase("linear program", _linear_program, lambda rng: [rng.normal(size=3), rng.random(3) + 1]),
    DppCase("quadratic program", _quadratic_program, _sample_quadratic_program),
    DppCase("least squares, nonnegative", _least_squares, _normal(8)),
    DppCase("parametric quad_form", _parametric_quad_form, _sample_psd, _symmetric_direction),
    DppCase("maximize shifted quad_form", _maximize_shifted_quad_form, _normal(4)),
    DppCase("several quad_forms", _several_quad_forms, _sample_psd, _symmetric_direction),
    DppCase("ridge", _ridge, lambda rng: [*_normal((8, 4), 8)(rng), np.array(0.3)]),
    DppCase("lasso", _lasso, lambda rng: [rng.normal(size=8), np.array(0.8)]),
    DppCase("huber", _huber, _normal(8)),
    DppCase("chebyshev", _chebyshev, _normal(8)),
    DppCase("norm ball", _norm_ball, lambda rng: [rng.normal(size=4), np.array(1.1)]),
    DppCase("sum of norms", _sum_of_norms, _normal((3, 2))),
    DppCase("second-order cones", _second_order_cone, _normal((2, 3))),
    DppCase("second-order cones by rows", _second_order_cone_by_rows, _normal((2, 3))),
    DppCase("portfolio", _portfolio, _sample_portfolio),
    DppCase("control", _control, _sample_control),
    DppCase(
        "control with constant dynamics",
        _control_with_constant_dynamics,
        lambda rng: [rng.uniform(-1, 1, 3), rng.normal(size=3)],
    ),
    DppCase("symmetric variable", _symmetric_variable, _normal((3, 3))),
    DppCase(
        "diagonal and bounded",
        _diagonal_and_bounded,
        _diagonal(lambda rng: rng.normal(size=3)),
        _diagonal(lambda rng: rng.normal(size=3)),
    ),
    DppCase("matrix products", _matrix_products, _normal((4, 2), (3, 2))),
    DppCase("sparse parameter", _sparse_parameter, _sparse, _sparse_direction),
    DppCase(
        "symmetric parameter",
        _symmetric_parameter,
        _symmetric_direction,
        _symmetric_direction,
    ),
    DppCase("constants", _with_constants, _normal(4)),
    DppCase("piecewise", _piecewise, _normal((4, 3), 4)),
    DppCase(
        "total variation", _total_variation, lambda rng: [rng.normal(size=(3, 4)), np.array(0.2)]
    ),
    DppCase("squares bounded", _squares_bounded, lambda rng: [rng.normal(size=3), np.array(0.9)]),
    DppCase("norms that do not bind", _norms_that_do_not_bind, _normal(3)),
]
