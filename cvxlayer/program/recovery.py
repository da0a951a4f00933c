# SPDX-License-Identifier: Apache-2.0
"""How each variable and each dual of the user comes back from the canonical solution."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayer.program.parameters import OutputSpec
from cvxlayer.program.parametric import AffineAdjoint, AffineMap
from cvxlayer.program.solution import ConeSolution
from cvxlayer.program.sparse_map import SparseMap, Term, apply_adjoints, apply_maps


@dataclasses.dataclass(frozen=True, eq=False)
class RecoveredOutput:
    """One output, in user scaling and C order, as an affine map of x, y and θ, or its exponential.

    Nearly always it just picks entries of x (a variable) or of y (a dual).

    Attributes:
        spec: its name and shape.
        from_x, from_y: linear maps from x and y, canonical scaling; None when zero.
        from_theta: the rest; None when zero.
        is_log: whether that is the logarithm of the output: variables of geometric programs.
    """

    spec: OutputSpec
    from_x: SparseMap | None
    from_y: SparseMap | None
    from_theta: AffineMap | None
    is_log: bool = False

    def read(
        self, x: np.ndarray, y: np.ndarray, theta: Sequence[np.ndarray], threads: int = 1
    ) -> Float[np.ndarray, "batch size"]:
        """Return the output of each instance as a new array.

        The adjoint, of the affine map alone: those of `from_x` and `from_y`, and `AffineAdjoint`
        for `from_theta`.
        """
        rest = None if self.from_theta is None else self.from_theta.evaluate(theta, threads)
        terms: list[Term] = []
        if self.from_x is not None:
            terms.append((self.from_x, x))
        if self.from_y is not None:
            terms.append((self.from_y, y))
        if terms:
            result = apply_maps(terms, rest, len(x), threads)
        else:
            result = np.zeros((len(x), self.spec.size))
            result += 0.0 if rest is None else rest
        return np.exp(result) if self.is_log else result

    def read_solved(
        self,
        cone: ConeSolution,
        theta: Sequence[np.ndarray],
        failed: Bool[np.ndarray, " batch"] | None,
        threads: int = 1,
    ) -> Float[np.ndarray, "batch size"]:
        """Return the output of each instance, NaN in failed rows (None: there are none)."""
        rows = self.read(cone.x, cone.y, theta, threads)
        if failed is not None:
            rows[failed] = np.nan
        return rows


@dataclasses.dataclass(frozen=True, eq=False)
class ConstraintRows:
    """What each row of a reduced cone program comes from, in the user's terms.

    Attributes:
        names: the constraints of the problem in their order, each by its label or expression; the
            objective; and what its variables were declared as.
        of_row: for each row, a place in `names`.
    """

    names: tuple[str, ...]
    of_row: Int[np.ndarray, " m"]


@dataclasses.dataclass(frozen=True, eq=False)
class Recovery:
    """From the canonical solution back to the user's problem.

    Attributes:
        outputs: the outputs asked for, in call order.
        duals: every dual variable of every constraint of the problem.
        dual_positions: for each constraint, by its CVXPY id, its places in `duals`; empty for
            those whose duals are not known, because CVXPY replaces them by an approximation.
        constraint_ids: CVXPY ids of the constraints, in the problem's order.
        sign: +1 to minimize, −1 to maximize: user objective = sign × canonical objective.
        constraint_rows: which constraint each row of the cone program comes from.
        is_log_objective: whether the canonical objective is the logarithm of the user's.
    """

    outputs: tuple[RecoveredOutput, ...]
    duals: tuple[RecoveredOutput, ...]
    dual_positions: dict[int, tuple[int, ...]]
    constraint_ids: tuple[int, ...]
    sign: float
    constraint_rows: ConstraintRows
    is_log_objective: bool = False

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
            places = self.dual_positions[self.constraint_ids[constraint]]
        else:
            places = self.dual_positions.get(getattr(constraint, "id", -1))
        if places is None:
            raise ValueError(
                f"The constraint `{constraint}` is not one of the problem's. Pass a constraint "
                "object of the problem that was compiled, or its position in `constraints`."
            )
        if not places:
            raise ValueError(
                f"The constraint `{constraint}` has no dual: CVXPY replaces it by an "
                "approximation. Write it with an exact cone if you need one."
            )
        return places


def pull_back_outputs(
    cotangents: Sequence[tuple[RecoveredOutput, np.ndarray]],
    cone: ConeSolution,
    theta: Sequence[np.ndarray],
    failed: Bool[np.ndarray, " batch"] | None,
    adjoint: AffineAdjoint,
    threads: int = 1,
) -> tuple[Float[np.ndarray, "batch n"] | None, Float[np.ndarray, "batch m"] | None]:
    """Return the cotangents of x and y (None where zero); add those of θ to `adjoint`.

    The adjoint of `read_solved`. Failed rows are zero, whatever their cotangents hold.
    """
    to_x: list[Term] = []
    to_y: list[Term] = []
    for output, cotangent in cotangents:
        if failed is not None:
            cotangent = np.where(failed[:, None], 0.0, cotangent)
        if output.is_log:
            own = output.read(cone.x, cone.y, theta, threads)
            if failed is not None:
                own[failed] = 0.0
            cotangent = cotangent * own
        if output.from_x is not None:
            to_x.append((output.from_x, cotangent))
        if output.from_y is not None:
            to_y.append((output.from_y, cotangent))
        if output.from_theta is not None:
            adjoint.add(output.from_theta, cotangent)
    size = len(cone.x)
    return (
        apply_adjoints(to_x, size, threads) if to_x else None,
        apply_adjoints(to_y, size, threads) if to_y else None,
    )
