# SPDX-License-Identifier: Apache-2.0
"""Newton's method with a backtracking line search, row by row."""

from __future__ import annotations

import dataclasses

from cvxlayer.differentiate.array_ops import Array, ArrayOps, Arrays
from cvxlayer.differentiate.linear_operator import AbstractLinearSolver
from cvxlayer.differentiate.linear_solvers import choose_linear_solver
from cvxlayer.families.iteration import AbstractSolver, BoundEquation

# Of the decrease that the linear model promises, the part that has to come true.
SUFFICIENT_DECREASE = 1e-4


@dataclasses.dataclass(frozen=True)
class Newton(AbstractSolver):
    """Newton's method: z ← z − t A⁻¹ F(z, θ), quadratic near the solution.

    Args:
        tolerance: on max|F| / (1 + max|z|), row by row; None for 1e-11 in float64.
        max_iterations: steps before a row counts as failed.
        linear_solver: None chooses by structure and size.
        max_halvings: of the step length t, until ‖F‖ (for `argmin`, the objective) falls.

    Source:
        Nocedal & Wright, Numerical Optimization (2006), sections 3.1 and 11.2.
    """

    tolerance: float | None = None
    max_iterations: int = 100
    linear_solver: AbstractLinearSolver | None = None
    max_halvings: int = 30

    def start(self, bound: BoundEquation, z: Array) -> Arrays:
        """Return (z, F)."""
        return z, bound.residual(z)

    def step(self, bound: BoundEquation, state: Arrays) -> Arrays:
        """Return (z, F) one step on."""
        z, residual = state
        numpy = bound.ops.numpy
        operator = bound.linearize(z)
        solver = self.linear_solver or choose_linear_solver(operator.structure, operator.size)
        direction = -solver.solve(operator, residual[None])[0][0]
        if bound.helper("objective") is not None:
            # Where the Hessian is not positive definite there is always steepest descent.
            slope = numpy.sum(direction * residual, -1)[:, None]
            is_descent = numpy.isfinite(slope) & (slope < 0)
            direction = numpy.where(is_descent, direction, -residual)
        z = z + search(bound, z, residual, direction, self.max_halvings) * direction
        return z, bound.residual(z)


def search(
    bound: BoundEquation, z: Array, residual: Array, direction: Array, max_halvings: int
) -> Array:
    """Return the step length of each row, (batch, 1): halved until the merit falls enough.

    The merit is the objective where there is one (`residual` is its gradient), else ‖F‖.
    The length counts as a constant in derivatives.
    """
    ops, numpy = bound.ops, bound.ops.numpy
    bound = bound.detached()
    z, residual, direction = (ops.constant(array) for array in (z, residual, direction))
    objective = bound.helper("objective")
    if objective is None:
        before = _length(ops, residual)
        slope, rounding = -before, 0.0 * before
    else:
        before = objective(z)
        slope = numpy.sum(residual * direction, -1)
        # Close to the minimum the decrease is smaller than what rounding does.
        rounding = 10.0 * numpy.finfo(z.dtype).eps * (1.0 + numpy.abs(before))

    def is_too_long(state: Arrays) -> Array:
        t, count = state
        point = z + t[:, None] * direction
        after = _length(ops, bound.residual(point)) if objective is None else objective(point)
        is_enough = after <= before + SUFFICIENT_DECREASE * t * slope + rounding
        return ~is_enough & (count < max_halvings)

    def halve(state: Arrays) -> Arrays:
        t, count = state
        return numpy.where(is_too_long(state), 0.5 * t, t), count + 1.0

    one = numpy.ones_like(z[:, 0])
    t, _ = ops.while_loop(lambda state: numpy.any(is_too_long(state)), halve, (one, 0.0 * one))
    return t[:, None]


def _length(ops: ArrayOps, vectors: Array) -> Array:
    return ops.numpy.sqrt(ops.numpy.sum(vectors * vectors, -1))
