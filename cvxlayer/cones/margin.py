# SPDX-License-Identifier: Apache-2.0
"""How far points are from where the projection onto the dual cone is not differentiable.

Where a point v = y − s comes that near, a constraint is on the verge of becoming active or
inactive. Also, for each cone, a direction that crosses all such places of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from cvxlayer.cones import exponential, power, semidefinite
from cvxlayer.cones.product import ConeKind, ConeProduct, CurvedCone

# Of the size of a point: what projecting is rounded by.
_ROUNDING = 1e-13


def margins(
    cones: ConeProduct, point: Float[np.ndarray, "batch m"]
) -> Float[np.ndarray, "batch margins"]:
    """Return the distance of each inequality row, then of each curved cone.

    Args:
        cones: K; equality rows have no margin.
        point: rows v, with −∞ on linear rows without a bound.

    Returns:
        Distances, up to a factor; exact for linear rows, second-order and semidefinite cones.
    """
    linear = np.abs(point[:, cones.zero : cones.num_linear])
    if not cones.curved:
        return linear
    parts = [linear]
    for run in _runs(cones):
        first, size = run[0], run[0].size
        rows = slice(first.rows.start, run[-1].rows.stop)
        stack = point[:, rows].reshape(-1, size)
        parts.append(_MARGINS[first.kind](stack, first).reshape(len(point), len(run)))
    return np.concatenate(parts, axis=1)


def crossing(cone: CurvedCone) -> Float[np.ndarray, " size"]:
    """Return a unit vector inside of the dual cone, across every place without a derivative."""
    match cone.kind:
        case ConeKind.SECOND_ORDER:
            direction = np.eye(cone.size)[0]
        case ConeKind.SEMIDEFINITE:
            direction = semidefinite.pack(np.eye(int(cone.parameter))[None])[0]
        case ConeKind.EXPONENTIAL:
            direction = np.array([-1.0, 0.3, 1.1])
        case ConeKind.POWER:
            direction = np.array([1.0, 1.0, 0.1])
    return direction / np.linalg.norm(direction)


def _runs(cones: ConeProduct) -> Iterator[list[CurvedCone]]:
    """Yield neighbours of the same kind, size and parameter together."""
    run: list[CurvedCone] = []
    for cone in cones.curved:
        if run and (cone.kind, cone.size, cone.parameter) != (
            run[0].kind,
            run[0].size,
            run[0].parameter,
        ):
            yield run
            run = []
        run.append(cone)
    if run:
        yield run


def _second_order(point: np.ndarray, cone: CurvedCone) -> np.ndarray:
    del cone
    norm = np.linalg.norm(point[:, 1:], axis=1)
    return np.minimum(np.abs(point[:, 0] - norm), np.abs(point[:, 0] + norm))


def _semidefinite(point: np.ndarray, cone: CurvedCone) -> np.ndarray:
    del cone
    return np.abs(np.linalg.eigvalsh(semidefinite.unpack(point))).min(axis=1)


def _exponential(point: np.ndarray, cone: CurvedCone) -> np.ndarray:
    del cone
    r, s, t = -point.T
    flat = np.minimum(np.minimum(np.abs(r), np.abs(s)), np.abs(t))
    with np.errstate(all="ignore"):
        # Both cones by functions that are positive inside, with their gradients.
        primal = np.log(t / s)
        inside = (s * primal - r) / np.sqrt(1 + (primal - 1) ** 2 + (s / t) ** 2)
        a, b, c = point.T
        dual = np.log(-a / c)
        polar = (b - a + a * dual) / np.sqrt(1 + dual**2 + (a / c) ** 2)
    y = exponential.project_dual(point)
    margin = _between(point, y, inside, polar)
    is_flat = (r <= 0) & (s <= 0)
    near_flat = np.where(s <= 0, np.minimum(margin, np.abs(r)), margin)
    is_curved = (margin > 0) & ~is_flat
    return np.where(is_flat, flat, np.where(is_curved, near_flat, margin))


def _power(point: np.ndarray, cone: CurvedCone) -> np.ndarray:
    alpha = np.array([cone.parameter, 1.0 - cone.parameter])

    def gap(w: np.ndarray, weights: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            product = np.prod((w[:, :2] / weights) ** alpha, axis=1)
            slope = np.sqrt(1 + np.sum((alpha * product[:, None] / w[:, :2]) ** 2, axis=1))
            return np.minimum((product - np.abs(w[:, 2])) / slope, w[:, :2].min(axis=1))

    y = power.project_dual(point, cone.parameter)
    return _between(point, y, gap(-point, np.ones(2)), gap(point, alpha))


def _between(point: np.ndarray, y: np.ndarray, inside: np.ndarray, polar: np.ndarray) -> np.ndarray:
    """Return the smaller of ‖y‖ and ‖s‖ or, where one is zero, the distance to the boundary."""
    size = np.linalg.norm(point, axis=1)
    y_size, s_size = np.linalg.norm(y, axis=1), np.linalg.norm(y - point, axis=1)
    margin = np.minimum(y_size, s_size)
    margin = np.where(y_size <= _ROUNDING * size, np.maximum(np.nan_to_num(inside), 0.0), margin)
    return np.where(s_size <= _ROUNDING * size, np.maximum(np.nan_to_num(polar), 0.0), margin)


_MARGINS: dict[ConeKind, Callable[[np.ndarray, CurvedCone], np.ndarray]] = {
    ConeKind.SECOND_ORDER: _second_order,
    ConeKind.SEMIDEFINITE: _semidefinite,
    ConeKind.EXPONENTIAL: _exponential,
    ConeKind.POWER: _power,
}
