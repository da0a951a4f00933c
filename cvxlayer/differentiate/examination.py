# SPDX-License-Identifier: Apache-2.0
"""How regular the points are where solutions are differentiated: the facts, before any verdict.

In NumPy, dense, one instance after the other: the specification of what `native.py` does in one
pass of the core.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from cvxlayer.differentiate.primitives import equilibrated, refine, scaled_point
from cvxlayer.differentiate.residual_map import ComplementaryPoint, DenseProgram, KktMatrix
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.solution import ConeSolution, LinearizationPoint

SINGULAR = 1e-11
"""Of the largest singular value of K: what rounding leaves of zero."""
# Margins of smaller solutions are absolute: all data may be zero.
_LEAST_SIZE = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Examination:
    """Where solutions lie in the cones, and whether the matrix K there is singular.

    In equilibrated scaling x = d x̂, s = ŝ/e, y = e ŷ/k, if not said otherwise.

    Attributes:
        point: where they are differentiated.
        position: v = y − s over the largest number among x, v, q, b and 10⁻⁶; −∞ on linear rows
            whose bound is infinite, 0 for instances without a solution.
        factors: (d, e).
        cost: k.
        null_x, null_y: where K is singular, a null vector (λ, S η) of it, as a cotangent
            (k d λ, e S η) in canonical scaling; elsewhere zero.
        largest, smallest: singular values of K, or estimates of them.
    """

    point: LinearizationPoint
    position: Float[np.ndarray, "batch m"]
    factors: Float[np.ndarray, "batch n_plus_m"]
    cost: Float[np.ndarray, " batch"]
    null_x: Float[np.ndarray, "batch n"]
    null_y: Float[np.ndarray, "batch m"]
    largest: Float[np.ndarray, " batch"]
    smallest: Float[np.ndarray, " batch"]

    def select(self, rows: np.ndarray) -> Examination:
        """Return what was found of the given instances, in the given order."""
        return Examination(
            self.point.select(rows),
            self.position[rows],
            self.factors[rows],
            self.cost[rows],
            self.null_x[rows],
            self.null_y[rows],
            self.largest[rows],
            self.smallest[rows],
        )

    @property
    def is_singular(self) -> Bool[np.ndarray, " batch"]:
        """Whether the linear system of the derivative has no unique solution."""
        return self.point.has_solution & ~(self.smallest > SINGULAR * self.largest)


def examine(batch: ConeProgramBatch, solution: ConeSolution) -> Examination:
    """Examine the points that `primitives.refine` finds.

    Args:
        batch: the programs, canonical scaling.
        solution: what a backend found for them.
    """
    n, m, size = batch.structure.num_variables, batch.structure.num_rows, batch.size
    point = refine(batch, solution)
    found = Examination(
        point=point,
        position=np.zeros((size, m)),
        factors=np.ones((size, n + m)),
        cost=np.ones(size),
        null_x=np.zeros((size, n)),
        null_y=np.zeros((size, m)),
        largest=np.ones(size),
        smallest=np.ones(size),
    )
    for row in np.flatnonzero(point.has_solution).tolist():
        program, scaling, is_present = equilibrated(batch, row)
        scaled = scaled_point(program, scaling, is_present, point, row)
        root = scaled.projection_root()
        kkt = KktMatrix(program, root)
        values = np.abs(kkt.eigenvalues)
        found.largest[row], found.smallest[row] = values.max(), values.min()
        null = kkt.eigenvectors[:, values <= SINGULAR * values.max()]
        # Of several dimensions, the part of scattered numbers, as inverse iteration finds it.
        vector = null @ (null.T @ np.random.default_rng(0).uniform(-0.5, 0.5, len(values)))
        factors = np.concatenate([scaling.column, scaling.row])
        found.cost[row] = scaling.cost
        found.null_x[row] = scaling.cost * scaling.column * vector[:n]
        found.null_y[row, is_present] = scaling.row * (root @ vector[n:])
        found.factors[row, np.append(np.full(n, True), is_present)] = factors
        size = max(np.abs(part).max(initial=_LEAST_SIZE) for part in _sizes(program, scaled))
        found.position[row] = -np.inf
        found.position[row, is_present] = scaled.v / size
    return found


def _sizes(program: DenseProgram, point: ComplementaryPoint) -> tuple[np.ndarray, ...]:
    return point.x, point.v, program.q, program.b
