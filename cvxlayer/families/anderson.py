# SPDX-License-Identifier: Apache-2.0
"""Anderson acceleration of a fixed-point iteration, row by row."""

from __future__ import annotations

import dataclasses

from cvxlayer.differentiate.array_ops import Array, Arrays
from cvxlayer.families.iteration import AbstractSolver, BoundEquation


@dataclasses.dataclass(frozen=True)
class Anderson(AbstractSolver):
    """Anderson acceleration of z ← z − F(z, θ).

    Args:
        tolerance: on max|F| / (1 + max|z|), row by row; None for 1e-11 in float64.
        max_iterations: steps before a row counts as failed.
        memory: how many earlier steps are combined.
        damping: the length of the plain step that is mixed in.

    Source:
        Walker & Ni, SIAM J. Numer. Anal. 49 (2011), equation 2.2 (unconstrained form).
    """

    tolerance: float | None = None
    max_iterations: int = 500
    memory: int = 5
    damping: float = 1.0

    def start(self, bound: BoundEquation, z: Array) -> Arrays:
        """Return (z, F, differences of z, differences of F)."""
        history = bound.ops.numpy.stack([bound.ops.numpy.zeros_like(z)] * self.memory, 1)
        return z, bound.residual(z), history, history

    def step(self, bound: BoundEquation, state: Arrays) -> Arrays:
        """Return the state one step on."""
        z, residual, dz, df = state
        numpy = bound.ops.numpy
        # Differences of unit length; those not there yet are zero and take no part.
        square = numpy.sum(df * df, -1)
        is_absent = square == 0
        scale = 1.0 / numpy.sqrt(numpy.where(is_absent, numpy.ones_like(square), square))
        unit = df * scale[..., None]
        gram = numpy.einsum("bkn,bln->bkl", unit, unit)
        right = numpy.einsum("bkn,bn->bk", unit, residual)
        # Normal equations with a ridge: γ need not be accurate, z is judged by F alone.
        identity = bound.ops.eye(self.memory, z)
        ridge = 10.0 * numpy.finfo(z.dtype).eps + numpy.where(is_absent, 1.0, 0.0 * square)
        gamma = bound.ops.solve(gram + ridge[..., None] * identity, right[..., None])[..., 0]
        correction = dz * scale[..., None] - self.damping * unit
        new = z - self.damping * residual - numpy.einsum("bk,bkn->bn", gamma, correction)
        new_residual = bound.residual(new)
        dz = numpy.concatenate([dz[:, 1:], (new - z)[:, None]], 1)
        df = numpy.concatenate([df[:, 1:], (new_residual - residual)[:, None]], 1)
        return new, new_residual, dz, df
