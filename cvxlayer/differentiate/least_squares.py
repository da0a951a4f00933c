# SPDX-License-Identifier: Apache-2.0
"""The shortest answer where the derivative is not unique: the least-squares convention."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvxlayer.differentiate import conic
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent, ConeProgramStructure
from cvxlayer.program.cone_derivative import AbstractReverseDerivative
from cvxlayer.program.solution import ConeSolution


class LeastSquaresDerivative(AbstractReverseDerivative):
    """`conic.vjp` on all active rows: dependent ones share what one of them would get.

    Equal to the exact derivative where active constraints are independent. Elsewhere it mixes the
    adjacent pieces of the solution map, as LSQR does in other libraries, and spreads evenly over
    copies of a constraint. Dense, one instance after the other.
    """

    @property
    def refusal(self) -> str:
        """Say what this derivative cannot do."""
        return (
            '`derivative="least_squares"` only pulls gradients back, once; this asks for a '
            'forward-mode, second-order or vectorized derivative. Use `derivative="exact"` or '
            '`"smoothed"` for these.'
        )

    def setup(self, structure: ConeProgramStructure) -> None:
        """Do nothing: every call starts afresh."""
        del structure

    def vjp(
        self,
        prepared: None,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        x_bar: Float[np.ndarray, "batch n"] | None,
        y_bar: Float[np.ndarray, "batch m"] | None,
        s_bar: Float[np.ndarray, "batch m"] | None,
        *,
        needs: tuple[bool, bool, bool, bool] = (True, True, True, True),
        threads: int | None = None,
    ) -> ConeProgramCotangent:
        """Map cotangents of the solution to cotangents of the data; see `conic.vjp`."""
        del prepared, threads
        return conic.vjp(batch, solution, x_bar, y_bar, s_bar, needs, reduces=False)
