# SPDX-License-Identifier: Apache-2.0
"""Which linear constraints hold with equality, and an independent choice among them.

Comes in: the approximate (x, y, s) of a solver. Goes out: a `ComplementaryPoint`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from cvxlayer.cones import projection
from cvxlayer.differentiate.residual_map import ComplementaryPoint, DenseProgram

# Unit-length rows are dependent where a singular value falls below this.
_DEPENDENCE = 1e-9


def classify(
    program: DenseProgram,
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " m"],
    s: Float[np.ndarray, " m"],
) -> Bool[np.ndarray, " num_linear"]:
    """Decide which linear rows are active, without comparing slacks to multipliers.

    Along the affine step of an interior-point method that is nearly done, the member of
    the pair (s_i, y_i) that tends to zero loses nearly all of itself and the other next
    to nothing. Row i is active where Δs_i/s_i is the larger loss. Units cancel, which the
    plain rule y_i > s_i cannot say.

    Args:
        program: equilibrated scaling, as the point.
        x: primal point.
        y: dual point; nearly in K*.
        s: slack; nearly in K.
    """
    cones = program.cones
    inequality = slice(cones.zero, cones.num_linear)
    is_active = np.ones(cones.num_linear, dtype=bool)
    if not cones.nonnegative:
        return is_active
    slack, dual = s[inequality], y[inequality]
    is_interior = (slack > 0.0) & (dual > 0.0)
    ds, dy = _affine_step(program, x, y, s)
    lost_slack = np.abs(ds[inequality]) * dual
    lost_dual = np.abs(dy[inequality]) * slack
    # Where a solver returned exact zeros it has decided by itself.
    is_active[inequality] = np.where(is_interior, lost_slack > lost_dual, dual > slack)
    return is_active


def _affine_step(
    program: DenseProgram, x: np.ndarray, y: np.ndarray, s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (Δs, Δy) of the Newton step towards optimality and complementarity.

    Linear inequalities aim at s∘y = 0, the other cones at y = Π(y − s).
    """
    cones, n, m = program.cones, len(x), len(y)
    inequality = np.arange(cones.zero, cones.num_linear)
    v = (y - s)[None]
    # Complementarity reads  on_s Δs + on_y Δy = gap.
    on_s = projection.project_dual_derivative(cones, v)[0]
    on_y = np.eye(m) - on_s
    gap = projection.project_dual(cones, v)[0] - y
    slack = np.maximum(s[inequality], 0.0)
    dual = np.maximum(y[inequality], 0.0)
    size = np.maximum(np.maximum(slack, dual), np.finfo(float).tiny)
    on_s[inequality, inequality] = dual / size
    on_y[inequality, inequality] = slack / size
    gap[inequality] = -slack * dual / size

    matrix = np.block(
        [
            [program.P, program.A.T, np.zeros((n, m))],
            [program.A, np.zeros((m, m)), np.eye(m)],
            [np.zeros((m, n)), on_y, on_s],
        ]
    )
    dual_residual = program.P @ x + program.A.T @ y + program.q
    primal_residual = program.A @ x + s - program.b
    right = np.concatenate([-dual_residual, -primal_residual, gap])
    step = np.linalg.lstsq(matrix, right, rcond=1e-14)[0]
    return step[n + m :], step[n : n + m]


def drop_dependent_rows(program: DenseProgram, point: ComplementaryPoint) -> ComplementaryPoint:
    """Move the multipliers until the active linear rows that are left are independent.

    While a combination c of active rows vanishes, y can move along c without changing
    Aᵀy. It is moved until the first multiplier of an inequality is zero, and that row
    stops being active. What is left is independent with multipliers still nonnegative:
    the derivative is that of one of the adjacent smooth pieces of the solution map. Least
    squares over all the rows would mix the pieces.

    Args:
        program: equilibrated scaling, as the point.
        point: polished.

    Source:
        `docs/derivations/derivative.md`, "Dependent constraints".
    """
    is_active, y = point.is_active.copy(), point.y
    linear = slice(0, program.cones.num_linear)
    is_equality = np.arange(program.cones.num_linear) < program.cones.zero
    while True:
        rows = np.flatnonzero(is_active)
        combination = _dependence(program.A[rows])
        if combination is None:
            break
        drop, step = _first_to_vanish(combination, y[rows], is_equality[rows])
        y[rows] += step * combination
        y[rows[drop]] = 0.0
        is_active[rows[drop]] = False
    v = point.v.copy()
    was_active = point.is_active
    v[linear] = np.where(is_active, y[linear], np.where(was_active, 0.0, v[linear]))
    return dataclasses.replace(point, v=v, is_active=is_active)


def _dependence(rows: np.ndarray) -> np.ndarray | None:
    """Return c ≠ 0 with rowsᵀ c = 0, or None where the rows are independent."""
    if not len(rows):
        return None
    length = np.linalg.norm(rows, axis=1)
    length = np.where(length > 0.0, length, 1.0)
    left, singular_values, _ = np.linalg.svd(rows / length[:, None])
    if len(singular_values) == len(rows) and singular_values[-1] > _DEPENDENCE:
        return None
    combination = left[:, -1] / length
    return combination / np.max(np.abs(combination))


def _first_to_vanish(
    combination: np.ndarray, multipliers: np.ndarray, is_equality: np.ndarray
) -> tuple[int, float]:
    """Return which row to drop and the step along `combination` that makes its multiplier zero."""
    on_inequalities = np.where(is_equality, 0.0, combination)
    falls = on_inequalities < -_DEPENDENCE
    if not falls.any():
        falls = on_inequalities > _DEPENDENCE
    if not falls.any():
        # Redundant equalities alone: their multipliers are free, any one may go.
        drop = int(np.argmax(np.abs(combination)))
        return drop, -multipliers[drop] / combination[drop]
    steps = np.full(len(combination), np.inf)
    steps[falls] = np.abs(multipliers[falls] / combination[falls])
    drop = int(np.argmin(steps))
    return drop, -multipliers[drop] / combination[drop]
