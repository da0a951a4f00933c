# SPDX-License-Identifier: Apache-2.0
"""How far a point is from optimal, measured by ourselves and not by the solver that made it."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class RowResiduals:
    """The three residuals of one instance in canonical scaling, each with its scale.

    Attributes:
        primal, dual, gap: ‖Ax + s − b‖∞, ‖Px + Aᵀy + q‖∞, |xᵀPx + qᵀx + bᵀy|.
        primal_scale, dual_scale, gap_scale: the largest term in each.
    """

    primal: float
    dual: float
    gap: float
    primal_scale: float = 0.0
    dual_scale: float = 0.0
    gap_scale: float = 0.0

    def are_below(self, eps_abs: float, eps_rel: float) -> bool:
        """Whether each residual is below `eps_abs + eps_rel * scale`."""
        return (
            self.primal <= eps_abs + eps_rel * self.primal_scale
            and self.dual <= eps_abs + eps_rel * self.dual_scale
            and self.gap <= eps_abs + eps_rel * self.gap_scale
        )


UNKNOWN = RowResiduals(np.nan, np.nan, np.nan)


def measure(
    instance: tuple[sp.csc_array, np.ndarray, sp.csc_array, np.ndarray],
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " m"],
    s: Float[np.ndarray, " m"],
) -> RowResiduals:
    """Measure the residuals of a point of one instance.

    Args:
        instance: (P upper triangle, q, A, b), as from `ConeProgramBatch.instance`.
        x: primal point, canonical scaling.
        y: dual point.
        s: slack.

    Returns:
        The residuals; rows with an infinite right-hand side constrain nothing and are left out.
    """
    P, q, A, b = instance
    is_present = np.isfinite(b)
    Px = P @ x + sp.triu(P, 1).T @ x
    Aty = A.T @ y
    Ax, s, b, y = (A @ x)[is_present], s[is_present], b[is_present], y[is_present]
    quadratic, linear, dual_linear = float(x @ Px), float(q @ x), float(b @ y)
    return RowResiduals(
        primal=_largest(Ax + s - b),
        dual=_largest(Px + Aty + q),
        gap=abs(quadratic + linear + dual_linear),
        primal_scale=max(_largest(Ax), _largest(s), _largest(b)),
        dual_scale=max(_largest(Px), _largest(Aty), _largest(q)),
        gap_scale=max(abs(quadratic), abs(linear), abs(dual_linear)),
    )


def _largest(vector: np.ndarray) -> float:
    return float(np.max(np.abs(vector), initial=0.0))
