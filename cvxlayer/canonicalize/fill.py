# SPDX-License-Identifier: Apache-2.0
"""What a substitution costs: how much the KKT matrix grows.

The estimate is cost = nnz(upper triangle of P) + nnz(A) + n + m, exact in the patterns. It
ignores fill-in of the factorization, which the substitution itself imitates: eliminating a
defined variable is the first pivot a fill-reducing ordering would take.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp

from cvxlayer.canonicalize.form import CanonicalForm

# Beyond this many products the new P is taken to be dense instead of formed.
_MAX_PRODUCTS = 50_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Patterns:
    """Sparsity patterns of one form, for many questions.

    Attributes:
        A_rows, A_columns: pattern of A by rows and by columns.
        P_rows: pattern of P, both triangles.
        column_counts: entries of each column of A and P together.
    """

    A_rows: sp.csr_array
    A_columns: sp.csc_array
    P_rows: sp.csr_array
    column_counts: np.ndarray

    @classmethod
    def of(cls, form: CanonicalForm) -> Patterns:
        """Read the patterns."""
        A_rows, P_rows = form.A.pattern(), form.P.pattern()
        A_columns = sp.csc_array(A_rows)
        counts = np.diff(A_columns.indptr) + np.diff(P_rows.indptr)
        return cls(A_rows, A_columns, P_rows, counts)

    def columns_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the columns that some of the rows touch."""
        return np.unique(self.A_rows[rows].indices)


def growth(patterns: Patterns, rows: np.ndarray, columns: np.ndarray) -> int:
    """Return by how much the cost grows when `rows` are solved for `columns` and substituted.

    Args:
        patterns: of the form.
        rows: defining equalities.
        columns: the variable each defines; it meets no other of the rows.
    """
    keep = np.ones(len(patterns.column_counts))
    keep[columns] = 0.0
    definitions = sp.csr_array(patterns.A_rows[rows])
    T = sp.csr_array(definitions @ sp.diags_array(keep))
    T.eliminate_zeros()
    uses = sp.csc_array(patterns.A_columns[:, columns])
    used_in = np.setdiff1d(np.unique(uses.indices), rows)
    products = patterns.P_rows[columns]
    removed = definitions.nnz + uses.nnz - len(rows) + 2 * len(rows)
    removed += _upper_count_touching(products, columns)
    return (
        _new_in_A(patterns, T, uses, used_in, keep)
        + _new_in_P(patterns, T, products, columns, keep)
        - removed
    )


def _new_in_A(
    patterns: Patterns, T: sp.csr_array, uses: sp.csc_array, used_in: np.ndarray, keep: np.ndarray
) -> int:
    """Return how many entries A gains in the rows that use the variables."""
    if len(used_in) == 0:
        return 0
    existing = sp.csr_array(patterns.A_rows[used_in] @ sp.diags_array(keep))
    existing.eliminate_zeros()
    filled = sp.csr_array(sp.csr_array(uses)[used_in] @ T + existing)
    return filled.nnz - existing.nnz


def _new_in_P(
    patterns: Patterns,
    T: sp.csr_array,
    products: sp.csr_array,
    columns: np.ndarray,
    keep: np.ndarray,
) -> int:
    """Return how many entries the upper triangle of P gains among the variables that stay."""
    if products.nnz == 0:
        return 0
    among = sp.csr_array(products[:, columns])
    across = sp.csr_array(products @ sp.diags_array(keep))
    across.eliminate_zeros()
    touched = np.unique(np.concatenate([T.indices, across.indices]))
    existing = sp.csr_array(patterns.P_rows[touched][:, touched])
    lengths = np.diff(T.indptr).astype(float)
    if float(lengths @ (among @ lengths)) > _MAX_PRODUCTS:
        return len(touched) * (len(touched) + 1) // 2 - _upper_count(existing)
    local = sp.csr_array(T[:, touched])
    mixed = sp.csr_array(across[:, touched].T @ local)
    filled = sp.csr_array(local.T @ (among @ local) + mixed + mixed.T + existing)
    return _upper_count(filled) - _upper_count(existing)


def _upper_count(symmetric: sp.csr_array) -> int:
    """Return the number of entries on and above the diagonal of a symmetric pattern."""
    on_diagonal = int(np.count_nonzero(symmetric.diagonal()))
    return (symmetric.nnz - on_diagonal) // 2 + on_diagonal


def _upper_count_touching(products: sp.csr_array, columns: np.ndarray) -> int:
    """Return the number of entries of the upper triangle in rows or columns `columns`."""
    among = sp.csr_array(products[:, columns])
    return products.nnz - among.nnz + _upper_count(among)
