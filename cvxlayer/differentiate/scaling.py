# SPDX-License-Identifier: Apache-2.0
"""Equilibration: the units in which ranks, conditions and margins mean something.

The formulas of the derivative hold in every scaling; the decisions on the way (is this
eigenvalue zero, is this constraint active) do not.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.residual_map import DenseProgram

_PASSES = 15
_SMALLEST = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """x = column ∘ x̂, s = ŝ / row, y = row ∘ ŷ / cost; hats are equilibrated.

    Attributes:
        column: n, positive.
        row: m, positive and constant on each second-order cone.
        cost: positive.
    """

    column: Float[np.ndarray, " n"]
    row: Float[np.ndarray, " m"]
    cost: float

    def apply(self, program: DenseProgram) -> DenseProgram:
        """Return the equilibrated program."""
        d, e, k = self.column, self.row, self.cost
        return DenseProgram(
            program.cones,
            k * d[:, None] * program.P * d,
            k * d * program.q,
            e[:, None] * program.A * d,
            e * program.b,
        )


def equilibrate(program: DenseProgram) -> Scaling:
    """Find the scaling that brings rows, columns and cost to size one.

    Args:
        program: canonical scaling.

    Source:
        Ruiz, A scaling algorithm to equilibrate both rows and columns norms in matrices
        (2001), on [P Aᵀ; A 0], with one factor for each second-order cone.
    """
    n, m = len(program.q), len(program.b)
    scaling = Scaling(np.ones(n), np.ones(m), 1.0)
    for _ in range(_PASSES):
        scaled = scaling.apply(program)
        by_column = np.maximum(_largest(scaled.P, 0), _largest(scaled.A, 0))
        by_row = _over_cones(program.cones, _largest(scaled.A, 1))
        column = scaling.column / np.sqrt(_positive(by_column))
        row = scaling.row / np.sqrt(_positive(by_row))
        scaled = Scaling(column, row, scaling.cost).apply(program)
        # Not the mean over columns of P: with many of them empty, columns and cost would chase
        # each other without end.
        cost = max(_norm(scaled.P), _norm(scaled.q))
        scaling = Scaling(column, row, scaling.cost / cost if cost > _SMALLEST else scaling.cost)
    return scaling


def _over_cones(cones: ConeProduct, by_row: np.ndarray) -> np.ndarray:
    """Replace each row's size by the largest one in its curved cone."""
    by_row = by_row.copy()
    for cone in cones.curved:
        by_row[cone.rows] = np.max(by_row[cone.rows], initial=0.0)
    return by_row


def _largest(matrix: np.ndarray, axis: int) -> np.ndarray:
    return np.max(np.abs(matrix), axis=axis, initial=0.0)


def _positive(sizes: np.ndarray) -> np.ndarray:
    """Empty rows and columns stay as they are."""
    return np.where(sizes > _SMALLEST, sizes, 1.0)


def _norm(vector: np.ndarray) -> float:
    return float(np.max(np.abs(vector), initial=0.0))
