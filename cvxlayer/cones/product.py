# SPDX-License-Identifier: Apache-2.0
"""The Cartesian product of cones in which the slack of a cone program lives."""

from __future__ import annotations

import dataclasses
import enum
import functools


class ConeKind(enum.IntEnum):
    """The curved cones. The numbers are shared with the native core (`native/cones/kind.hpp`)."""

    SECOND_ORDER = 0
    SEMIDEFINITE = 1
    EXPONENTIAL = 2
    POWER = 3


@dataclasses.dataclass(frozen=True)
class CurvedCone:
    """One curved cone of a product.

    Attributes:
        kind: which.
        rows: the rows of the cone program it owns.
        parameter: order of the matrix for `SEMIDEFINITE`, the exponent α for `POWER`,
            otherwise 0.
    """

    kind: ConeKind
    rows: slice
    parameter: float = 0.0

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.rows.stop - self.rows.start

    @property
    def degree(self) -> int:
        """Barrier parameter ν."""
        match self.kind:
            case ConeKind.SECOND_ORDER:
                return 1
            case ConeKind.SEMIDEFINITE:
                return int(self.parameter)
            case ConeKind.EXPONENTIAL | ConeKind.POWER:
                return 3


@dataclasses.dataclass(frozen=True)
class ConeProduct:
    """K = {0}^zero × R₊^nonnegative × Q^d₁ × … × S₊^k₁ × … × exp × … × pow_α₁ × ….

    Rows are in exactly this order.

    Attributes:
        zero: number of equality rows.
        nonnegative: number of linear inequality rows.
        second_order: dimension of each second-order cone {(t, z) : ‖z‖₂ ≤ t}, `t` first.
        semidefinite: order k of each cone of symmetric positive semidefinite matrices, which
            owns k(k+1)/2 rows: svec, the lower triangle column by column, off-diagonals × √2.
        exponential: number of exponential cones cl{(r, s, t) : s > 0, s·exp(r/s) ≤ t}.
        power: the exponent α of each power cone {(x, y, z) : x^α y^(1−α) ≥ |z|, x, y ≥ 0}.
    """

    zero: int = 0
    nonnegative: int = 0
    second_order: tuple[int, ...] = ()
    semidefinite: tuple[int, ...] = ()
    exponential: int = 0
    power: tuple[float, ...] = ()

    @functools.cached_property
    def curved(self) -> tuple[CurvedCone, ...]:
        """Every cone behind the linear rows, in order."""
        kinds = [(ConeKind.SECOND_ORDER, d, 0.0) for d in self.second_order]
        kinds += [(ConeKind.SEMIDEFINITE, k * (k + 1) // 2, float(k)) for k in self.semidefinite]
        kinds += [(ConeKind.EXPONENTIAL, 3, 0.0)] * self.exponential
        kinds += [(ConeKind.POWER, 3, alpha) for alpha in self.power]
        cones: list[CurvedCone] = []
        start = self.num_linear
        for kind, size, parameter in kinds:
            cones.append(CurvedCone(kind, slice(start, start + size), parameter))
            start += size
        return tuple(cones)

    @functools.cached_property
    def size(self) -> int:
        """Number of rows m."""
        return self.num_linear + sum(cone.size for cone in self.curved)

    @property
    def num_linear(self) -> int:
        """Number of rows in the zero and nonnegative cones, which come first."""
        return self.zero + self.nonnegative

    @property
    def degree(self) -> int:
        """Barrier parameter ν: one for each inequality row, and those of the curved cones."""
        return self.nonnegative + sum(cone.degree for cone in self.curved)

    def with_linear(self, zero: int, nonnegative: int) -> ConeProduct:
        """Return the product with other numbers of linear rows and the same curved cones."""
        return dataclasses.replace(self, zero=zero, nonnegative=nonnegative)
