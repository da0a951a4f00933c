# SPDX-License-Identifier: Apache-2.0
"""Problems whose derivative is hard to get right, each with the derivative it has, or lacks.

The truth is a formula on paper, evaluated here in NumPy: no solver takes part in it. Where the
solution map has a kink, the truth is the set of derivatives of the adjacent smooth pieces, and an
answer is right inside their convex hull (Clarke's generalized derivative).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.optimize

Gradients = tuple[np.ndarray, ...]
Built = tuple[cp.Problem, list[cp.Parameter], list[Any]]


@dataclasses.dataclass(frozen=True)
class HardCase:
    """One point of one problem, a loss Σ weights · output there, and its gradient.

    Attributes:
        name: short, for the tables.
        title: what is hard about it.
        build: a fresh (problem, parameters, variables).
        values: of the parameters.
        weights: of each output.
        pieces: the gradient of each smooth piece that meets here; one where the derivative
            exists; none where the solution is not unique or does not exist.
        is_solvable: whether there is a solution.
        gp: whether the problem is a geometric program.
    """

    name: str
    title: str
    build: Callable[[], Built]
    values: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]
    pieces: tuple[Gradients, ...]
    is_solvable: bool = True
    gp: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def exists(self) -> bool:
        """Whether the loss is differentiable here."""
        return len(self.pieces) == 1

    def error(self, gradients: Gradients) -> float:
        """The distance to the hull of the pieces, relative to 1 + the largest true entry."""
        answer = _stack(gradients)
        corners = np.array([_stack(one) for one in self.pieces])
        if not np.isfinite(answer).all():
            return float("inf")
        scale = 1.0 + float(np.max(np.abs(corners)))
        # Nearest point of the hull: least squares in its corners, their weights ≥ 0 with sum 1.
        heavy = 1e4 * scale
        system = np.vstack([corners.T, np.full(len(corners), heavy)])
        weights, _ = scipy.optimize.nnls(system, np.append(answer, heavy))
        nearest = corners.T @ (weights / weights.sum())
        return float(np.max(np.abs(answer - nearest))) / scale


def _stack(gradients: Gradients) -> np.ndarray:
    """All entries; of the gradient of a matrix, which is symmetric here, the symmetric part.

    Some layers return it in one triangle: the same derivative, written otherwise.
    """
    parts = [0.5 * (g + g.T) if np.ndim(g) == 2 else np.ravel(g) for g in gradients]
    return np.concatenate([np.ravel(part) for part in parts])


def _case(
    name: str,
    title: str,
    build: Callable[[], Built],
    values: list[Any],
    weights: list[Any],
    *pieces: list[Any],
    **fields: Any,
) -> HardCase:
    def arrays(entries: list[Any]) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(one, dtype=float) for one in entries)

    truths = tuple(arrays(piece) for piece in pieces)
    return HardCase(name, title, build, arrays(values), arrays(weights), truths, **fields)


# ------------------------------------------------------------------------- linear programs
def _linear_program(rows: np.ndarray) -> Callable[[], Built]:
    def build() -> Built:
        x = cp.Variable(rows.shape[1])
        cost, bound = cp.Parameter(rows.shape[1], name="cost"), cp.Parameter(len(rows), name="b")
        return cp.Problem(cp.Minimize(cost @ x), [rows @ x <= bound]), [cost, bound], [x]

    return build


def _vertex_gradient(rows: np.ndarray, basis: list[int], weights: Any) -> list[np.ndarray]:
    """x = rows_B⁻¹ b_B does not depend on the cost."""
    bound = np.zeros(len(rows))
    bound[basis] = np.linalg.solve(rows[basis].T, np.asarray(weights))
    return [np.zeros(rows.shape[1]), bound]


def _linear_cases() -> list[HardCase]:
    triangle = np.array([[1.0, 2.0], [3.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    box = np.vstack([np.eye(2), -np.eye(2)])
    pencil = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    weights = [1.0, -2.0]
    only_first = _vertex_gradient(box, [2, 3], [1.0, 0.0])
    # Multipliers of the cost (−1, −1.5) over each pair of the three rows through (1, 1): the
    # pair without the second row would need a negative one.
    pieces = [_vertex_gradient(pencil, basis, weights) for basis in ([0, 1], [1, 2])]
    return [
        _case(
            "lp-vertex",
            "LP with a unique, nondegenerate vertex: no sensitivity to the cost",
            _linear_program(triangle),
            [[-1.0, -1.0], [4.0, 6.0, 0.0, 0.0]],
            [weights],
            _vertex_gradient(triangle, [0, 1], weights),
        ),
        _case(
            "lp-edge-relevant",
            "LP with a whole edge of solutions, and a loss of what is the same on all of it",
            _linear_program(box),
            [[1.0, 0.0], [1.0, 1.0, 0.0, 0.0]],
            [[1.0, 0.0]],
            only_first,
        ),
        _case(
            "lp-edge",
            "LP with a whole edge of solutions, and a loss that differs along it",
            _linear_program(box),
            [[1.0, 0.0], [1.0, 1.0, 0.0, 0.0]],
            [[0.0, 1.0]],
        ),
        _case(
            "lp-degenerate",
            "LP vertex with one constraint too many: two pieces meet",
            _linear_program(pencil),
            [[-1.0, -1.5], [1.0, 1.0, 2.0, 0.0, 0.0]],
            [weights],
            *pieces,
        ),
    ]


# -------------------------------------------------------------------- projections on polyhedra
def _projection(rows: np.ndarray, *, shared: bool = False) -> Callable[[], Built]:
    """Onto rows·x ≤ bound, the bound a parameter: one for each row, or `shared` by all."""

    def build() -> Built:
        x, point = cp.Variable(rows.shape[1]), cp.Parameter(rows.shape[1], name="point")
        bound = cp.Parameter(() if shared else len(rows), name="bound")
        right = bound * np.ones(len(rows)) if shared else bound
        objective = cp.Minimize(0.5 * cp.sum_squares(x - point))
        return cp.Problem(objective, [rows @ x <= right]), [point, bound], [x]

    return build


def _half_space_gradient(normal: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """x = p − a(aᵀp − b)/aᵀa."""
    along = normal @ weights / (normal @ normal)
    return [weights - along * normal, np.array(along)]


def _equalities(rows: np.ndarray) -> Callable[[], Built]:
    def build() -> Built:
        x, point = cp.Variable(rows.shape[1]), cp.Parameter(rows.shape[1], name="point")
        bound = cp.Parameter(name="bound")
        objective = cp.Minimize(0.5 * cp.sum_squares(x - point))
        return cp.Problem(objective, [rows @ x == bound * rows[:, 0]]), [point, bound], [x]

    return build


def _polyhedral_cases() -> list[HardCase]:
    normal, weights = np.array([1.0, 2.0, -1.0]), np.array([0.5, -1.0, 2.0])
    point = np.array([2.0, 1.0, 0.0])
    active = _half_space_gradient(normal, weights)
    zero = np.zeros(1)
    return [
        _case(
            "weakly-active",
            "a constraint that holds with equality and without force",
            _projection(np.eye(1)),
            [[0.0], [0.0]],
            [[1.0]],
            [[1.0], [0.0]],
            [zero, [1.0]],
        ),
        _case(
            "duplicated",
            "an active constraint written twice, with the same parameter",
            _projection(np.array([normal, normal]), shared=True),
            [point, 1.0],
            [weights],
            active,
        ),
        _case(
            "redundant",
            "an active constraint and four multiples and sums of it",
            _equalities_as_inequalities(normal),
            [point, 1.0],
            [weights],
            active,
        ),
        _case(
            "rank-deficient",
            "three equalities of rank one",
            _equalities(np.array([normal, 2.0 * normal, -normal])),
            [point, 1.0],
            [weights],
            active,
        ),
        _case(
            "narrow-interval",
            "variables between bounds 1e-6 apart",
            _interval,
            [[2.0, -1.0, 0.3], [0.3, 0.3, 0.3 - 5e-7], [0.3 + 1e-6, 0.3 + 1e-6, 0.3 + 5e-7]],
            [weights],
            [[0.0, 0.0, weights[2]], [0.0, weights[1], 0.0], [weights[0], 0.0, 0.0]],
        ),
    ]


def _equalities_as_inequalities(normal: np.ndarray) -> Callable[[], Built]:
    multiples = np.array([1.0, 2.0, 0.5, 3.0, 1.0])

    def build() -> Built:
        x, point = cp.Variable(len(normal)), cp.Parameter(len(normal), name="point")
        bound = cp.Parameter(name="bound")
        objective = cp.Minimize(0.5 * cp.sum_squares(x - point))
        rows = np.outer(multiples, normal)
        return cp.Problem(objective, [rows @ x <= bound * multiples]), [point, bound], [x]

    return build


def _interval() -> Built:
    x = cp.Variable(3)
    point, lower, upper = (cp.Parameter(3, name=name) for name in ("point", "lower", "upper"))
    objective = cp.Minimize(0.5 * cp.sum_squares(x - point))
    return cp.Problem(objective, [x >= lower, x <= upper]), [point, lower, upper], [x]


# ------------------------------------------------------------------------- quadratic objectives
def _quadratic_cases() -> list[HardCase]:
    def singular() -> Built:
        x, q, total = cp.Variable(2), cp.Parameter(2, name="q"), cp.Parameter(name="total")
        objective = cp.Minimize(0.5 * cp.square(x[0]) + q @ x)
        return cp.Problem(objective, [cp.sum(x) == total]), [q, total], [x]

    def matrix() -> Built:
        x, P, q = cp.Variable(2), cp.Parameter((2, 2), PSD=True, name="P"), cp.Parameter(2)
        return cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x)), [P, q], [x]

    def maximized() -> Built:
        x, point = cp.Variable(3), cp.Parameter(3, name="point")
        objective = cp.Maximize(-0.5 * cp.sum_squares(x - point))
        constraint = np.array([1.0, 2.0, -1.0]) @ x <= 1.0
        return cp.Problem(objective, [constraint]), [point], [x, constraint.dual_variables[0]]

    P, q, w = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([1.0, -1.0]), np.array([1.0, 3.0])
    x, adjoint = -np.linalg.solve(P, q), -np.linalg.solve(P, w)
    outer = 0.5 * (np.outer(adjoint, x) + np.outer(x, adjoint))
    normal, weights = np.array([1.0, 2.0, -1.0]), np.array([0.5, -1.0, 2.0])
    of_x = _half_space_gradient(normal, weights)[0]
    return [
        _case(
            "singular-P",
            "a quadratic term in one of two variables",
            singular,
            [[1.0, 2.0], 3.0],
            [[1.0, 3.0]],
            [[-1.0 + 3.0, 1.0 - 3.0], 3.0],
        ),
        _case("parameter-P", "`quad_form(x, P)` with a parameter P", matrix, [P, q], [w],
              [outer, adjoint]),
        _case(
            "maximize-dual",
            "Maximize, and the dual of its active constraint, y = (aᵀp − b)/aᵀa",
            maximized,
            [[2.0, 1.0, 0.0]],
            [weights, 0.7],
            [of_x + 0.7 * normal / (normal @ normal)],
        ),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------- scaling
def _simplex_gradient(point: np.ndarray, weights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Of argmin ½Σ((xᵢ − pᵢ)/dᵢ)² over {x ≥ 0, Σ xᵢ/dᵢ = 1}: with u = x/d, a plain projection."""
    scaled = point / widths
    ordered = np.sort(scaled)[::-1]
    count = np.arange(1, len(point) + 1)
    kept = np.max(count[ordered - (np.cumsum(ordered) - 1.0) / count > 0])
    threshold = (np.sum(ordered[:kept]) - 1.0) / kept
    support = (scaled > threshold).astype(float)
    u_bar = weights * widths
    return support * (u_bar - support @ u_bar / support.sum()) / widths


