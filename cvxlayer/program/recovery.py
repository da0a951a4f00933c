# SPDX-License-Identifier: Apache-2.0
"""Where each variable and each dual of the user lies in the canonical x and y."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxlayer.program.parameters import OutputSpec
from cvxlayer.program.sparse_map import SparseMap


@dataclasses.dataclass(frozen=True, eq=False)
class RecoveredOutput:
    """One output as a sparse linear map of x or of y.

    Attributes:
        spec: its name and shape.
        linear_map: from x (variables) or y (duals), canonical scaling, to the output in
            user scaling, flattened in C order.
    """

    spec: OutputSpec
    linear_map: SparseMap

    def read(self, x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, "batch size"]:
        """Return the output of each instance; its adjoint is `Recovery.adjoint`."""
        return self.linear_map(y if self.spec.is_dual else x)


@dataclasses.dataclass(frozen=True, eq=False)
class Recovery:
    """From the canonical solution back to the user's problem.

    Attributes:
        outputs: the outputs asked for, in call order.
        duals: every dual variable of every constraint of the problem.
        dual_positions: for each constraint, by its CVXPY id, its places in `duals`.
        constraint_ids: CVXPY ids of the constraints, in the problem's order.
        sign: +1 to minimize, −1 to maximize: user objective = sign × canonical objective.
    """

    outputs: tuple[RecoveredOutput, ...]
    duals: tuple[RecoveredOutput, ...]
    dual_positions: dict[int, tuple[int, ...]]
    constraint_ids: tuple[int, ...]
    sign: float

    def find_duals(self, constraint: Any) -> tuple[int, ...]:
        """Return the places in `duals` of a constraint, given itself or by its position.

        Raises:
            ValueError: the problem does not contain it.
        """
        if isinstance(constraint, int):
            if not 0 <= constraint < len(self.constraint_ids):
                raise ValueError(
                    f"There is no constraint {constraint}; the problem has "
                    f"{len(self.constraint_ids)}, counted from 0."
                )
            return self.dual_positions[self.constraint_ids[constraint]]
        places = self.dual_positions.get(getattr(constraint, "id", -1))
        if places is None:
            raise ValueError(
                f"The constraint `{constraint}` is not one of the problem's. Pass a constraint "
                "object of the problem that was compiled, or its position in `constraints`."
            )
        return places

    def adjoint(
        self,
        batch: int,
        num_variables: int,
        num_rows: int,
        outputs: Sequence[RecoveredOutput],
        outputs_bar: Sequence[np.ndarray | None],
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return the cotangents of x and y (None where zero) of some outputs' cotangents."""
        x_bar: np.ndarray | None = None
        y_bar: np.ndarray | None = None
        for output, output_bar in zip(outputs, outputs_bar, strict=True):
            if output_bar is None:
                continue
            if output.spec.is_dual:
                y_bar = np.zeros((batch, num_rows)) if y_bar is None else y_bar
                output.linear_map.add_adjoint_to(y_bar, output_bar)
            else:
                x_bar = np.zeros((batch, num_variables)) if x_bar is None else x_bar
                output.linear_map.add_adjoint_to(x_bar, output_bar)
        return x_bar, y_bar
