# SPDX-License-Identifier: Apache-2.0
"""Whether several constraints on the verge, together, make the outputs change direction.

As the parameters move along dθ, each constraint that is on the verge either stays as it is, with a
slack or multiplier t = h + M z ≥ 0, or changes sides, with z > 0 for its counterpart. That is a
linear complementarity problem, and R z is what the outputs change by on top of the derivative of
one side. The outputs have a derivative where R z is linear in dθ.
"""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float

# Directions in which linearity is tried; each is also taken backwards and added to the next.
_DIRECTIONS = 6
_TOLERANCE = 1e-7
MOST_TOGETHER = 4
"""More constraints have too many combinations of sides."""


def is_branching(
    M: Float[np.ndarray, "k k"], G: Float[np.ndarray, "k p"], R: Float[np.ndarray, "outputs k"]
) -> bool:
    """Tell whether R z is not linear in dθ, where t = G dθ + M z, t ≥ 0, z ≥ 0, tᵀz = 0.

    Args:
        M: how t responds to z.
        G: the derivative of t in the parameters, rows of any length.
        R: how the outputs respond to z.

    Returns:
        True also where some direction has no solution: the constraints contradict each other
        there, or a multiplier jumps.
    """
    directions = np.random.default_rng(0).standard_normal((G.shape[1], _DIRECTIONS))
    sums = directions + np.roll(directions, 1, axis=1)
    h = G @ np.concatenate([directions, -directions, sums], axis=1)
    z = _complementary(M, h)
    if z is None:
        return True
    there, back, together = np.split(R @ z, 3, axis=1)
    size = np.abs(R) @ z.max(axis=1, initial=0.0)
    odd = np.abs(there + back).max(axis=1, initial=0.0)
    additive = np.abs(there + np.roll(there, 1, axis=1) - together).max(axis=1, initial=0.0)
    return bool((np.maximum(odd, additive) > _TOLERANCE * size).any())


def _complementary(M: np.ndarray, h: np.ndarray) -> np.ndarray | None:
    """Return z ≥ 0 with t = h + M z ≥ 0 and tᵀz = 0 for each column h; None if one has none."""
    k, count = h.shape
    found, is_solved = np.zeros((k, count)), np.zeros(count, bool)
    size = np.abs(h).max(axis=0, initial=0.0)
    for sides in itertools.product((False, True), repeat=k):
        chosen = np.flatnonzero(sides)
        block = M[np.ix_(chosen, chosen)]
        if len(chosen) and np.linalg.cond(block) > 1 / _TOLERANCE:
            continue
        z = np.zeros((k, count))
        z[chosen] = np.linalg.solve(block, -h[chosen])
        t = h + M @ z
        fits = (np.minimum(z, 0) >= -_TOLERANCE * np.abs(z).max(axis=0)).all(axis=0)
        fits &= (t >= -_TOLERANCE * np.maximum(size, np.abs(t).max(axis=0))).all(axis=0)
        found[:, fits & ~is_solved] = z[:, fits & ~is_solved]
        is_solved |= fits
    return found if is_solved.all() else None
