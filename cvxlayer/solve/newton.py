# SPDX-License-Identifier: Apache-2.0
"""Semismooth Newton steps from a solver's answer to the solution, instance by instance.

With v = y − s and Π the projection onto K*, a solution is a zero of

    r(x, v) = (P x + AᵀΠ(v) + q,  A x + Π(v) − v − b)

(Busseti, Moursi & Boyd, Solution refinement at regular points of conic problems, 2019).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.sparse.linalg import splu

from cvxlayer.cones import projection
from cvxlayer.cones.product import ConeProduct

_MAX_STEPS = 5
_SHIFT = 1e-9
# The residual of an equilibrated program is not much smaller than this.
_ROUNDING = 1e-14
_NUM_RUIZ_PASSES = 4


@dataclasses.dataclass(frozen=True)
class ConeProgram:
    """One cone program with finite data; P is the whole symmetric matrix."""

    P: sp.csc_matrix
    q: Float[np.ndarray, " n"]
    A: sp.csc_matrix
    b: Float[np.ndarray, " m"]
    cones: ConeProduct


@dataclasses.dataclass(frozen=True)
class Units:
    """x = column∘x̂, s = ŝ/row, y = row∘ŷ/cost lead back from the equilibrated program."""

    column: Float[np.ndarray, " n"]
    row: Float[np.ndarray, " m"]
    cost: float


def equilibrate(program: ConeProgram) -> tuple[ConeProgram, Units]:
    """Return the program in units in which rows, columns and costs have sizes around one.

    Source:
        Ruiz, A scaling algorithm to equilibrate both rows and columns norms in matrices (2001).
    """
    P, A = _coordinates(program.P), _coordinates(program.A)
    column, row = np.ones(len(program.q)), np.ones(len(program.b))
    for _ in range(_NUM_RUIZ_PASSES):
        by_column, by_row = np.zeros(len(column)), np.zeros(len(row))
        np.maximum.at(by_column, P[1], np.abs(program.P.data * column[P[0]] * column[P[1]]))
        scaled = np.abs(program.A.data * row[A[0]] * column[A[1]])
        np.maximum.at(by_column, A[1], scaled)
        np.maximum.at(by_row, A[0], scaled)
        for cone in program.cones.curved:  # one factor for a cone keeps it that cone
            by_row[cone.rows] = by_row[cone.rows].max()
        column, row = column * _inverse_root(by_column), row * _inverse_root(by_row)
    quadratic, q = program.P.data * column[P[0]] * column[P[1]], column * program.q
    cost = 1.0 / (max(np.max(np.abs(q)), np.max(np.abs(quadratic), initial=0.0)) or 1.0)
    scaled = ConeProgram(
        _with_values(program.P, cost * quadratic),
        cost * q,
        _with_values(program.A, program.A.data * row[A[0]] * column[A[1]]),
        row * program.b,
        program.cones,
    )
    return scaled, Units(column, row, cost)


def _coordinates(matrix: sp.csc_matrix) -> tuple[np.ndarray, np.ndarray]:
    return matrix.indices, np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))


def _with_values(pattern: sp.csc_matrix, values: np.ndarray) -> sp.csc_matrix:
    return sp.csc_matrix((values, pattern.indices, pattern.indptr), shape=pattern.shape)


def refine(
    program: ConeProgram,
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " m"],
    s: Float[np.ndarray, " m"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a point whose residual is not larger, and mostly at rounding level.

    Args:
        program: equilibrated, so that y and s have comparable sizes.
        x: primal point, near a solution.
        y: dual point.
        s: slack.
    """
    v = y - s
    dual = projection.project_dual(program.cones, v[None])[0]
    best = (x, dual, dual - v)
    upper, lower = _residual(program, x, dual, v)
    size = np.hypot(np.linalg.norm(upper), np.linalg.norm(lower))
    for _ in range(_MAX_STEPS):
        if size <= _ROUNDING:
            break
        step = _step(program, v, upper, lower)
        if step is None:
            break
        x, v = x + step[0], v + step[1]
        dual = projection.project_dual(program.cones, v[None])[0]
        upper, lower = _residual(program, x, dual, v)
        new_size = np.hypot(np.linalg.norm(upper), np.linalg.norm(lower))
        if not new_size < size:
            break
        best, size = (x, dual, dual - v), new_size
    return best


def _residual(
    program: ConeProgram, x: np.ndarray, y: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return program.P @ x + program.A.T @ y + program.q, program.A @ x + y - v - program.b


def _step(
    program: ConeProgram, v: np.ndarray, upper: np.ndarray, lower: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the Newton step (dx, dv), or None where the matrix is singular."""
    m, n = len(program.b), len(program.q)
    derivative = _derivative(program.cones, v)
    # The shift decides where a solution or its multipliers are not unique.
    upper_left = program.P + _SHIFT * sp.eye_array(n)
    lower_right = derivative - (1.0 + _SHIFT) * sp.eye_array(m)
    matrix = sp.block_array(
        [[upper_left, program.A.T @ derivative], [program.A, lower_right]], format="csc"
    )
    try:
        step = splu(matrix).solve(-np.concatenate([upper, lower]))
    except RuntimeError:  # exactly singular
        return None
    return step[:n], step[n:]


def _derivative(cones: ConeProduct, v: np.ndarray) -> sp.csc_array:
    """Return DΠ(v), block by block."""
    linear = np.ones(cones.num_linear)
    linear[cones.zero :] = v[cones.zero : cones.num_linear] > 0.0
    blocks: list[sp.sparray] = [sp.diags_array(linear)] if len(linear) else []
    for file, rows, arguments in projection.blocks(cones):
        if rows.start >= cones.num_linear:
            block = file.project_dual_derivative(v[None, rows], *arguments)[0]
            blocks.append(sp.csc_array(block))
    return sp.csc_array(sp.block_diag(blocks, format="csc"))


def _inverse_root(size: np.ndarray) -> np.ndarray:
    return 1.0 / np.sqrt(np.where(size > 0.0, size, 1.0))
