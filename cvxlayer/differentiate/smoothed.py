# SPDX-License-Identifier: Apache-2.0
"""The derivative of the central path in the place of that of the solution."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from cvxlayer.differentiate import native
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent, ConeProgramStructure
from cvxlayer.program.engine import count_threads, prepare_engine
from cvxlayer.program.solution import ConeSolution, LinearizationPoint


class SmoothedDerivative:
    """The exact derivative, of every mode and order, of the solutions x_μ(θ) of the central path.

    `native` with Π_μ in the place of the projection; the specification is `central_path`.

    Args:
        mu: μ, in the units of the program: y s = μ for an inequality.
    """

    def __init__(self, mu: float) -> None:
        self._mu = mu

    def setup(self, structure: ConeProgramStructure) -> Any:
        """Order and analyze the KKT matrices of the structure."""
        return prepare_engine(structure)

    def vjp(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        x_bar: Float[np.ndarray, "batch n"] | None,
        y_bar: Float[np.ndarray, "batch m"] | None,
        s_bar: Float[np.ndarray, "batch m"] | None,
        *,
        needs: tuple[bool, bool, bool, bool] = (True, True, True, True),
        threads: int | None = None,
    ) -> ConeProgramCotangent:
        """Return the cotangent of the data; its residual also tells how far off the path it is."""
        return native.pull_back(
            prepared,
            batch,
            solution,
            x_bar,
            y_bar,
            s_bar,
            needs=needs,
            mu=self._mu,
            threads=count_threads(threads),
        )

    def refine(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        *,
        threads: int | None = None,
    ) -> LinearizationPoint:
        """Return the points of the path; see `central_path.refine`."""
        return native.refine(prepared, batch, solution, mu=self._mu, threads=count_threads(threads))

    def apply(
        self,
        prepared: Any,
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
        """Solve the linearized conditions of the path; see `central_path.apply`."""
        return native.apply(
            prepared, batch, point, gx, gy, gs, mu=self._mu, threads=count_threads(threads)
        )

    def curvature(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        point: LinearizationPoint,
        first: Float[np.ndarray, "batch count m"],
        second: Float[np.ndarray, "batch count m"],
        *,
        threads: int | None = None,
    ) -> Float[np.ndarray, "batch count m"]:
        """Return D²Π_μ(v)[p, p']; see `central_path.curvature`."""
        del batch
        return native.curvature(
            prepared, point, first, second, mu=self._mu, threads=count_threads(threads)
        )
