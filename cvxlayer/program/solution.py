# SPDX-License-Identifier: Apache-2.0
"""Solutions: of a batch of cone programs, and of a layer's call."""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
from jaxtyping import Float, Int


class SolvedBy(enum.IntEnum):
    """Which mode of which engine produced a row (shared with `native/hsde/status.hpp`)."""

    FIRST_PASS = 0
    CAREFUL_PASS = 1
    FALLBACK = 2


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
