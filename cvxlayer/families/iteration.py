# SPDX-License-Identifier: Apache-2.0
"""The loop of every iterative solver, and when it has converged.

A solver is a start and a step. Rows are independent: one that has converged keeps its
values while the others go on, so that a batch equals its single solves.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from cvxlayer.differentiate.array_ops import Array, ArrayOps, Arrays, RowFunction
from cvxlayer.differentiate.implicit import Equation, linear_operator
from cvxlayer.differentiate.linear_operator import LinearOperator


@dataclasses.dataclass(frozen=True, eq=False)
class BoundEquation:
    """An equation at one θ, as solvers see it.

    Attributes:
        equation: F.
        arrays: θ.
    """

    equation: Equation
    arrays: Arrays

    @property
    def ops(self) -> ArrayOps:
        """The framework."""
        return self.equation.ops

    def residual(self, z: Array) -> Array:
        """Return F(z, θ), (batch, n)."""
        return self.equation.residual(z, self.arrays)

    def helper(self, name: str) -> Callable[[Array], Array] | None:
        """Return a further function of z, such as the objective, or None."""
        function: RowFunction | None = self.equation.helpers.get(name)
        return None if function is None else lambda z: function(z, self.arrays)

    def linearize(self, z: Array) -> LinearOperator:
        """Return ∂F/∂z at z."""
        return linear_operator(self.equation, False, z, self.arrays)

    def detached(self) -> BoundEquation:
        """Return the same without derivatives with respect to θ."""
        return BoundEquation(self.equation, tuple(self.ops.constant(a) for a in self.arrays))


class AbstractSolver(ABC):
    """An iterative solver of F(z, θ) = 0.

    Its state is a tuple of arrays whose first dimension is that of the rows; the first two
    are z and F(z, θ).
    """

    tolerance: float | None
    max_iterations: int

    @abstractmethod
    def start(self, bound: BoundEquation, z: Array) -> Arrays:
        """Return the state at an initial guess."""

    @abstractmethod
    def step(self, bound: BoundEquation, state: Arrays) -> Arrays:
        """Return the next state."""


@dataclasses.dataclass(frozen=True)
class Picard(AbstractSolver):
    """Plain iteration z ← z − damping · F(z, θ): for a fixed point, z ← f(z, θ).

    Args:
        tolerance: on max|F| / (1 + max|z|), row by row; None for 1e-11 in float64.
        max_iterations: steps before a row counts as failed.
        damping: the step length.
    """

    tolerance: float | None = None
    max_iterations: int = 1000
    damping: float = 1.0

    def start(self, bound: BoundEquation, z: Array) -> Arrays:
        """Return (z, F)."""
        return z, bound.residual(z)

    def step(self, bound: BoundEquation, state: Arrays) -> Arrays:
        """Return (z, F) one step on."""
        z = state[0] - self.damping * state[1]
        return z, bound.residual(z)


def measure(ops: ArrayOps, z: Array, residual: Array) -> Array:
    """Return max|F| / (1 + max|z|) of each row: what is held against the tolerance."""
    numpy = ops.numpy
    return numpy.amax(numpy.abs(residual), -1) / (1.0 + numpy.amax(numpy.abs(z), -1))


def resolve_tolerance(ops: ArrayOps, tolerance: float | None, dtype: Any) -> float:
    """Return the tolerance; by default about 1e-11 in float64 and 1e-5 in float32."""
    return float(ops.numpy.finfo(dtype).eps) ** 0.7 if tolerance is None else tolerance


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """A solver's loop over one equation."""

    solver: AbstractSolver
    bound: BoundEquation

    def start(self, z: Array) -> Arrays:
        """Return the carried arrays at an initial guess: the state, then the steps of each row."""
        ops = self.bound.ops
        return (*self.solver.start(self.bound, z), ops.numpy.zeros_like(z[:, 0]))

    def is_running(self, carry: Arrays) -> Array:
        """Return which rows have neither converged, nor blown up, nor used up their steps."""
        numpy = self.bound.ops.numpy
        error = measure(self.bound.ops, carry[0], carry[1])
        goal = resolve_tolerance(self.bound.ops, self.solver.tolerance, carry[0].dtype)
        is_far = (error > goal) & numpy.isfinite(error)
        return is_far & (carry[-1] < self.solver.max_iterations)

    def is_any_running(self, carry: Arrays) -> Array:
        """Return whether the loop goes on, a boolean scalar."""
        return self.bound.ops.numpy.any(self.is_running(carry))

    def step(self, carry: Arrays) -> Arrays:
        """Return the carried arrays one step on; rows that are done keep theirs."""
        return self._step_rows(carry, self.is_running(carry))

    def _step_rows(self, carry: Arrays, running: Array) -> Arrays:
        new = (*self.solver.step(self.bound, carry[:-1]), carry[-1] + 1.0)
        return tuple(
            self.bound.ops.numpy.where(_like(running, n), n, o)
            for n, o in zip(new, carry, strict=True)
        )

    def run(self, carry: Arrays) -> Arrays:
        """Return the carried arrays when no row is running; not to be differentiated."""
        return self.bound.ops.while_loop(self.is_any_running, self.step, carry)

    def run_until_last(self, z: Array, last: int) -> Arrays:
        """Return what is carried `last` steps before the end of each row's loop from z."""
        counts = self.run(self.start(z))[-1] - last
        return self.bound.ops.while_loop(
            lambda carry: self.bound.ops.numpy.any(carry[-1] < counts),
            lambda carry: self._step_rows(carry, carry[-1] < counts),
            self.start(z),
        )


def _like(flags: Array, array: Array) -> Array:
    """Return one flag for each row in a shape that broadcasts against an array."""
    return flags.reshape((flags.shape[0],) + (1,) * (array.ndim - 1))
