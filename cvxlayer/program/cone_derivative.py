# SPDX-License-Identifier: Apache-2.0
"""What an engine of derivatives offers for cone programs; `differentiate` has ours."""

from __future__ import annotations

import abc
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cvxlayer.errors import UnsupportedDerivativeError
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent, ConeProgramStructure
from cvxlayer.program.solution import ConeSolution, LinearizationPoint


@runtime_checkable
class ConeDerivative(Protocol):
    """What differentiates solutions of cone programs; see `differentiate`."""

    def setup(self, structure: ConeProgramStructure) -> Any:
        """Do the work that depends on the structure alone."""
        ...

    def vjp(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        x_bar: np.ndarray | None,
        y_bar: np.ndarray | None,
        s_bar: np.ndarray | None,
        *,
        needs: tuple[bool, bool, bool, bool],
        threads: int | None,
    ) -> ConeProgramCotangent:
        """Return the cotangent of the data."""
        ...


@runtime_checkable
class LinearizedDerivative(ConeDerivative, Protocol):
    """One that also offers what forward mode, transforms and second derivatives are made of."""

    def refine(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        *,
        threads: int | None,
    ) -> LinearizationPoint:
        """Return where the solution map is differentiated.

        Raises:
            UnsupportedDerivativeError: the engine has nothing but `vjp`.
        """
        ...

    def apply(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        point: LinearizationPoint,
        gx: np.ndarray | None,
        gy: np.ndarray | None,
        gs: np.ndarray | None,
        *,
        threads: int | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Solve the linearized optimality conditions; see `differentiate.primitives.apply`.

        Raises:
            UnsupportedDerivativeError: as `refine`.
        """
        ...

    def curvature(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        point: LinearizationPoint,
        first: np.ndarray,
        second: np.ndarray,
        *,
        threads: int | None,
    ) -> np.ndarray:
        """Return the second derivative of the projection along two directions.

        Raises:
            UnsupportedDerivativeError: as `refine`.
        """
        ...


class AbstractReverseDerivative(abc.ABC):
    """The part of a `LinearizedDerivative` besides pulling cotangents back once: refused."""

    @property
    @abc.abstractmethod
    def refusal(self) -> str:
        """What to say, and to advise, when another derivative is asked for."""

    def refine(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        *,
        threads: int | None = None,
    ) -> LinearizationPoint:
        """Refuse.

        Raises:
            UnsupportedDerivativeError: always.
        """
        raise UnsupportedDerivativeError(self.refusal)

    def apply(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        point: LinearizationPoint,
        gx: np.ndarray | None,
        gy: np.ndarray | None,
        gs: np.ndarray | None,
        *,
        threads: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Refuse.

        Raises:
            UnsupportedDerivativeError: always.
        """
        raise UnsupportedDerivativeError(self.refusal)

    def curvature(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        point: LinearizationPoint,
        first: np.ndarray,
        second: np.ndarray,
        *,
        threads: int | None = None,
    ) -> np.ndarray:
        """Refuse.

        Raises:
            UnsupportedDerivativeError: always.
        """
        raise UnsupportedDerivativeError(self.refusal)
