# SPDX-License-Identifier: Apache-2.0
"""Solutions: of a batch of cone programs, and of a layer's call."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayer.errors import Status
from cvxlayer.program.derivative_report import DerivativeReport
from cvxlayer.program.parametric import ParametricConeProgram

Array = TypeVar("Array")


class SolvedBy(enum.IntEnum):
    """Which pass of the native engine, or its fallback, produced a row.

    WARM_START: steps from the solution that was given to start from, which `iterations`
        counts.
    """

    FIRST_PASS = 0
    CAREFUL_PASS = 1
    FALLBACK = 2
    WARM_START = 3


@dataclasses.dataclass(frozen=True, eq=False)
class ConeSolution:
    """Primal-dual solutions of a `ConeProgramBatch`, in canonical scaling.

    For INFEASIBLE rows y is a certificate (Aᵀy = 0, bᵀy = −1, y ∈ K*); for UNBOUNDED
    rows (x, s) is one (P x = 0, A x + s = 0, qᵀx = −1, s ∈ K). Rows that ended otherwise
    without a solution hold the last iterate.

    Attributes:
        x, y, s: primal, dual, slack.
        status: `Status` codes.
        iterations: interior-point (or other) iterations of each row.
        primal_residual: ‖Ax + s − b‖∞ of each row.
        dual_residual: ‖Px + Aᵀy + q‖∞.
        gap: |xᵀPx + qᵀx + bᵀy|.
        solved_by: `SolvedBy` codes.
        is_active: for linear rows, 1 where the constraint was classified active by the
            scale-free rule (docs/derivations), 0 where inactive; −1 unknown.
        solve_seconds: wall time of the whole batch.
        scaling: the factors (d, e) of variables and rows, a row per instance or one for all,
            and of the cost, that the native engine solved in; None from other backends.
        adjoints: for each row, what a backend keeps for a derivative of its own; None if it
            has none.
    """

    x: Float[np.ndarray, "batch n"]
    y: Float[np.ndarray, "batch m"]
    s: Float[np.ndarray, "batch m"]
    status: Int[np.ndarray, " batch"]
    iterations: Int[np.ndarray, " batch"]
    primal_residual: Float[np.ndarray, " batch"]
    dual_residual: Float[np.ndarray, " batch"]
    gap: Float[np.ndarray, " batch"]
    solved_by: Int[np.ndarray, " batch"]
    is_active: Int[np.ndarray, "batch m"]
    solve_seconds: float
    scaling: tuple[Float[np.ndarray, "rows n+m"], Float[np.ndarray, " batch"]] | None = None
    adjoints: tuple[Any, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class LinearizationPoint:
    """Where the solution map of a `ConeProgramBatch` is differentiated, in canonical scaling.

    The solutions, polished, with the smooth piece of the solution map each lies on. Rows of
    instances without a solution are zero.

    Attributes:
        x: primal.
        y: ω Π(v), onto K*; zero on linear rows that are not active. On the central path that of
            the solver.
        v: y/ω − ω s with ω = `balance`; −∞ on linear rows whose bound is infinite.
        balance: ω, one on linear rows and on curved cones where y and s are of comparable size.
            Elsewhere positive and constant on the cone, so that v holds the digits of both.
        is_active: 1 on linear rows that hold with equality, none of which depends on the others,
            and 0 on those that do not; 0 on rows of curved cones. On linear rows it stands for
            DΠ(v).
        has_solution: which instances have one.
        residual: ‖(Px + Aᵀy + q, Ax + s − b)‖∞ of each instance in equilibrated scaling,
            relative to the largest number among x, v, q and b.
        smoothing: μ, in equilibrated scaling, of instances whose symmetric cones are taken on the
            central path, and 0 of others; None for 0 of all.
    """

    x: Float[np.ndarray, "batch n"]
    y: Float[np.ndarray, "batch m"]
    v: Float[np.ndarray, "batch m"]
    balance: Float[np.ndarray, "batch m"]
    is_active: Int[np.ndarray, "batch m"]
    has_solution: Bool[np.ndarray, " batch"]
    residual: Float[np.ndarray, " batch"]
    smoothing: Float[np.ndarray, " batch"] | None = None

    def select(self, rows: np.ndarray) -> LinearizationPoint:
        """Return the points of the given instances, in the given order."""
        return LinearizationPoint(
            self.x[rows],
            self.y[rows],
            self.v[rows],
            self.balance[rows],
            self.is_active[rows],
            self.has_solution[rows],
            self.residual[rows],
            None if self.smoothing is None else self.smoothing[rows],
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ConeSolutionTangent:
    """Tangents of the solutions of a batch, one row per instance, in canonical scaling.

    Attributes:
        x, y, s: as in `ConeSolution`. Rows without a solution are exactly zero.
        residual: relative residual of the linear system of each row; large where the
            derivative does not exist.
    """

    x: Float[np.ndarray, "batch n"]
    y: Float[np.ndarray, "batch m"]
    s: Float[np.ndarray, "batch m"]
    residual: Float[np.ndarray, " batch"]


@dataclasses.dataclass(frozen=True, eq=False)
class Residuals:
    """How far each row is from optimality, in the scaling of the canonical cone program.

    Arrays of the framework inside of its transforms, else NumPy's.

    Attributes:
        primal: ‖Ax + s − b‖∞, in the batch shape of the call.
        dual: ‖Px + Aᵀy + q‖∞.
        gap: |xᵀPx + qᵀx + bᵀy|.
    """

    primal: Any
    dual: Any
    gap: Any


@dataclasses.dataclass(frozen=True, eq=False)
class StartingPoint:
    """What a `Solution` keeps for a later call that starts from it.

    Attributes:
        program: what was solved.
        cone: its solutions, one row for each instance.
        batch_shape: the batch dimensions of the call.
    """

    program: ParametricConeProgram
    cone: ConeSolution
    batch_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Solution(Generic[Array]):
    """The whole answer of one call of a layer, in the user's terms.

    Arrays are of the framework, dtype and device of the inputs, and differentiable where
    the framework records gradients. Statistics are NumPy arrays in the batch shape; inside of
    transforms they are arrays of the framework, `solve_seconds` is NaN. Can be passed as
    `warm_start` to a later call of the same layer, of the same batch shape.

    Attributes:
        variables: the requested variables and duals, in call order, batch dimensions first.
        value: optimal objective; ±inf where a row is infeasible or unbounded, as in CVXPY.
        status: `Status` of each row: codes in an array, or one `Status` without a batch.
        iterations: iterations of each row.
        residuals: residuals of each row.
        solved_by: `SolvedBy` of each row: codes in an array, or one without a batch.
        solve_seconds: wall time of the solver for the whole batch.
    """

    variables: tuple[Array, ...]
    value: Array
    status: Status | Int[np.ndarray, "*batch"] | Array
    iterations: Int[np.ndarray, "*batch"] | Array
    residuals: Residuals
    solved_by: SolvedBy | Int[np.ndarray, "*batch"] | Array
    solve_seconds: float
    _find_dual: Callable[[Any], Array] = dataclasses.field(repr=False)
    _start: StartingPoint | None = dataclasses.field(repr=False)
    _judge: Callable[[], DerivativeReport] = dataclasses.field(repr=False)

    @property
    def starting_point(self) -> StartingPoint | None:
        """The solutions in canonical scaling, for `warm_start`; None inside of transforms."""
        return self._start

    @functools.cached_property
    def derivative(self) -> DerivativeReport:
        """Whether the derivative exists and is unique, row by row, with its figures.

        Computed when it is first asked for, at about the cost of a backward pass.

        Raises:
            UnsupportedDerivativeError: inside of PyTorch's transforms.
        """
        return self._judge()

    def dual(self, constraint: Any) -> Array:
        """Return the dual variable of a constraint of the problem; differentiable.

        Args:
            constraint: a constraint object of the problem the layer was built from.

        Returns:
            The dual, batch dimensions first, with the sign CVXPY gives it.

        Raises:
            ValueError: the problem has no such constraint.
        """
        return self._find_dual(constraint)
