# SPDX-License-Identifier: Apache-2.0
"""The Cartesian product of cones in which the slack of a cone program lives."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ConeProduct:
    """K = {0}^zero × R₊^nonnegative × Q^d₁ × Q^d₂ × …, rows in exactly this order.

    Attributes:
        zero: number of equality rows.
        nonnegative: number of linear inequality rows.
        second_order: dimension of each second-order cone {(t, z) : ‖z‖₂ ≤ t}, `t` first.
    """

    zero: int = 0
    nonnegative: int = 0
    second_order: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of rows m."""
        return self.zero + self.nonnegative + sum(self.second_order)

    @property
    def num_linear(self) -> int:
        """Number of rows in the zero and nonnegative cones, which come first."""
        return self.zero + self.nonnegative

    @property
    def degree(self) -> int:
        """Barrier parameter ν: one for each inequality row and each second-order cone."""
        return self.nonnegative + len(self.second_order)

    @property
    def second_order_slices(self) -> tuple[slice, ...]:
        """Rows of each second-order cone."""
        slices: list[slice] = []
        start = self.num_linear
        for dimension in self.second_order:
            slices.append(slice(start, start + dimension))
            start += dimension
        return tuple(slices)
