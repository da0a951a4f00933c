# SPDX-License-Identifier: Apache-2.0
"""θ as made of the user's values: each part is a parameter, or the logarithm of one.

A cone program is affine in θ. That of a geometric program is affine in the logarithms of its
parameters, but exponents enter it as they are; a parameter that is both has two parts.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from cvxlayer.program.parameters import ParameterSpec


@dataclasses.dataclass(frozen=True)
class Coordinate:
    """One part of θ.

    Attributes:
        parameter: the index of the parameter of the user's that it is made of.
        is_log: whether it is its logarithm.
    """

    parameter: int
    is_log: bool = False


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """All parts of θ, in order; every parameter has one or two.

    Attributes:
        parts: the parts, those of one parameter side by side, in call order.
    """

    parts: tuple[Coordinate, ...]

    @classmethod
    def identity(cls, num_parameters: int) -> Coordinates:
        """Return those of a problem whose values are θ itself."""
        return cls(tuple(Coordinate(index) for index in range(num_parameters)))

    @functools.cached_property
    def is_identity(self) -> bool:
        """Whether the values are θ itself."""
        return self == Coordinates.identity(len(self.parts))

    def specs(self, parameters: Sequence[ParameterSpec]) -> tuple[ParameterSpec, ...]:
        """Return the spec of the parameter behind each part."""
        return tuple(parameters[part.parameter] for part in self.parts)

    def apply(self, values: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Return θ, part by part; the adjoint of its derivative is `pull_back`."""
        if self.is_identity:
            return tuple(values)
        return tuple(
            # A ufunc makes a number of an array without dimensions.
            np.asarray(np.log(values[part.parameter])) if part.is_log else values[part.parameter]
            for part in self.parts
        )

    def spread(self, wanted: Sequence[bool]) -> list[bool]:
        """Return which parts are made of the wanted parameters."""
        return [wanted[part.parameter] for part in self.parts]

    def pull_back(
        self, values: Sequence[np.ndarray], theta_bar: Sequence[np.ndarray | None]
    ) -> tuple[np.ndarray | None, ...]:
        """Return the cotangent of each parameter from those of θ; None where that is None."""
        if self.is_identity:
            return tuple(theta_bar)
        values_bar: list[np.ndarray | None] = [None] * len(values)
        for part, bar in zip(self.parts, theta_bar, strict=True):
            if bar is None:
                continue
            own = np.asarray(bar / values[part.parameter]) if part.is_log else bar
            before = values_bar[part.parameter]
            values_bar[part.parameter] = own if before is None else np.asarray(before + own)
        return tuple(values_bar)

    def legal_infinities(
        self, sides: Sequence[np.ndarray], num_parameters: int
    ) -> tuple[np.ndarray, ...]:
        """Return where the entries of each parameter may be infinite, with which sign.

        Args:
            sides: the same for each part of θ, 0 for nowhere.
            num_parameters: how many parameters there are.
        """
        legal: list[np.ndarray | None] = [None] * num_parameters
        for part, side in zip(self.parts, sides, strict=True):
            # log θ = −∞ at θ = 0, which is no positive value.
            own = np.maximum(side, 0) if part.is_log else side
            before = legal[part.parameter]
            legal[part.parameter] = own if before is None else np.where(own == before, own, 0)
        return tuple(side for side in legal if side is not None)
