# SPDX-License-Identifier: Apache-2.0
"""Constant sparse linear maps applied to many rows, and their adjoints, in the core.

Maps are applied several at a time: a result is the sum of all that reach it, written once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from cvxlayer import _native


@dataclasses.dataclass(frozen=True, eq=False)
class SparseMap:
    """point ↦ matrix · point, row by row.

    Attributes:
        shape: (length of the result, length of a point).
        forward: the matrix.
        backward: its transpose.
    """

    shape: tuple[int, int]
    forward: sp.csr_array
    backward: sp.csr_array

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
        return cls((rows.shape[0], rows.shape[1]), forward, _tidy(rows.T))

    @functools.cached_property
    def native_forward(self) -> _native.SparseMap:
        """The matrix in the core."""
        return _to_native(self.forward)

    @functools.cached_property
    def native_backward(self) -> _native.SparseMap:
        """Its transpose in the core."""
        return _to_native(self.backward)

    def __getstate__(self) -> dict[str, Any]:
        # The core's copies are made again where they are needed.
        return {"shape": self.shape, "forward": self.forward, "backward": self.backward}


Term = tuple[SparseMap, Float[np.ndarray, "#batch _"]]
"""A map, and what it or its adjoint is applied to: a row for each instance, or one for all."""


def apply_maps(
    terms: Sequence[Term], base: Float[np.ndarray, "#batch rows"] | None, batch: int, threads: int
) -> Float[np.ndarray, "batch rows"]:
    """Return base (None: zero) plus the sum of the images of all points, as a new array.

    The adjoint, point by point, is `apply_adjoints`. There is at least one term.
    """
    result = np.empty((batch, terms[0][0].shape[0]))
    maps = [sparse_map.native_forward for sparse_map, _ in terms]
    _native.apply_maps(maps, [points for _, points in terms], base, result, threads)
    return result


def apply_adjoints(
    terms: Sequence[Term], batch: int, threads: int
) -> Float[np.ndarray, "batch columns"]:
    """Return the sum of the adjoints of the maps applied to the given rows, as a new array."""
    result = np.empty((batch, terms[0][0].shape[1]))
    maps = [sparse_map.native_backward for sparse_map, _ in terms]
    _native.apply_maps(maps, [bars for _, bars in terms], None, result, threads)
    return result


def sum_rows(
    rows: Float[np.ndarray, "batch length"], threads: int
) -> Float[np.ndarray, "1 length"]:
    """Return the sum over the batch, added in its order whatever the number of threads."""
    result = np.empty((1, rows.shape[1]))
    _native.sum_rows(rows, result, threads)
    return result


def _tidy(matrix: Any) -> Any:
    """Return the matrix as CSR, sorted, without duplicates or stored zeros."""
    rows = sp.csr_array(matrix)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows


def _to_native(matrix: Any) -> _native.SparseMap:
    return _native.SparseMap(
        matrix.shape[1],
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int64),
        matrix.data.astype(np.float64),
    )
