# SPDX-License-Identifier: Apache-2.0
"""Whether the derivative of each solution exists and is unique, and if not, why not."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import numpy as np


class DerivativeTest(enum.IntFlag):
    """The tests that a derivative has to pass; in `DerivativeReport.failed`, those it did not.

    SOLUTION: the row has a solution.
    STRICT_COMPLEMENTARITY: no constraint is on the verge of becoming active or inactive in a way
        that the outputs and the parameters would notice. Where it fails, the solution map has a
        kink, and the layer's derivative is that of one side.
    CONSISTENCY: the outputs do not depend on a part of the solution that is not unique.
    DUAL_UNIQUENESS: where multipliers are not unique, the parameters do not notice. Where it
        fails, more constraints meet than needed and move apart with the parameters: also a kink.
    """

    SOLUTION = 1
    STRICT_COMPLEMENTARITY = 2
    CONSISTENCY = 4
    DUAL_UNIQUENESS = 8


@dataclasses.dataclass(frozen=True, eq=False)
class DerivativeReport:
    """How regular the solutions of a call are, for the outputs and the parameters of its layer.

    Arrays of the framework of the call, in its batch shape. All figures are measured in the
    equilibrated cone program, where they have no units.

    Attributes:
        margin: how far the solution is from the nearest point where a constraint that matters
            becomes active or inactive, relative to its size; infinite without inequalities.
        condition: estimate of ‖K‖·‖K⁺‖ of the matrix of the derivative's linear system; infinite
            where it is singular.
        residual: relative residual of the optimality conditions at the point of differentiation.
        failed: `DerivativeTest` flags of the tests that failed; 0 where the derivative exists and
            is unique.
        involved: which constraints make tests fail, (*batch, constraints).
        names: of these constraints: those of the problem in order, by label or expression; the
            objective; and what variables were declared as.
    """

    margin: Any
    condition: Any
    residual: Any
    failed: Any
    involved: Any
    names: tuple[str, ...]

    @property
    def exists(self) -> Any:
        """Whether the derivative exists and is unique, in the batch shape."""
        return self.failed == 0

    @property
    def has_kink(self) -> Any:
        """Whether it is that of one side only."""
        kinks = DerivativeTest.STRICT_COMPLEMENTARITY | DerivativeTest.DUAL_UNIQUENESS
        return (self.failed & int(kinks)) != 0

    def tests_failed(self, index: Any = ()) -> DerivativeTest:
        """Return the tests that one row of the batch failed, as flags.

        Args:
            index: of the row; `()` without a batch.
        """
        return DerivativeTest(int(self.failed[index]))

    def constraints(self, index: Any = ()) -> tuple[str, ...]:
        """Return the constraints that make one row of the batch fail, in the user's terms.

        Args:
            index: of the row; `()` without a batch.
        """
        involved = self.involved[index].tolist()
        return tuple(name for name, is_in in zip(self.names, involved, strict=True) if is_in)

    def converted(self, convert: Callable[[np.ndarray], Any]) -> DerivativeReport:
        """Return the report with arrays of another framework."""
        return DerivativeReport(
            convert(self.margin),
            convert(self.condition),
            convert(self.residual),
            convert(self.failed),
            convert(self.involved),
            self.names,
        )
