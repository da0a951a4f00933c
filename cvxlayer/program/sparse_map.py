# SPDX-License-Identifier: Apache-2.0
"""A constant sparse linear map applied to many rows, with its adjoint.

Both directions are prepared once, so that a call builds no sparse matrix: gather, scale,
and sum what belongs to one entry. Writing to scattered places costs ten times as much as
reading from them, hence the padding of rows that are empty.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

# Below this share of nonempty rows, scattering to them beats passing over all rows.
_DENSE_ENOUGH = 0.25
# Entries worked on at a time: 256 kB, well inside a core's own cache.
_BLOCK_ENTRIES = 32_768


@dataclasses.dataclass(frozen=True, eq=False)
class _Gather:
    """Rows of a sparse matrix, none empty, ready to multiply.

    Attributes:
        columns: the column of every stored entry (a slice when consecutive).
        weights: every stored entry, or None when all are one.
        starts: where each row begins among the stored entries; None when each has one.
        is_padded: whether columns may point to a zero behind the last entry of a point.
    """

    columns: slice | np.ndarray
    weights: np.ndarray | None
    starts: np.ndarray | None
    is_padded: bool

    @classmethod
    def of(cls, indptr: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> _Gather:
        """Prepare rows given as CSR, an empty one getting a zero."""
        counts = np.diff(indptr)
        is_padded = bool(np.any(counts == 0))
        if is_padded:
            at = indptr[:-1][counts == 0]
            columns = np.insert(columns, at, -1)
            weights = np.insert(weights, at, 1.0)
            counts = np.maximum(counts, 1)
        starts = None if np.all(counts == 1) else np.cumsum(counts) - counts
        return cls(
            _as_slice(columns.astype(np.intp)),
            None if np.all(weights == 1.0) else weights,
            starts,
            is_padded,
        )

    def times(self, points: np.ndarray) -> np.ndarray:
        """Return the rows times each point, (batch, rows); may be a view of `points`."""
        if self.is_padded:
            points = np.concatenate([points, np.zeros((points.shape[0], 1))], axis=1)
        if isinstance(self.columns, slice):
            picked = points[:, self.columns]
            if self.weights is not None:
                picked = picked * self.weights
        else:
            picked = points.take(self.columns, axis=1)
            if self.weights is not None:
                picked *= self.weights
        if self.starts is None:
            return picked
        return np.add.reduceat(picked, self.starts, axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """A sparse matrix ready to be multiplied and added to something.

    Attributes:
        num_rows: of the matrix.
        target: which rows are not empty (a slice when consecutive).
        few: these rows alone.
        all: every row, for batches; None where `few` is as good.
    """

    num_rows: int
    target: slice | np.ndarray
    few: _Gather
    all: _Gather | None

    @classmethod
    def of(cls, matrix: sp.csr_array) -> _Rows:
        indptr, columns, weights = matrix.indptr, matrix.indices, matrix.data
        filled = np.flatnonzero(np.diff(indptr))
        target = _as_slice(filled.astype(np.intp))
        few = _Gather.of(np.append(indptr[filled], len(columns)), columns, weights)
        num_rows = len(indptr) - 1
        is_scattered = not isinstance(target, slice) and len(filled) >= _DENSE_ENOUGH * num_rows
        return cls(
            num_rows, target, few, _Gather.of(indptr, columns, weights) if is_scattered else None
        )

    @functools.cached_property
    def is_full(self) -> bool:
        """Whether no row is empty."""
        return isinstance(self.target, slice) and self.target == slice(0, self.num_rows)

    def add_to(self, result: np.ndarray, points: np.ndarray) -> None:
        """Add the product with each point."""
        if len(points) * self.num_rows > _BLOCK_ENTRIES:
            for block in _blocks(len(points), self.num_rows):
                self._add_block_to(result[block], points[block])
        else:
            self._add_block_to(result, points)

    def _add_block_to(self, result: np.ndarray, points: np.ndarray) -> None:
        if self.all is not None and len(points) > 1:
            result += self.all.times(points)
        elif self.is_full:
            result += self.few.times(points)
        else:
            result[:, self.target] += self.few.times(points)

    def times(self, points: np.ndarray, base: np.ndarray | float) -> np.ndarray:
        """Return base, of one row, plus the product with each point, as a new array."""
        if len(points) * self.num_rows <= _BLOCK_ENTRIES:
            return self._times_block(points, base, None)
        result = np.empty((len(points), self.num_rows))
        for block in _blocks(len(points), self.num_rows):
            self._times_block(points[block], base, result[block])
        return result

    def _times_block(
        self, points: np.ndarray, base: np.ndarray | float, out: np.ndarray | None
    ) -> np.ndarray:
        if self.is_full:
            return np.add(self.few.times(points), base, out=out)
        if self.all is not None and len(points) > 1:
            return np.add(self.all.times(points), base, out=out)
        result = np.empty((len(points), self.num_rows)) if out is None else out
        result[:] = base
        result[:, self.target] += self.few.times(points)
        return result


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
    def of(cls, matrix: Any, fold: sp.csr_array | None = None) -> SparseMap:
        """Prepare both directions of a sparse matrix.

        Args:
            matrix: the map.
            fold: where points are known to satisfy `fold @ point == point`, a matrix whose
                product with the map is sparser; only the forward direction uses it.
        """
        rows = _tidy(matrix)
        forward = rows if fold is None else _tidy(rows @ fold)
        return cls((rows.shape[0], rows.shape[1]), _Rows.of(forward), _Rows.of(_tidy(rows.T)))

    def add_to(
        self, result: Float[np.ndarray, "batch rows"], points: Float[np.ndarray, "batch columns"]
    ) -> None:
        """Add the image of each point to `result`; the adjoint is `add_adjoint_to`."""
        self.forward.add_to(result, points)

    def add_adjoint_to(
        self,
        points_bar: Float[np.ndarray, "batch columns"],
        result_bar: Float[np.ndarray, "batch rows"],
    ) -> None:
        """Add the transpose times each row of `result_bar` to `points_bar`."""
        self.backward.add_to(points_bar, result_bar)

    def __call__(
        self,
        points: Float[np.ndarray, "batch columns"],
        base: Float[np.ndarray, "1 rows"] | float = 0.0,
    ) -> Float[np.ndarray, "batch rows"]:
        """Return base plus the image of each point, as a new array."""
        return self.forward.times(points, base)


def _blocks(num_points: int, num_rows: int) -> tuple[slice, ...]:
    """Return slices of points whose images fit into the cache together."""
    step = max(1, _BLOCK_ENTRIES // num_rows)
    return tuple(slice(i, min(i + step, num_points)) for i in range(0, num_points, step))


def _tidy(matrix: Any) -> Any:
    """Return the matrix as CSR, sorted, without duplicates or stored zeros."""
    rows = sp.csr_array(matrix)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows


def _as_slice(index: np.ndarray) -> slice | np.ndarray:
    """Return consecutive indices as a slice, others as they are."""
    if len(index) and index[0] >= 0 and bool(np.all(np.diff(index) == 1)):
        return slice(int(index[0]), int(index[0]) + len(index))
    return index