def _scaled_cases() -> list[HardCase]:
    point, weights = np.array([0.9, 0.4, -0.2, 0.1, -1.0]), np.array([1.0, -1.0, 2.0, 0.5, 3.0])

    def simplex(scale: float, widths: np.ndarray) -> Callable[[], Built]:
        def build() -> Built:
            x, center = cp.Variable(5), cp.Parameter(5, name="center")
            distance = cp.sum_squares(cp.multiply(1 / widths, x - center))
            constraints = [x >= 0, (1 / widths) @ x == 1]
            return cp.Problem(cp.Minimize(0.5 * scale * distance), constraints), [center], [x]

        return build

    ones, cases = np.ones(5), []
    for power in (-6, -3, 3, 6):
        cases.append(
            _case(f"objective-1e{power:+d}", f"an objective multiplied by 1e{power:+d}",
                  simplex(10.0**power, ones), [point], [weights],
                  [_simplex_gradient(point, weights, ones)])
        )  # fmt: skip
    for power in (-4, 4):
        widths = 10.0 ** (power * np.array([0.0, 1.0, 0.5, 0.25, 0.75]))
        # The loss is of x/width, so that the gradient stays of order one.
        truth = _simplex_gradient(point * widths, weights / widths, widths)
        cases.append(
            _case(f"variables-1e{power:+d}", f"variables whose scales differ by 1e{power:+d}",
                  simplex(1.0, widths), [point * widths], [weights / widths], [truth])
        )  # fmt: skip
    return cases


