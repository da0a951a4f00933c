# SPDX-License-Identifier: Apache-2.0
"""CVXPY problems as a user would write them, with answers in closed form where they exist."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np

Values = list[np.ndarray]
Parts = tuple[cp.Problem, list[cp.Parameter], list[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerCase:
    """A problem, valid values for its parameters, and what the answer must be.

    Attributes:
        name: for the name of the test.
        build: makes (problem, parameters, variables), new objects each time.
        sample: draws one value per parameter, away from kinks of the solution map.
        closed_form: values ↦ the outputs, or None where there is no formula.
        jacobian: values ↦ derivative of the first output in the first parameter, both
            flattened, or None.
        step: for finite differences, which are right to about the square of it. Larger where
            a curved constraint is active under a linear objective: there an interior point
            of gap ε is √ε away from the solution.
    """

    name: str
    build: Callable[[], Parts]
    sample: Callable[[np.random.Generator], Values]
    closed_form: Callable[..., tuple[np.ndarray, ...]] | None = None
    jacobian: Callable[..., np.ndarray] | None = None
    step: float = 1e-4

    def __str__(self) -> str:
        return self.name

    def sample_batch(self, rng: np.random.Generator, size: int) -> Values:
        """Draw a batch, the instances along the first dimension."""
        draws = [self.sample(rng) for _ in range(size)]
        return [np.stack(values) for values in zip(*draws, strict=True)]


def _projection(constrain: Callable[[cp.Variable], Sequence[cp.Constraint]], size: int) -> Parts:
    x, point = cp.Variable(size, name="x"), cp.Parameter(size, name="point")
    objective = cp.Minimize(cp.sum_squares(x - point))
    return cp.Problem(objective, list(constrain(x))), [point], [x]


def project_simplex(point: np.ndarray) -> tuple[np.ndarray]:
    """Project by finding the shift that leaves a sum of one."""
    descending = np.sort(point)[::-1]
    shifts = (np.cumsum(descending) - 1) / np.arange(1, len(point) + 1)
    shift = shifts[np.flatnonzero(descending > shifts)[-1]]
    return (np.maximum(point - shift, 0.0),)


def _simplex_jacobian(point: np.ndarray) -> np.ndarray:
    support = (project_simplex(point)[0] > 0).astype(float)
    return np.diag(support) - np.outer(support, support) / support.sum()


def _build_ball() -> Parts:
    x = cp.Variable(4, name="x")
    point, radius = cp.Parameter(4, name="point"), cp.Parameter(name="radius", nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [cp.norm(x, 2) <= radius])
    return problem, [point, radius], [x]


def _project_ball(point: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray]:
    return (point * min(1.0, radius / np.linalg.norm(point)),)


def _ball_jacobian(point: np.ndarray, radius: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(point)
    unit = point / length
    return radius / length * (np.eye(len(point)) - np.outer(unit, unit))


def _build_box() -> Parts:
    x = cp.Variable(5, name="x")
    point, lower, upper = (cp.Parameter(5, name=name) for name in ("point", "lower", "upper"))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [lower <= x, x <= upper])
    return problem, [point, lower, upper], [x]


def _sample_box(rng: np.random.Generator) -> Values:
    return [2 * rng.normal(size=5), rng.uniform(-1.5, -0.5, 5), rng.uniform(0.5, 1.5, 5)]


def _build_affine_set() -> Parts:
    x, point = cp.Variable(5, name="x"), cp.Parameter(5, name="point")
    A, b = cp.Parameter((2, 5), name="A"), cp.Parameter(2, name="b")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [A @ x == b]), [point, A, b], [x]


def _project_affine_set(point: np.ndarray, A: np.ndarray, b: np.ndarray) -> tuple[np.ndarray]:
    return (point - np.linalg.pinv(A) @ (A @ point - b),)


def _affine_set_jacobian(point: np.ndarray, A: np.ndarray, b: np.ndarray) -> np.ndarray:
    del b
    return np.eye(len(point)) - np.linalg.pinv(A) @ A


def _build_halfspace() -> Parts:
    x, point = cp.Variable(3, name="x"), cp.Parameter(3, name="point")
    a, b = cp.Parameter(3, name="a"), cp.Parameter(name="b")
    constraint = a @ x <= b
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - point)), [constraint])
    return problem, [point, a, b], [x, constraint.dual_variables[0]]


def _project_halfspace(
    point: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    multiplier = np.maximum(a @ point - b, 0.0) / (a @ a)
    return point - multiplier * a, np.asarray(multiplier)


def _sample_halfspace(rng: np.random.Generator) -> Values:
    point, a = rng.normal(size=3), rng.normal(size=3)
    return [point, a, np.asarray(a @ point - rng.uniform(0.5, 1.5))]


def _build_hyperplane_distance() -> Parts:
    x, point = cp.Variable(4, name="x"), cp.Parameter(4, name="point")
    return cp.Problem(cp.Minimize(cp.norm(x - point, 2)), [cp.sum(x) == 1]), [point], [x]


def _hyperplane_jacobian(point: np.ndarray) -> np.ndarray:
    return np.eye(len(point)) - 1 / len(point)


def _build_symmetric() -> Parts:
    X, S = cp.Variable((3, 3), symmetric=True, name="X"), cp.Parameter((3, 3), name="S")
    return cp.Problem(cp.Minimize(cp.sum_squares(X - S))), [S], [X]


def _build_stochastic_rows() -> Parts:
    X, S = cp.Variable((2, 3), nonneg=True, name="X"), cp.Parameter((2, 3), name="S")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - S)), [cp.sum(X, axis=1) == 1])
    return problem, [S], [X]


def _build_ridge() -> Parts:
    x, A, b = cp.Variable(3, name="x"), cp.Parameter((6, 3), name="A"), cp.Parameter(6, name="b")
    weight = cp.Parameter(name="weight", nonneg=True)
    objective = cp.sum_squares(A @ x - b) + weight * cp.sum_squares(x)
    return cp.Problem(cp.Minimize(objective)), [A, b, weight], [x]


def _solve_ridge(A: np.ndarray, b: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray]:
    return (np.linalg.solve(A.T @ A + weight * np.eye(3), A.T @ b),)


def _build_equality_qp() -> Parts:
    x, P = cp.Variable(4, name="x"), cp.Parameter((4, 4), name="P", PSD=True)
    q, b = cp.Parameter(4, name="q"), cp.Parameter(2, name="b")
    constraint = _EQUALITY_MATRIX @ x == b
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x), [constraint])
    return problem, [P, q, b], [x, constraint.dual_variables[0]]


_EQUALITY_MATRIX = np.array([[1.0, 2.0, 0.0, -1.0], [0.0, 1.0, 1.0, 1.0]])


def _solve_equality_qp(
    P: np.ndarray, q: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    A = _EQUALITY_MATRIX
    kkt = np.block([[P, A.T], [A, np.zeros((2, 2))]])
    answer = np.linalg.solve(kkt, np.concatenate([-q, b]))
    return answer[:4], answer[4:]


def _sample_equality_qp(rng: np.random.Generator) -> Values:
    factor = rng.normal(size=(4, 4))
    return [factor @ factor.T + np.eye(4), rng.normal(size=4), rng.normal(size=2)]


def _build_unconstrained() -> Parts:
    x, q = cp.Variable(3, name="x"), cp.Parameter(3, name="q")
    return cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, _HESSIAN) + q @ x)), [q], [x]


_HESSIAN = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 3.0]])


def _build_maximum() -> Parts:
    x, point = cp.Variable(name="x"), cp.Parameter(name="point")
    bound = cp.Parameter(name="bound")
    problem = cp.Problem(cp.Maximize(3.0 - cp.square(x - point)), [x >= bound])
    return problem, [point, bound], [x]


def _build_soft_threshold() -> Parts:
    x, point = cp.Variable(5, name="x"), cp.Parameter(5, name="point")
    weight = cp.Parameter(name="weight", nonneg=True)
    objective = 0.5 * cp.sum_squares(x - point) + weight * cp.norm1(x)
    return cp.Problem(cp.Minimize(objective)), [point, weight], [x]


def _soft_threshold(point: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray]:
    return (np.sign(point) * np.maximum(np.abs(point) - weight, 0.0),)


def _build_nonnegative_least_squares() -> Parts:
    x, A = cp.Variable(4, nonneg=True, name="x"), cp.Parameter((8, 4), name="A")
    b = cp.Parameter(8, name="b")
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b))), [A, b], [x]


def _build_linear_program() -> Parts:
    x, cost = cp.Variable(4, name="x"), cp.Parameter(4, name="cost")
    bound = cp.Parameter(4, name="bound", pos=True)
    return cp.Problem(cp.Minimize(cost @ x), [cp.abs(x) <= bound]), [cost, bound], [x]


def _build_group_lasso() -> Parts:
    x, point = cp.Variable(6, name="x"), cp.Parameter(6, name="point")
    weight = cp.Parameter(name="weight", nonneg=True)
    groups = cp.norm(x[:3], 2) + cp.norm(x[3:], 2)
    objective = 0.5 * cp.sum_squares(x - point) + weight * groups
    return cp.Problem(cp.Minimize(objective)), [point, weight], [x]


def _solve_group_lasso(point: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray]:
    shrunk = [g * max(0.0, 1 - weight / np.linalg.norm(g)) for g in (point[:3], point[3:])]
    return (np.concatenate(shrunk),)


def _build_portfolio() -> Parts:
    weights = cp.Variable(6, nonneg=True, name="weights")
    returns = cp.Parameter(6, name="returns")
    factor = cp.Parameter((3, 6), name="factor")
    limit = cp.Parameter(name="limit", nonneg=True)
    risk = cp.norm(cp.hstack([factor @ weights, weights]), 2)
    problem = cp.Problem(cp.Maximize(returns @ weights), [cp.sum(weights) == 1, risk <= limit])
    return problem, [returns, factor, limit], [weights]


def _sample_portfolio(rng: np.random.Generator) -> Values:
    return [
        rng.uniform(0.5, 1.5, 6),
        0.2 * rng.normal(size=(3, 6)),
        np.asarray(rng.uniform(0.52, 0.62)),
    ]


def _build_model_predictive_control() -> Parts:
    states, inputs = cp.Variable((2, 7), name="states"), cp.Variable((1, 6), name="inputs")
    start, weight = cp.Parameter(2, name="start"), cp.Parameter(name="weight", nonneg=True)
    drift, push = np.array([[1.0, 0.3], [0.0, 1.0]]), np.array([[0.045], [0.3]])
    objective = cp.sum_squares(states) + weight * cp.sum_squares(inputs)
    constraints = [
        states[:, 0] == start,
        states[:, 1:] == drift @ states[:, :-1] + push @ inputs,
        cp.abs(inputs) <= 1,
    ]
    return cp.Problem(cp.Minimize(objective), constraints), [start, weight], [inputs, states]


def _build_total_variation() -> Parts:
    x, signal = cp.Variable(8, name="x"), cp.Parameter(8, name="signal")
    weight = cp.Parameter(name="weight", nonneg=True)
    objective = 0.5 * cp.sum_squares(x - signal) + weight * cp.norm1(cp.diff(x))
    return cp.Problem(cp.Minimize(objective)), [signal, weight], [x]


PROBLEMS = (
    LayerCase(
        "simplex",
        lambda: _projection(lambda x: [x >= 0, cp.sum(x) == 1], 6),
        lambda rng: [rng.normal(size=6)],
        project_simplex,
        _simplex_jacobian,
    ),
    LayerCase(
        "relu",
        lambda: _projection(lambda x: [x >= 0], 5),
        lambda rng: [rng.normal(size=5)],
        lambda point: (np.maximum(point, 0.0),),
        lambda point: np.diag((point > 0).astype(float)),
    ),
    LayerCase(
        "ball",
        _build_ball,
        lambda rng: [3 * rng.normal(size=4) + 1, np.asarray(rng.uniform(0.5, 1.0))],
        _project_ball,
        _ball_jacobian,
    ),
    LayerCase(
        "box",
        _build_box,
        _sample_box,
        lambda point, lower, upper: (np.clip(point, lower, upper),),
        lambda point, lower, upper: np.diag(((lower < point) & (point < upper)).astype(float)),
    ),
    LayerCase(
        "affine_set",
        _build_affine_set,
        lambda rng: [rng.normal(size=5), rng.normal(size=(2, 5)), rng.normal(size=2)],
        _project_affine_set,
        _affine_set_jacobian,
    ),
    LayerCase("halfspace_and_dual", _build_halfspace, _sample_halfspace, _project_halfspace),
    LayerCase(
        "hyperplane_by_norm",
        _build_hyperplane_distance,
        lambda rng: [rng.normal(size=4) + 1],
        lambda point: (point - (point.sum() - 1) / len(point),),
        _hyperplane_jacobian,
    ),
    LayerCase(
        "symmetric_matrix",
        _build_symmetric,
        lambda rng: [rng.normal(size=(3, 3))],
        lambda S: (0.5 * (S + S.T),),
    ),
    LayerCase(
        "stochastic_rows",
        _build_stochastic_rows,
        lambda rng: [rng.normal(size=(2, 3))],
        lambda S: (np.stack([project_simplex(row)[0] for row in S]),),
    ),
    LayerCase(
        "ridge",
        _build_ridge,
        lambda rng: [
            rng.normal(size=(6, 3)),
            rng.normal(size=6),
            np.asarray(rng.uniform(0.1, 1.0)),
        ],
        _solve_ridge,
    ),
    LayerCase("equality_qp_and_dual", _build_equality_qp, _sample_equality_qp, _solve_equality_qp),
    LayerCase(
        "unconstrained",
        _build_unconstrained,
        lambda rng: [rng.normal(size=3)],
        lambda q: (-np.linalg.solve(_HESSIAN, q),),
        lambda q: -np.linalg.inv(_HESSIAN),
    ),
    LayerCase(
        "scalar_maximum",
        _build_maximum,
        lambda rng: [rng.normal(size=()), rng.normal(size=())],
        lambda point, bound: (np.maximum(point, bound),),
    ),
    LayerCase(
        "soft_threshold",
        _build_soft_threshold,
        lambda rng: [2 * rng.normal(size=5), np.asarray(rng.uniform(0.3, 1.0))],
        _soft_threshold,
    ),
    LayerCase(
        "linear_program",
        _build_linear_program,
        lambda rng: [rng.normal(size=4), rng.uniform(0.5, 1.5, 4)],
        lambda cost, bound: (-np.sign(cost) * bound,),
        lambda cost, bound: np.zeros((4, 4)),
    ),
    LayerCase(
        "group_lasso",
        _build_group_lasso,
        lambda rng: [2 * rng.normal(size=6) + 1, np.asarray(rng.uniform(0.3, 1.0))],
        _solve_group_lasso,
    ),
    LayerCase(
        "nonnegative_least_squares",
        _build_nonnegative_least_squares,
        lambda rng: [rng.normal(size=(8, 4)), rng.normal(size=8)],
    ),
    LayerCase("portfolio", _build_portfolio, _sample_portfolio, step=1e-2),
    LayerCase(
        "model_predictive_control",
        _build_model_predictive_control,
        lambda rng: [3 * rng.normal(size=2), np.asarray(rng.uniform(0.1, 1.0))],
    ),
    LayerCase(
        "total_variation",
        _build_total_variation,
        lambda rng: [rng.normal(size=8), np.asarray(rng.uniform(0.1, 0.5))],
    ),
)
"""Every problem of the catalog; each is feasible and bounded at its sampled values."""

WITH_CLOSED_FORM = tuple(case for case in PROBLEMS if case.closed_form is not None)
WITH_JACOBIAN = tuple(case for case in PROBLEMS if case.jacobian is not None)


def case_named(name: str) -> LayerCase:
    """Return one case of the catalog."""
    return next(case for case in PROBLEMS if case.name == name)
