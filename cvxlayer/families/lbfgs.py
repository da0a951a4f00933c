# SPDX-License-Identifier: Apache-2.0
"""Limited-memory BFGS, row by row: minimization in many unknowns."""

from __future__ import annotations

import dataclasses

from cvxlayer.differentiate.array_ops import Array, Arrays
from cvxlayer.errors import OptionError
from cvxlayer.families.iteration import AbstractSolver, BoundEquation
from cvxlayer.families.newton import search


@dataclasses.dataclass(frozen=True)
class LBFGS(AbstractSolver):
    """Limited-memory BFGS with a backtracking line search, for unconstrained `argmin`.

    Args:
        tolerance: on max|∇f| / (1 + max|x|), row by row; None for 1e-11 in float64.
        max_iterations: steps before a row counts as failed.
        memory: how many earlier steps make up the metric.
        max_halvings: of the step length, until the objective falls.

    Source:
        Nocedal & Wright, Numerical Optimization (2006), algorithm 7.4.
    """

    tolerance: float | None = None
    max_iterations: int = 1000
    memory: int = 10
    max_halvings: int = 30

    def start(self, bound: BoundEquation, z: Array) -> Arrays:
        """Return (z, gradient, earlier steps, their changes of the gradient).

        Raises:
            OptionError: there is no objective to search along.
        """
        if bound.helper("objective") is None:
            raise OptionError(
                "`LBFGS()` minimizes; it is for `argmin` without constraints. Use `Newton()` or "
                "`Anderson()`."
            )
        history = bound.ops.numpy.stack([bound.ops.numpy.zeros_like(z)] * self.memory, 1)
        return z, bound.residual(z), history, history

    def step(self, bound: BoundEquation, state: Arrays) -> Arrays:
        """Return the state one step on."""
        z, gradient, steps, changes = state
        numpy = bound.ops.numpy
        direction = -self._apply_metric(bound, gradient, steps, changes)
        length = search(bound, z, gradient, direction, self.max_halvings)
        new = z + length * direction
        new_gradient = bound.residual(new)
        step, change = new - z, new_gradient - gradient
        # Only positive curvature keeps the metric positive definite.
        is_curved = _dot(bound, step, change) > 1e-12 * _dot(bound, change, change)
        is_curved = is_curved[..., None]
        later_steps = numpy.concatenate([steps[:, 1:], step[:, None]], 1)
        later_changes = numpy.concatenate([changes[:, 1:], change[:, None]], 1)
        steps = numpy.where(is_curved, later_steps, steps)
        changes = numpy.where(is_curved, later_changes, changes)
        return new, new_gradient, steps, changes

    def _apply_metric(
        self, bound: BoundEquation, gradient: Array, steps: Array, changes: Array
    ) -> Array:
        """Return H g with the inverse Hessian H that earlier steps suggest."""
        numpy = bound.ops.numpy
        curvature = numpy.sum(steps * changes, -1)
        is_absent = curvature == 0
        one = numpy.ones_like(curvature)
        rho = numpy.where(is_absent, 0.0 * one, one / numpy.where(is_absent, one, curvature))
        q = gradient
        weights: list[Array] = []
        for i in reversed(range(self.memory)):
            weights.append(rho[:, i : i + 1] * _dot(bound, steps[:, i], q))
            q = q - weights[-1] * changes[:, i]
        # Without history the first step has at most unit length.
        square = _dot(bound, changes[:, -1], changes[:, -1])
        size = numpy.sqrt(_dot(bound, gradient, gradient))
        first = 1.0 / numpy.maximum(size, numpy.ones_like(size))
        safe = numpy.where(square == 0, numpy.ones_like(square), square)
        q = q * numpy.where(square == 0, first, curvature[:, -1:] / safe)
        for i, weight in zip(range(self.memory), reversed(weights), strict=True):
            q = q + steps[:, i] * (weight - rho[:, i : i + 1] * _dot(bound, changes[:, i], q))
        return q


def _dot(bound: BoundEquation, left: Array, right: Array) -> Array:
    return bound.ops.numpy.sum(left * right, -1)[:, None]