# -------------------------------------------------------------------------------- curved cones
def _onto(cone: Callable[[cp.Variable], Any], n: int) -> Callable[[], Built]:
    def build() -> Built:
        x, point = cp.Variable(n), cp.Parameter(n, name="point")
        objective = cp.Minimize(0.5 * cp.sum_squares(x - point))
        return cp.Problem(objective, [cone(x)]), [point], [x]

    return build


def _second_order(x: cp.Variable) -> Any:
    return cp.SOC(x[0], x[1:])


def _second_order_derivative(point: np.ndarray) -> np.ndarray:
    t, z = point[0], point[1:]
    norm = np.linalg.norm(z)
    ray = z / norm
    corner = np.concatenate([[1.0], ray])
    D = 0.5 * np.outer(corner, corner)
    D[1:, 1:] += 0.5 * (1.0 + t / norm) * (np.eye(len(z)) - np.outer(ray, ray))
    return D


def _semidefinite() -> Built:
    X, C = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3), symmetric=True, name="C")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(X - C)), [X >> 0]), [C], [X]


def _semidefinite_gradient(
    vectors: np.ndarray, values: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """V (Ω ∘ VᵀWV) Vᵀ; `positive` says on which side an eigenvalue counts."""
    plus, minus = np.where(positive, values, 0.0), np.where(positive, 0.0, -values)
    both = plus[:, None] + minus[None, :]
    mixed = np.where(both > 0, plus[:, None] / np.where(both > 0, both, 1.0), 0.0)
    omega = np.where(positive[:, None], np.where(positive[None, :], 1.0, mixed),
                     np.where(positive[None, :], mixed.T, 0.0))  # fmt: skip
    return vectors @ (omega * (vectors.T @ weights @ vectors)) @ vectors.T


def _curved_cases() -> list[HardCase]:
    weights3 = np.array([1.0, -2.0, 0.5])
    outside, kink = np.array([0.3, 1.0, -0.6]), np.array([-1.0, 0.6, 0.8])
    corner = np.array([1.0, 0.6, 0.8])
    angle = np.linalg.qr(np.array([[1.0, 2.0, 0.0], [0.5, 1.0, 1.0], [0.0, -1.0, 2.0]]))[0]
    W = np.array([[1.0, 0.5, -1.0], [0.5, 2.0, 0.3], [-1.0, 0.3, -0.5]])

    def spectral(name: str, title: str, values: list[float], *sides: list[bool]) -> HardCase:
        spectrum = np.array(values)
        matrix = angle @ np.diag(spectrum) @ angle.T
        matrix = 0.5 * (matrix + matrix.T)
        pieces = [[_semidefinite_gradient(angle, spectrum, np.array(side), W)] for side in sides]
        return _case(name, title, _semidefinite, [matrix], [W], *pieces)

    def exponential(x: cp.Variable) -> Any:
        return cp.constraints.ExpCone(x[0], x[1], x[2])

    def power(alpha: float) -> Callable[[cp.Variable], Any]:
        return lambda x: cp.constraints.PowCone3D(x[0], x[1], x[2], alpha)

    return [
        _case("soc-boundary", "projection onto the curved side of a second-order cone",
              _onto(_second_order, 3), [outside], [weights3],
              [_second_order_derivative(outside) @ weights3]),
        _case("soc-apex", "projection onto the apex, from inside its normal cone",
              _onto(_second_order, 3), [[-2.0, 0.6, 0.8]], [weights3], [np.zeros(3)]),
        _case("soc-apex-kink", "projection onto the apex, from the edge of its normal cone",
              _onto(_second_order, 3), [kink], [weights3], [np.zeros(3)],
              [0.5 * np.outer(corner, corner) @ weights3]),
        spectral("psd-repeated", "semidefinite projection with a repeated eigenvalue",
                 [2.0, 2.0, -1.0], [True, True, False]),
        spectral("psd-zero", "semidefinite projection with an eigenvalue zero",
                 [2.0, 0.0, -1.0], [True, True, False], [True, False, False]),
        _case("exp-ray", "exponential cone: the solution on its flat face",
              _onto(exponential, 3), [[-1.0, -2.0, 1.5]], [weights3], [[1.0, 0.0, 0.5]]),
        _case("exp-apex", "exponential cone: the solution on the ray of its flat face",
              _onto(exponential, 3), [[-1.0, -2.0, -0.5]], [weights3], [[1.0, 0.0, 0.0]]),
        _case("power-ray-flat", "power cone: the solution on a ray, with the exponent above ½",
              _onto(power(0.7), 3), [[-1.0, 2.0, 0.0]], [weights3], [[0.0, -2.0, 0.0]]),
        _case("power-ray-half", "power cone of exponent ½: the solution on a ray",
              _onto(power(0.5), 3), [[-1.0, 2.0, 0.0]], [weights3],
              [[0.0, -2.0, 0.5 * 2.0 / (2.0 + 2.0)]]),
    ]  # fmt: skip


# ------------------------------------------------------------------------------ larger, or none
def _regression() -> HardCase:
    """min ½‖F x − g‖² over ‖x‖₁ ≤ 1, solved by its path here: 200 variables, few of them used."""
    rng = np.random.default_rng(3)
    features, n = rng.standard_normal((60, 200)), 200
    support, signs = np.array([3, 50, 111, 170]), np.array([1.0, -1.0, 1.0, 1.0])
    target = features[:, support] @ (signs * np.array([0.4, 0.3, 0.2, 0.1]))
    # Strict complementarity by construction: g moves along F_S (F_SᵀF_S)⁻¹ s, where every
    # correlation outside of the support is below one.
    active = features[:, support]
    gram = np.linalg.inv(active.T @ active)
    residual = active @ gram @ signs
    assert np.max(np.abs(np.delete(features.T @ residual, support))) < 0.95
    weights = rng.standard_normal(n)
    inner = gram - np.outer(gram @ signs, signs @ gram) / (signs @ gram @ signs)
    truth = active @ inner @ weights[support]

    def build() -> Built:
        x, g = cp.Variable(n), cp.Parameter(60, name="g")
        objective = cp.Minimize(0.5 * cp.sum_squares(features @ x - g))
        return cp.Problem(objective, [cp.norm1(x) <= 1]), [g], [x]

    return _case("l1-ball", "regression over the ℓ₁ ball, 200 variables", build,
                 [target + 3.0 * residual], [weights], [truth])  # fmt: skip


def _geometric() -> HardCase:
    def build() -> Built:
        x = cp.Variable(pos=True)
        a, b = cp.Parameter(pos=True, name="a"), cp.Parameter(pos=True, name="b")
        return cp.Problem(cp.Minimize(a * x + b / x), []), [a, b], [x]

    a, b = 2.0, 3.0
    return _case("geometric", "a geometric program, x = √(b/a)", build, [a, b], [1.0],
                 [-0.5 * np.sqrt(b) * a**-1.5, 0.5 / np.sqrt(a * b)], gp=True)  # fmt: skip


def _unsolvable() -> list[HardCase]:
    def infeasible() -> Built:
        x, bound = cp.Variable(2), cp.Parameter(name="bound")
        constraints = [cp.sum(x) <= bound, x >= 1]
        return cp.Problem(cp.Minimize(cp.sum_squares(x)), constraints), [bound], [x]

    def unbounded() -> Built:
        x, cost = cp.Variable(2), cp.Parameter(2, name="cost")
        return cp.Problem(cp.Minimize(cost @ x), [x >= 0]), [cost], [x]

    return [
        _case("infeasible", "no solution: constraints that contradict", infeasible, [1.0],
              [[1.0, 1.0]], is_solvable=False),
        _case("unbounded", "no solution: an objective without bound", unbounded, [[1.0, -1.0]],
              [[1.0, 1.0]], is_solvable=False),
    ]  # fmt: skip


HARD_CASES: tuple[HardCase, ...] = (
    *_linear_cases(),
    *_polyhedral_cases(),
    *_quadratic_cases(),
    *_scaled_cases(),
    *_curved_cases(),
    _regression(),
    _geometric(),
    *_unsolvable(),
)
