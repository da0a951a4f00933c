# SPDX-License-Identifier: Apache-2.0
"""The NumPy specification as an engine: slow, dense, and the same answers as the native one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvxlayer.differentiate import conic
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent, ConeProgramStructure
from cvxlayer.program.solution import ConeSolution


class ReferenceDerivative:
    """Differentiates one instance after the other with `conic.vjp`; for tests."""

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
        return conic.vjp(batch, solution, x_bar, y_bar, s_bar, needs)
