# SPDX-License-Identifier: Apache-2.0
"""Cone programs of one structure with many values.

    minimize ½ xᵀP x + qᵀx   subject to   A x + s = b,  s ∈ K

The letters are those of `docs/notation.md`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from cvxlayer.cones.product import ConeProduct


@dataclasses.dataclass(frozen=True, eq=False)
class ConeProgramStructure:
    """What all instances of a batch share: sizes, sparsity patterns and cones.

    Attributes:
        num_variables: n, the length of x.
        cones: K, whose size is the number of rows m.
        P_indptr, P_indices: upper triangle of P (n × n) in CSC, sorted, no duplicates.
        A_indptr, A_indices: A (m × n) in CSC, sorted, no duplicates.
        is_convex: whether P is known to be positive semidefinite, so that no solve has to test
            it.
    """

    num_variables: int
    cones: ConeProduct
    P_indptr: Int[np.ndarray, " n_plus_1"]
    P_indices: Int[np.ndarray, " nnz_P"]
    A_indptr: Int[np.ndarray, " n_plus_1"]
    A_indices: Int[np.ndarray, " nnz_A"]
    is_convex: bool = False

    @property
    def num_rows(self) -> int:
        """m, the length of s and y."""
        return self.cones.size

    @property
    def num_P(self) -> int:
        """Number of stored entries of P."""
        return len(self.P_indices)

    @property
    def num_A(self) -> int:
        """Number of stored entries of A."""
        return len(self.A_indices)


@dataclasses.dataclass(frozen=True, eq=False)
class ConeProgramBatch:
    """B cone programs in canonical scaling.

    Each block has one row per instance, or exactly one row when every instance shares
    it (so constant matrices are stored and equilibrated once). Rows may be strided.

    Attributes:
        structure: what the instances share.
        size: B.
        P, q, A, b: values, P and A in the order of the structure's CSC patterns.
    """

    structure: ConeProgramStructure
    size: int
    P: Float[np.ndarray, "#batch nnz_P"]
    q: Float[np.ndarray, "#batch n"]
    A: Float[np.ndarray, "#batch nnz_A"]
    b: Float[np.ndarray, "#batch m"]

    def instance(self, index: int) -> tuple[sp.csc_array, np.ndarray, sp.csc_array, np.ndarray]:
        """Return (P upper triangle, q, A, b) of one instance, for single-problem solvers."""
        structure = self.structure
        n, m = structure.num_variables, structure.num_rows
        P, q, A, b = (
            np.ascontiguousarray(block[index if block.shape[0] > 1 else 0])
            for block in (self.P, self.q, self.A, self.b)
        )
        return (
            sp.csc_array((P, structure.P_indices, structure.P_indptr), shape=(n, n)),
            q,
            sp.csc_array((A, structure.A_indices, structure.A_indptr), shape=(m, n)),
            b,
        )

    def select(self, rows: np.ndarray) -> ConeProgramBatch:
        """Return the batch of the given instances, in the given order."""
        blocks = (self.P, self.q, self.A, self.b)
        chosen = (block[rows] if block.shape[0] > 1 else block for block in blocks)
        return ConeProgramBatch(self.structure, len(rows), *chosen)


@dataclasses.dataclass(frozen=True, eq=False)
class ConeProgramCotangent:
    """Cotangents of the data of a batch, one row per instance; None if not asked for.

    An entry of P above the diagonal stands for both P_ij and P_ji, so its cotangent is
    the sum of both. Rows without a solution are exactly zero.

    Attributes:
        P, q, A, b: as in `ConeProgramBatch`, always B rows.
        residual: relative residual of the adjoint linear system of each row; large where
            the derivative does not exist or is not unique.
    """

    P: Float[np.ndarray, "batch nnz_P"] | None
    q: Float[np.ndarray, "batch n"] | None
    A: Float[np.ndarray, "batch nnz_A"] | None
    b: Float[np.ndarray, "batch m"] | None
    residual: Float[np.ndarray, " batch"]
