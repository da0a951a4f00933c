# SPDX-License-Identifier: Apache-2.0
"""Sparse matrices whose entries are affine in θ: what compile-time algebra works on.

An entry is a list of terms (row, column, parameter, coefficient); the parameter index p
(one past the last) stands for the constant 1. Products are formed only where the result
stays affine, which the caller decides.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp


@dataclasses.dataclass(frozen=True, eq=False)
class AffineMatrix:
    """A matrix M(θ) = Σₖ θₖ Mₖ + M_p, as terms without duplicates or zeros.

    Attributes:
        shape: of the matrix.
        num_parameters: p.
        row, column, parameter: indices of each term, `parameter == p` for constants.
        value: coefficient of each term.
    """

    shape: tuple[int, int]
    num_parameters: int
    row: np.ndarray
    column: np.ndarray
    parameter: np.ndarray
    value: np.ndarray

    @classmethod
    def of_terms(
        cls,
        shape: tuple[int, int],
        num_parameters: int,
        row: np.ndarray,
        column: np.ndarray,
        parameter: np.ndarray,
        value: np.ndarray,
    ) -> AffineMatrix:
        """Sum duplicate terms and drop those that vanish; sorted by column, row, parameter."""
        order = np.lexsort((parameter, row, column))
        row, column, parameter, value = (a[order] for a in (row, column, parameter, value))
        if len(row):
            is_new = np.ones(len(row), dtype=bool)
            is_new[1:] = (np.diff(row) != 0) | (np.diff(column) != 0) | (np.diff(parameter) != 0)
            starts = np.flatnonzero(is_new)
            sums = np.add.reduceat(value, starts)
            # A sum that cancels leaves rounding errors of the size of its terms.
            sizes = np.maximum.reduceat(np.abs(value), starts)
            with np.errstate(invalid="ignore"):
                keep = np.abs(sums) > 1e-15 * sizes
            keep |= np.isinf(sums)
            row, column, parameter = (a[starts][keep] for a in (row, column, parameter))
            value = sums[keep]
        return cls(shape, num_parameters, row, column, parameter, value.astype(np.float64))

    @classmethod
    def zeros(cls, shape: tuple[int, int], num_parameters: int) -> AffineMatrix:
        """Return the zero matrix."""
        none = np.empty(0, dtype=np.int64)
        return cls(shape, num_parameters, none, none, none, np.empty(0))

    @classmethod
    def of_constant(cls, matrix: Any, num_parameters: int) -> AffineMatrix:
        """Return a constant matrix."""
        terms: Any = sp.coo_array(matrix)
        row, column = terms.row.astype(np.int64), terms.col.astype(np.int64)
        parameter = np.full(len(row), num_parameters)
        return cls.of_terms(terms.shape, num_parameters, row, column, parameter, terms.data)

    @classmethod
    def of_tensor(cls, tensor: sp.sparray, num_rows: int, num_columns: int) -> AffineMatrix:
        """Read a tensor: entries, column by column, × (p + 1)."""
        terms: Any = sp.coo_array(tensor)
        entry = terms.row.astype(np.int64)
        return cls.of_terms(
            (num_rows, num_columns),
            terms.shape[1] - 1,
            entry % max(num_rows, 1),
            entry // max(num_rows, 1),
            terms.col.astype(np.int64),
            np.asarray(terms.data, dtype=np.float64),
        )

    @property
    def is_parametric(self) -> np.ndarray:
        """Whether each term depends on a parameter."""
        return self.parameter != self.num_parameters

    @property
    def num_entries(self) -> int:
        """Number of entries that are not identically zero."""
        return len(np.unique(self.column * max(self.shape[0], 1) + self.row))

    def constant(self) -> sp.csr_array:
        """Return M_p, the value at θ = 0."""
        pick = ~self.is_parametric
        return sp.csr_array(
            (self.value[pick], (self.row[pick], self.column[pick])), shape=self.shape
        )

    def pattern(self) -> sp.csr_array:
        """Return ones where an entry is not identically zero."""
        ones = sp.csr_array((np.ones(len(self.row)), (self.row, self.column)), shape=self.shape)
        ones.sum_duplicates()
        ones.data[:] = 1.0
        return ones

    def parametric_rows(self) -> np.ndarray:
        """Return a mask of the rows that depend on θ."""
        mask = np.zeros(self.shape[0], dtype=bool)
        mask[self.row[self.is_parametric]] = True
        return mask

    def parametric_columns(self) -> np.ndarray:
        """Return a mask of the columns that depend on θ."""
        mask = np.zeros(self.shape[1], dtype=bool)
        mask[self.column[self.is_parametric]] = True
        return mask

    @property
    def T(self) -> AffineMatrix:
        """The transpose."""
        return AffineMatrix.of_terms(
            (self.shape[1], self.shape[0]),
            self.num_parameters,
            self.column,
            self.row,
            self.parameter,
            self.value,
        )

    def take(self, rows: np.ndarray | None, columns: np.ndarray | None) -> AffineMatrix:
        """Return the submatrix of the given rows and columns (None for all), in that order."""
        row, column = self.row, self.column
        keep = np.ones(len(row), dtype=bool)
        shape = list(self.shape)
        if rows is not None:
            place = np.full(self.shape[0], -1)
            place[rows] = np.arange(len(rows))
            row, shape[0] = place[row], len(rows)
            keep &= row >= 0
        if columns is not None:
            place = np.full(self.shape[1], -1)
            place[columns] = np.arange(len(columns))
            column, shape[1] = place[column], len(columns)
            keep &= column >= 0
        return AffineMatrix.of_terms(
            (shape[0], shape[1]),
            self.num_parameters,
            row[keep],
            column[keep],
            self.parameter[keep],
            self.value[keep],
        )

    def scale_rows(self, factors: np.ndarray) -> AffineMatrix:
        """Return diag(factors) M."""
        return dataclasses.replace(self, value=self.value * factors[self.row])

    def __add__(self, other: AffineMatrix) -> AffineMatrix:
        """Return the sum."""
        return AffineMatrix.of_terms(
            self.shape,
            self.num_parameters,
            np.concatenate([self.row, other.row]),
            np.concatenate([self.column, other.column]),
            np.concatenate([self.parameter, other.parameter]),
            np.concatenate([self.value, other.value]),
        )

    def times_constant(self, right: Any) -> AffineMatrix:
        """Return M(θ) · right for a constant matrix."""
        # Each pair (row, parameter) that occurs becomes one row of an ordinary matrix.
        keys = self.row * (self.num_parameters + 1) + self.parameter
        unique, place = np.unique(keys, return_inverse=True)
        lifted = sp.csr_array(
            (self.value, (place, self.column)), shape=(len(unique), self.shape[1])
        )
        product = sp.coo_array(lifted @ right)
        origin = unique[product.row]
        return AffineMatrix.of_terms(
            (self.shape[0], right.shape[1]),
            self.num_parameters,
            origin // (self.num_parameters + 1),
            product.col.astype(np.int64),
            origin % (self.num_parameters + 1),
            product.data,
        )

    def matmul(self, other: AffineMatrix) -> AffineMatrix:
        """Return the product, which the caller knows to stay affine.

        Terms with a parameter in both factors must not meet: they are not formed.
        """
        left, right = self.constant(), other.constant()
        constant_right = self.times_constant(right)
        parametric = other.drop_constants()
        constant_left = parametric.T.times_constant(sp.csr_array(left.T)).T
        return constant_right + constant_left

    def drop_constants(self) -> AffineMatrix:
        """Return M(θ) − M_p."""
        return self._pick(self.is_parametric)

    def _pick(self, terms: np.ndarray) -> AffineMatrix:
        """Return the matrix with only the terms of a mask."""
        return dataclasses.replace(
            self,
            row=self.row[terms],
            column=self.column[terms],
            parameter=self.parameter[terms],
            value=self.value[terms],
        )

    def lift(self) -> sp.csr_array:
        """Return a single column m(θ) as the matrix L with m(θ) = L [θ; 1]."""
        assert self.shape[1] == 1
        return sp.csr_array(
            (self.value, (self.row, self.parameter)),
            shape=(self.shape[0], self.num_parameters + 1),
        )

    def dense_column(self) -> tuple[sp.csr_array, np.ndarray]:
        """Return (matrix, offset) of a single column m(θ) = matrix θ + offset, no row left out."""
        lifted, p = self.lift(), self.num_parameters
        return sp.csr_array(lifted[:, :p]), lifted[:, [p]].toarray().ravel()

    def upper_triangle(self) -> AffineMatrix:
        """Return the entries on and above the diagonal."""
        return self._pick(self.row <= self.column)

    def compressed(self) -> tuple[np.ndarray, np.ndarray, sp.csr_array, np.ndarray]:
        """Return (indptr, indices, matrix, offset): a CSC pattern, entries = matrix θ + offset."""
        keys = self.column * max(self.shape[0], 1) + self.row
        unique, place = np.unique(keys, return_inverse=True)
        columns = unique // max(self.shape[0], 1)
        indices = unique % max(self.shape[0], 1)
        indptr = np.searchsorted(columns, np.arange(self.shape[1] + 1))
        coefficients = sp.csr_array(
            (self.value, (place, self.parameter)), shape=(len(unique), self.num_parameters + 1)
        )
        offset = coefficients[:, [self.num_parameters]].toarray().ravel()
        return (
            indptr.astype(np.int64),
            indices.astype(np.int64),
            sp.csr_array(coefficients[:, : self.num_parameters]),
            offset,
        )
