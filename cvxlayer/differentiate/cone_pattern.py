# SPDX-License-Identifier: Apache-2.0
"""Where the stored entries of P and A are, as arrays of rows and columns."""

from __future__ import annotations

import dataclasses

import numpy as np

from cvxlayer.program.batch import ConeProgramStructure


@dataclasses.dataclass(frozen=True, eq=False)
class ConePattern:
    """Where the stored entries of P and A are.

    Attributes:
        num_variables, num_rows: n and m.
        is_curved: whether some cone is not linear, or taken on the central path.
        A_row, A_column, P_row, P_column: of each stored entry, P in its upper triangle.
        P_half: ½ on the diagonal of P, 1 off it.
        P_mirror, P_mirror_row, P_mirror_column: the entries of all of P: which stored entry
            each is, its row and column.
    """

    num_variables: int
    num_rows: int
    is_curved: bool
    A_row: np.ndarray
    A_column: np.ndarray
    P_row: np.ndarray
    P_column: np.ndarray
    P_half: np.ndarray
    P_mirror: np.ndarray
    P_mirror_row: np.ndarray
    P_mirror_column: np.ndarray

    @classmethod
    def of(cls, structure: ConeProgramStructure) -> ConePattern:
        """Return the pattern of a structure."""
        n, m = structure.num_variables, structure.num_rows
        A_row, A_column = _places(structure.A_indptr, structure.A_indices)
        row, column = _places(structure.P_indptr, structure.P_indices)
        off = np.flatnonzero(row != column)
        return cls(
            n,
            m,
            bool(structure.cones.curved),
            A_row,
            A_column,
            row,
            column,
            np.where(row == column, 0.5, 1.0),
            np.concatenate([np.arange(len(row)), off]),
            np.concatenate([row, column[off]]),
            np.concatenate([column, row[off]]),
        )

    def smoothed(self) -> ConePattern:
        """Return the pattern with a second derivative of all rows, as on the central path."""
        return dataclasses.replace(self, is_curved=True)


def _places(indptr: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of each stored entry of a CSC pattern."""
    columns = np.repeat(np.arange(len(indptr) - 1, dtype=np.int64), np.diff(indptr))
    return np.asarray(indices, dtype=np.int64), columns
