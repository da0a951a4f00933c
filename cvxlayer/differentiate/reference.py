# SPDX-License-Identifier: Apache-2.0
"""The NumPy specification as an engine: slow, dense, and the same answers as the native one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvxlayer.differentiate import conic, examination, primitives
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent, ConeProgramStructure
from cvxlayer.program.solution import ConeSolution, LinearizationPoint


class ReferenceDerivative:
    """Differentiates one instance after the other, dense; for tests."""

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

    def refine(
        self,
        prepared: None,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        *,
        threads: int | None = None,
    ) -> LinearizationPoint:
        """Return the point of differentiation; see `primitives.refine`."""
        del prepared, threads
        return primitives.refine(batch, solution)

    def examine(
        self,
        prepared: None,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        *,
        threads: int | None = None,
    ) -> examination.Examination:
        """Return how regular these points are; see `examination.examine`."""
        del prepared, threads
        return examination.examine(batch, solution)

    def apply(
        self,
        prepared: None,
        batch: ConeProgramBatch,
        point: LinearizationPoint,
        gx: Float[np.ndarray, "batch count n"] | None,
        gy: Float[np.ndarray, "batch count m"] | None,
        gs: Float[np.ndarray, "batch count m"] | None,
        *,
        threads: int | None = None,
    ) -> tuple[
        Float[np.ndarray, "batch count n"],
        Float[np.ndarray, "batch count m"],
        Float[np.ndarray, "batch count"],
    ]:
        """Solve the linearized optimality conditions; see `primitives.apply`."""
        del prepared, threads
        return primitives.apply(batch, point, gx, gy, gs)

    def curvature(
        self,
        prepared: None,
        batch: ConeProgramBatch,
        point: LinearizationPoint,
        first: Float[np.ndarray, "batch count m"],
        second: Float[np.ndarray, "batch count m"],
        *,
        threads: int | None = None,
    ) -> Float[np.ndarray, "batch count m"]:
        """Return D²Π(v)[p, p']; see `primitives.curvature`."""
        del prepared, threads
        return primitives.curvature(batch, point, first, second)
