# SPDX-License-Identifier: Apache-2.0
"""What the user asks for as an affine map of what the reduced program still has."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxlayer.canonicalize.affine_matrix import AffineMatrix


@dataclasses.dataclass(frozen=True, eq=False)
class AnswerMap:
    """answer = of_x x + of_y y + of_theta(θ), with constant matrices.

    Attributes:
        of_x: N × n.
        of_y: N × m.
        of_theta: N × 1, affine in θ.
    """

    of_x: Any
    of_y: Any
    of_theta: AffineMatrix

    def take(self, matrix: sp.csr_array) -> AnswerMap:
        """Return matrix · answer."""
        return AnswerMap(
            matrix @ self.of_x,
            matrix @ self.of_y,
            self.of_theta.T.times_constant(sp.csr_array(matrix.T)).T,
        )

    def shows_variables(self) -> np.ndarray:
        """Return a mask of the variables that the answer reads."""
        return np.bincount(self.of_x.indices, minlength=self.of_x.shape[1]) > 0

    def shows_rows(self) -> np.ndarray:
        """Return a mask of the rows whose duals the answer reads."""
        return np.bincount(self.of_y.indices, minlength=self.of_y.shape[1]) > 0

    def keep_variables(self, kept: np.ndarray) -> AnswerMap:
        """Return the map with the other variables zero."""
        return dataclasses.replace(self, of_x=sp.csr_array(self.of_x[:, kept]))

    def keep_rows(self, rows: np.ndarray) -> AnswerMap:
        """Return the map with the duals of the other rows zero."""
        return dataclasses.replace(self, of_y=sp.csr_array(self.of_y[:, rows]))

    def substitute(
        self,
        variables: tuple[np.ndarray, np.ndarray],
        rows: tuple[np.ndarray, np.ndarray],
        x_gone: AnswerMap,
        y_gone: AnswerMap,
    ) -> AnswerMap:
        """Return the map after some variables and duals became maps of those that stay.

        Args:
            variables: indices of those that stay and of those that go.
            rows: the same of the rows.
            x_gone: the variables that go, as maps of what stays.
            y_gone: the duals that go, as maps of what stays.
        """
        from_x = x_gone.take(sp.csr_array(self.of_x[:, variables[1]]))
        from_y = y_gone.take(sp.csr_array(self.of_y[:, rows[1]]))
        return AnswerMap(
            _tidy(self.of_x[:, variables[0]] + from_x.of_x + from_y.of_x),
            _tidy(self.of_y[:, rows[0]] + from_x.of_y + from_y.of_y),
            self.of_theta + from_x.of_theta + from_y.of_theta,
        )


def selection(mask: np.ndarray, other: int, num_parameters: int, *, of_y: bool) -> AnswerMap:
    """Return the map that shows x, or y, where a mask says so, and nothing elsewhere.

    Args:
        mask: over the variables, or the rows.
        other: number of rows, or of variables.
        num_parameters: p.
        of_y: whether the mask is over rows.
    """
    size, places = len(mask), np.flatnonzero(mask)
    shown = sp.csr_array((np.ones(len(places)), (places, places)), shape=(size, size))
    hidden = sp.csr_array((size, other))
    zero = AffineMatrix.zeros((size, 1), num_parameters)
    return AnswerMap(hidden, shown, zero) if of_y else AnswerMap(shown, hidden, zero)


def _tidy(matrix: Any) -> sp.csr_array:
    rows = sp.csr_array(matrix)
    rows.eliminate_zeros()
    return rows
