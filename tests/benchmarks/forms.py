# SPDX-License-Identifier: Apache-2.0
"""Plain forms of a benchmark problem: batched sparse matrices, QPs, cone programs.

A workload states its problem once, by hand, in the smallest natural form. Every engine
is handed that same form, so that engines are compared and not canonicalizers.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from cvxlayer.cones import semidefinite
from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure


@dataclasses.dataclass(frozen=True, eq=False)
class SparseBatch:
    """B matrices of one pattern; `values` has one row when all are equal."""

    shape: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @staticmethod
    def from_dense(matrices: np.ndarray) -> SparseBatch:
        """Take (B, m, n) or (m, n) and store every entry."""
        stack = matrices[None] if matrices.ndim == 2 else matrices
        num_rows, num_columns = stack.shape[1:]
        rows, columns = np.divmod(np.arange(num_rows * num_columns), max(num_columns, 1))
        return SparseBatch((num_rows, num_columns), rows, columns, stack.reshape(len(stack), -1))

    @staticmethod
    def diagonal(values: np.ndarray) -> SparseBatch:
        """One diagonal matrix, shared by the batch."""
        index = np.arange(len(values))
        return SparseBatch((len(values), len(values)), index, index, values[None])

    @staticmethod
    def empty(num_columns: int) -> SparseBatch:
        """No rows."""
        none = np.zeros(0, dtype=np.int64)
        return SparseBatch((0, num_columns), none, none, np.zeros((1, 0)))

    @functools.cached_property
    def dense(self) -> np.ndarray:
        """(B or 1, m, n)."""
        stack = np.zeros((len(self.values), *self.shape))
        stack[:, self.rows, self.columns] = self.values
        return stack


@dataclasses.dataclass(frozen=True, eq=False)
class QuadraticProgram:
    """minimize ½xᵀPx + qᵀx  subject to  Ax = b, Gx ≤ h, lower ≤ x ≤ upper.

    P holds both triangles. Vectors are (B or 1, length); bounds are shared by the batch
    and may be infinite.
    """

    size: int
    P: SparseBatch
    q: np.ndarray
    A: SparseBatch
    b: np.ndarray
    G: SparseBatch
    h: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def bounded_above(self) -> np.ndarray:
        """Variables with a finite upper bound, in the order of their cone rows."""
        return np.flatnonzero(np.isfinite(self.upper))

    @property
    def bounded_below(self) -> np.ndarray:
        """Variables with a finite lower bound, in the order of their cone rows."""
        return np.flatnonzero(np.isfinite(self.lower))

    def inequalities(self) -> tuple[SparseBatch, np.ndarray]:
        """(G, h) with the bounds as further rows: upper bounds, then lower bounds."""
        above, below = self.bounded_above, self.bounded_below
        ones = np.concatenate([np.ones(len(above)), -np.ones(len(below))])[None]
        bounds = SparseBatch(
            (len(above) + len(below), self.P.shape[0]),
            np.arange(len(above) + len(below)),
            np.concatenate([above, below]),
            ones,
        )
        limits = np.concatenate([self.upper[above], -self.lower[below]])[None]
        return stack_rows([self.G, bounds]), stack_vectors([self.h, limits])

    def cone_program(self) -> ConeProgramBatch:
        """Rows: equalities, inequalities, upper bounds, lower bounds."""
        G, h = self.inequalities()
        cones = ConeProduct(zero=self.A.shape[0], nonnegative=G.shape[0])
        A, b = stack_rows([self.A, G]), stack_vectors([self.b, h])
        return assemble_cone_program(self.size, cones, self.P, self.q, A, b)


def _common_rows(blocks: list[np.ndarray]) -> list[np.ndarray]:
    batch = max(len(block) for block in blocks)
    return [np.broadcast_to(block, (batch, block.shape[1])) for block in blocks]


def stack_vectors(blocks: list[np.ndarray]) -> np.ndarray:
    """Concatenate (B or 1, length) blocks; one row only if every block has one."""
    return np.concatenate(_common_rows(blocks), axis=1)


def stack_rows(blocks: list[SparseBatch]) -> SparseBatch:
    """Put matrices of equal width below one another."""
    starts = np.cumsum([0, *(block.shape[0] for block in blocks)])
    return SparseBatch(
        (int(starts[-1]), blocks[0].shape[1]),
        np.concatenate([block.rows + start for block, start in zip(blocks, starts, strict=False)]),
        np.concatenate([block.columns for block in blocks]),
        stack_vectors([block.values for block in blocks]),
    )


def _compress(matrix: SparseBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(indptr, indices, values in CSC order)."""
    order = np.lexsort((matrix.rows, matrix.columns))
    counts = np.bincount(matrix.columns, minlength=matrix.shape[1])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    values = np.ascontiguousarray(matrix.values[:, order])
    return indptr, matrix.rows[order].astype(np.int64), values


def assemble_cone_program(
    size: int,
    cones: ConeProduct,
    P: SparseBatch,
    q: np.ndarray,
    A: SparseBatch,
    b: np.ndarray,
) -> ConeProgramBatch:
    """Build the batch from P (both triangles), q, A and b."""
    upper = P.rows <= P.columns
    P = SparseBatch(P.shape, P.rows[upper], P.columns[upper], P.values[:, upper])
    P_indptr, P_indices, P_values = _compress(P)
    A_indptr, A_indices, A_values = _compress(A)
    structure = ConeProgramStructure(A.shape[1], cones, P_indptr, P_indices, A_indptr, A_indices)
    return ConeProgramBatch(
        structure, size, P_values, np.ascontiguousarray(q), A_values, np.ascontiguousarray(b)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class UpperTriangles:
    """A cone program whose semidefinite rows stack upper triangles, as peers want them.

    Attributes:
        batch: the program in that order.
        rows: our row behind each of its rows.
        entries: our entry of A behind each of its entries.
    """

    batch: ConeProgramBatch
    rows: np.ndarray
    entries: np.ndarray

    @staticmethod
    def of(batch: ConeProgramBatch) -> UpperTriangles:
        """Reorder the rows of semidefinite cones; the rest stays where it is."""
        structure = batch.structure
        rows = np.arange(structure.num_rows)
        for cone in structure.cones.curved:
            if cone.kind is ConeKind.SEMIDEFINITE:
                within = semidefinite.upper_triangle_order(int(cone.parameter))
                rows[cone.rows] = cone.rows.start + within
        moved = np.argsort(rows)[structure.A_indices]
        columns = np.repeat(np.arange(structure.num_variables), np.diff(structure.A_indptr))
        entries = np.lexsort((moved, columns))
        reordered = dataclasses.replace(structure, A_indices=moved[entries])
        A, b = np.ascontiguousarray(batch.A[:, entries]), np.ascontiguousarray(batch.b[:, rows])
        program = ConeProgramBatch(reordered, batch.size, batch.P, batch.q, A, b)
        return UpperTriangles(program, rows, entries)

    def restore(self, rows: np.ndarray) -> np.ndarray:
        """One number per row, in their order → in ours."""
        restored = np.empty_like(rows)
        restored[:, self.rows] = rows
        return restored

    def restore_entries(self, entries: np.ndarray) -> np.ndarray:
        """One number per entry of A, in their order → in ours."""
        restored = np.empty_like(entries)
        restored[:, self.entries] = entries
        return restored
