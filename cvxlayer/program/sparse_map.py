# SPDX-License-Identifier: Apache-2.0
"""A constant sparse linear map applied to many rows, with its adjoint.

Both directions are prepared once, so that a call builds no sparse matrix: one that only
picks (and scales) entries is an indexed copy, a single row is one `reduceat`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of a sparse matrix that are not empty, ready to multiply.

    Attributes:
        target: where the products go (a slice when contiguous).
        columns: the column of every stored entry (a slice when contiguous and unrepeated).
        weights: every stored entry, or None when all are one.
        starts: where each row begins among the stored entries; None when each has one.
        matrix: the rows as CSR, for batches; None when each row has one entry.
    """

    target: slice | np.ndarray
    columns: slice | np.ndarray
    weights: np.ndarray | None
    starts: np.ndarray | None
    matrix: sp.csr_array | None

    @classmethod
    def of(cls, matrix: sp.csr_array) -> _Rows:
        counts = np.diff(matrix.indptr)
        target = np.flatnonzero(counts)
        is_selection = bool(np.all(counts <= 1))
        weights = None if np.all(matrix.data == 1.0) else matrix.data
        return cls(
            _as_slice(target),
            _as_slice(matrix.indices) if is_selection else matrix.indices.astype(np.intp),
            weights,
            None if is_selection else matrix.indptr[target].astype(np.intp),
            None if is_selection else matrix[target],
        )

    def times(self, points: np.ndarray) -> np.ndarray:
        """Return the nonempty rows times each point, (batch, rows)."""
        if self.matrix is not None and points.shape[0] > 1:
            return (self.matrix @ points.T).T
        picked = points[:, self.columns]
        if self.weights is not None:
            picked = picked * self.weights
        if self.starts is None:
            return picked
        return np.add.reduceat(picked, self.starts, axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class SparseMap:
    """point ↦ matrix · point, row by row.

    Attributes:
        shape: (length of the result, length of a point).
        forward, backward: the matrix and its transpose, prepared.
    """

    shape: tuple[int, int]
    forward: _Rows
    backward: _Rows

    @classmethod
    def of(cls, matrix: sp.sparray) -> SparseMap:
        """Prepare both directions of a sparse matrix."""
        rows = sp.csr_array(matrix)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        columns = sp.csr_array(rows.T)
        columns.sum_duplicates()
        return cls((rows.shape[0], rows.shape[1]), _Rows.of(rows), _Rows.of(columns))

    def add_to(
        self, result: Float[np.ndarray, "batch rows"], points: Float[np.ndarray, "batch columns"]
    ) -> None:
        """Add the image of each point to `result`; the adjoint is `add_adjoint_to`."""
        result[:, self.forward.target] += self.forward.times(points)

    def add_adjoint_to(
        self,
        points_bar: Float[np.ndarray, "batch columns"],
        result_bar: Float[np.ndarray, "batch rows"],
    ) -> None:
        """Add the transpose times each row of `result_bar` to `points_bar`."""
        points_bar[:, self.backward.target] += self.backward.times(result_bar)

    def __call__(self, points: Float[np.ndarray, "batch columns"]) -> np.ndarray:
        """Return the image of each point as a new array, (batch, rows)."""
        if isinstance(self.forward.target, slice) and self.forward.target == slice(
            0, self.shape[0]
        ):
            image = self.forward.times(points)
            # An indexed slice of the points would share their memory.
            return image.copy() if image.base is not None else image
        result = np.zeros((points.shape[0], self.shape[0]))
        self.add_to(result, points)
        return result


def _as_slice(index: np.ndarray) -> slice | np.ndarray:
    """Return consecutive indices as a slice, others as they are."""
    if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
        return slice(int(index[0]), int(index[0]) + len(index))
    return index.astype(np.intp)
