# SPDX-License-Identifier: Apache-2.0
"""A dense primal-dual interior-point method for smooth convex programs, row by row."""

from __future__ import annotations

import dataclasses

from cvxlayer.differentiate.array_ops import Array, Arrays
from cvxlayer.differentiate.implicit import linear_operator
from cvxlayer.errors import OptionError
from cvxlayer.families.iteration import AbstractSolver, BoundEquation, measure


@dataclasses.dataclass(frozen=True)
class InteriorPoint(AbstractSolver):
    """Mehrotra's predictor and corrector on the KKT conditions, for `argmin` with inequalities.

    Args:
        tolerance: on max|F| / (1 + max|z|), row by row; None for 1e-11 in float64.
        max_iterations: steps before a row counts as failed.

    Notes:
        With slacks s > 0 and multipliers λ > 0, one step solves for (dx, dν, dλ)

            ∇²L dx + Dhᵀ dν + Dgᵀ dλ = −∇L,   Dh dx = −h,   Dg dx − (s/λ) dλ = r/λ − g − s

        with r = s λ first, and then r = s λ + ds dλ − σ μ. From every iterate one semismooth
        Newton step is tried on the conditions without slacks: near the solution it knows
        which constraints are active, and ends there to rounding. Starts need not be feasible.

    Source:
        Nocedal & Wright, Numerical Optimization (2006), sections 16.6 and 19.2.
    """

    tolerance: float | None = None
    max_iterations: int = 100

    def start(self, bound: BoundEquation, z: Array) -> Arrays:
        """Return (best z, its F, interior z, slacks).

        Raises:
            OptionError: there are no inequalities.
        """
        conditions = bound.helper("conditions")
        if conditions is None or not bound.equation.blocks[2]:
            raise OptionError(
                "`InteriorPoint()` is for `argmin(..., inequality=...)`. Use `Newton()` here."
            )
        numpy = bound.ops.numpy
        count = bound.equation.blocks[2]
        slope = conditions(z)[:, -count:]
        one = numpy.ones_like(slope)
        interior = numpy.concatenate([z[:, :-count], one], 1)
        return interior, bound.residual(interior), interior, numpy.maximum(-slope, one)

    def step(self, bound: BoundEquation, state: Arrays) -> Arrays:
        """Return the state one step on."""
        _, _, z, s = state
        z, s = _move(bound, z, s)
        ops, numpy = bound.ops, bound.ops.numpy
        residual = bound.residual(z)
        change = ops.solve(bound.linearize(z).dense(), residual[..., None])[..., 0]
        sharp = z - change
        sharp_residual = bound.residual(sharp)
        is_better = measure(ops, sharp, sharp_residual) < measure(ops, z, residual)
        best = numpy.where(is_better[:, None], sharp, z)
        return best, numpy.where(is_better[:, None], sharp_residual, residual), z, s


def _move(bound: BoundEquation, z: Array, s: Array) -> tuple[Array, Array]:
    """Return interior (z, s) after one predictor and corrector."""
    ops, numpy, equation = bound.ops, bound.ops.numpy, bound.equation
    count = equation.blocks[2]
    conditions = dataclasses.replace(equation, residual=equation.helpers["conditions"])
    values = conditions.residual(z, bound.arrays)
    matrix = linear_operator(conditions, False, z, bound.arrays).dense()
    lam = z[:, -count:]
    corner = numpy.concatenate([0.0 * z[:, :-count], s / lam], 1)
    matrix = matrix - corner[..., None] * ops.eye(z.shape[1], z)
    upper, lower = values[:, :-count], values[:, -count:] + s

    def solve(r: Array) -> tuple[Array, Array]:
        right = -numpy.concatenate([upper, lower - r / lam], 1)
        dz = ops.solve(matrix, right[..., None])[..., 0]
        return dz, -(r + s * dz[:, -count:]) / lam

    mu = numpy.mean(s * lam, -1)[:, None]
    dz, ds = solve(s * lam)
    dlam = dz[:, -count:]
    t = _longest(bound, (s, lam), (ds, dlam), 1.0)
    sigma = (numpy.mean((s + t * ds) * (lam + t * dlam), -1)[:, None] / mu) ** 3
    dz, ds = solve(s * lam + ds * dlam - sigma * mu)
    t = _longest(bound, (s, lam), (ds, dz[:, -count:]), 0.99)
    return z + t * dz, s + t * ds


def _longest(bound: BoundEquation, points: Arrays, steps: Arrays, part: float) -> Array:
    """Return the step of each row: a part of the way to the boundary, and at most one."""
    numpy = bound.ops.numpy
    longest = numpy.ones_like(points[0][:, :1])
    for point, step in zip(points, steps, strict=True):
        is_falling = step < 0
        ratio = part * point / numpy.where(is_falling, -step, numpy.ones_like(step))
        ratio = numpy.where(is_falling, ratio, numpy.ones_like(ratio))
        longest = numpy.minimum(longest, numpy.amin(ratio, -1)[:, None])
    return longest
