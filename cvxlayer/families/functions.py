# SPDX-License-Identifier: Apache-2.0
"""`root`, `fixed_point` and `argmin`: what `cvxlayer.torch` and `cvxlayer.jax` export alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cvxlayer.differentiate.array_ops import ArrayOps
from cvxlayer.differentiate.linear_solvers import LARGEST_DENSE
from cvxlayer.families.anderson import Anderson
from cvxlayer.families.conditions import (
    AbstractCondition,
    FixedPointCondition,
    Form,
    MinimumCondition,
    RootCondition,
)
from cvxlayer.families.implicit_function import ImplicitFunction, Options
from cvxlayer.families.interior_point import InteriorPoint
from cvxlayer.families.iteration import AbstractSolver
from cvxlayer.families.lbfgs import LBFGS
from cvxlayer.families.newton import Newton


class Families:
    """The implicit functions of one framework.

    Each of `root`, `fixed_point` and `argmin` takes a user's function and returns an
    `ImplicitFunction`, called as `(initial, *theta)`. Left without a function it returns a
    decorator. They share these arguments:

    - `solver`: a solver such as `Newton()`, or a function `(initial, *theta) ↦ solution` of
      your own, which may use anything; None for the default.
    - `backward`: `Exact()` (the default), `Neumann(k)`, `Phantom(tau, k)`, `OneStep()` or
      `Unroll(last=k)`.
    - `tolerance`: on max|F| / (1 + max|z|) of each instance; None for that of the solver,
      about 1e-11 in float64, and 1e-6 for your own.
    - `batch_dims`: how many first dimensions of every array in the unknown are independent
      instances. Instances converge by themselves and have linear systems of their own.
    - `on_failure`: "raise" a `ConvergenceError`, or "nan": rows that failed are NaN and give
      exactly zero gradients.
    - `check`: on every call, hold the derivative along one random direction against finite
      differences (for `Exact`) and jvp against vjp.
    """

    def __init__(self, ops: ArrayOps) -> None:
        self._ops = ops

    def root(
        self,
        residual: Callable[..., Any] | None = None,
        *,
        solver: Any = None,
        backward: Any = None,
        tolerance: float | None = None,
        batch_dims: int = 0,
        on_failure: str = "raise",
        check: bool = False,
    ) -> Any:
        """Make z with `residual(z, *theta) = 0` a differentiable function of theta.

        Args:
            residual: of (z, *theta); returns a pytree of the structure and shapes of z.
            solver: None for `Newton()`.
            backward: see the class, as the other arguments.
            tolerance: see the class.
            batch_dims: see the class.
            on_failure: see the class.
            check: see the class.

        Returns:
            An `ImplicitFunction`; a decorator that makes one if `residual` is left out.

        Raises:
            OptionError: an option is not valid.
        """
        options = Options.read(solver, backward, tolerance, batch_dims, on_failure, check)

        def make(residual: Callable[..., Any]) -> ImplicitFunction:
            return self._make(RootCondition(residual), lambda form: Newton(), options)

        return make if residual is None else make(residual)

    def fixed_point(
        self,
        function: Callable[..., Any] | None = None,
        *,
        solver: Any = None,
        backward: Any = None,
        tolerance: float | None = None,
        batch_dims: int = 0,
        on_failure: str = "raise",
        check: bool = False,
    ) -> Any:
        """Make z with `z = function(z, *theta)` a differentiable function of theta.

        Args:
            function: of (z, *theta); returns a pytree of the structure and shapes of z.
            solver: None for `Anderson()`.
            backward: see the class, as the other arguments.
            tolerance: see the class.
            batch_dims: see the class.
            on_failure: see the class.
            check: see the class.

        Returns:
            An `ImplicitFunction`; a decorator that makes one if `function` is left out.

        Raises:
            OptionError: an option is not valid.
        """
        options = Options.read(solver, backward, tolerance, batch_dims, on_failure, check)

        def make(function: Callable[..., Any]) -> ImplicitFunction:
            return self._make(FixedPointCondition(function), lambda form: Anderson(), options)

        return make if function is None else make(function)

    def argmin(
        self,
        objective: Callable[..., Any] | None = None,
        *,
        equality: Callable[..., Any] | None = None,
        inequality: Callable[..., Any] | None = None,
        solver: Any = None,
        backward: Any = None,
        tolerance: float | None = None,
        batch_dims: int = 0,
        on_failure: str = "raise",
        check: bool = False,
    ) -> Any:
        """Make the minimizer of `objective(x, *theta)` a differentiable function of theta.

        Args:
            objective: of (x, *theta); returns one number for each instance.
            equality: of (x, *theta), zero at the solution: a pytree of arrays that begin
                with the batch.
            inequality: of (x, *theta), at most zero at the solution; as `equality`.
            solver: None for `InteriorPoint()` with inequalities, `Newton()` up to 512
                unknowns, `LBFGS()` beyond. With constraints, a function of your own returns
                (x, ν, λ), without the multipliers of a kind that is absent.
            backward: see the class, as the other arguments.
            tolerance: see the class.
            batch_dims: see the class.
            on_failure: see the class.
            check: see the class.

        Returns:
            An `ImplicitFunction`; a decorator that makes one if `objective` is left out.
            Its `solve` also returns the multipliers.

        Raises:
            OptionError: an option is not valid.

        Notes:
            The derivative exists where the minimizer is strict, gradients of active
            constraints are independent and their multipliers positive. The problem need not
            be convex, but the solvers find stationary points.
        """
        options = Options.read(solver, backward, tolerance, batch_dims, on_failure, check)

        def make(objective: Callable[..., Any]) -> ImplicitFunction:
            condition = MinimumCondition(objective, equality, inequality)
            return self._make(condition, _default_minimizer, options)

        return make if objective is None else make(objective)

    def _make(
        self,
        condition: AbstractCondition,
        default: Callable[[Form], AbstractSolver],
        options: Options,
    ) -> ImplicitFunction:
        return ImplicitFunction(self._ops, condition, default, options)


def _default_minimizer(form: Form) -> AbstractSolver:
    if form.num_inequalities:
        return InteriorPoint()
    if form.num_equalities or form.size <= LARGEST_DENSE:
        return Newton()
    return LBFGS()
