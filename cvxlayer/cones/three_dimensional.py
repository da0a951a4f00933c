# SPDX-License-Identifier: Apache-2.0
"""What the three-dimensional cones share: the eigenvectors of the projection's derivative.

Where a point v projects onto a smooth piece of the boundary, at u, scaling v scales u and
moving along v − u leaves it, so the derivative D has the eigenvectors u (eigenvalue 1) and
v − u (eigenvalue 0). The third is orthogonal to both and carries the curvature.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

# Newton's error after a step is about the square of the step.
_LAST_STEP = 1e-9
_ROUNDING = 1e-15
# Bisection alone narrows the widest bracket to rounding in these.
_MAX_STEPS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvectors and eigenvalues of the derivative of a projection, row by row.

    Attributes:
        basis: orthonormal columns.
        kept: eigenvalue of each column, in [0, 1].
        dropped: 1 − kept, with all its digits.
    """

    basis: Float[np.ndarray, "batch 3 3"]
    kept: Float[np.ndarray, "batch 3"]
    dropped: Float[np.ndarray, "batch 3"]

    def derivative(self) -> Float[np.ndarray, "batch 3 3"]:
        """Return D = DΠ_K(v)."""
        return self._matrix(self.kept)

    def derivative_root(self) -> Float[np.ndarray, "batch 3 3"]:
        """Return the symmetric square root of D."""
        return self._matrix(np.sqrt(self.kept))

    def complement(self) -> Float[np.ndarray, "batch 3 3"]:
        """Return I − D, the derivative of Π_{K*} at −v."""
        return self._matrix(self.dropped)

    def complement_root(self) -> Float[np.ndarray, "batch 3 3"]:
        """Return the symmetric square root of I − D."""
        return self._matrix(np.sqrt(self.dropped))

    def _matrix(self, weights: np.ndarray) -> np.ndarray:
        product = (self.basis * weights[:, None, :]) @ self.basis.transpose(0, 2, 1)
        return 0.5 * (product + product.transpose(0, 2, 1))


def diagonal_spectrum(kept: Float[np.ndarray, "batch 3"]) -> Spectrum:
    """Return the spectrum of diag(kept)."""
    batch = len(kept)
    basis = np.broadcast_to(np.eye(3), (batch, 3, 3)).copy()
    return Spectrum(basis, kept, 1.0 - kept)


def curved_spectrum(
    nearest: Float[np.ndarray, "batch 3"],
    normal: Float[np.ndarray, "batch 3"],
    kept: Float[np.ndarray, " batch"],
    dropped: Float[np.ndarray, " batch"],
) -> Spectrum:
    """Return the spectrum on a smooth piece of the boundary.

    Args:
        nearest: a multiple of the projection u.
        normal: a multiple of v − u.
        kept: eigenvalue of the direction orthogonal to both, up to a common factor ...
        dropped: ... with one minus itself.
    """
    first, second = normalized(nearest), normalized(normal)
    basis = np.stack([first, second, normalized(np.cross(first, second))], axis=2)
    ones, total = np.ones_like(kept), np.maximum(kept + dropped, np.finfo(float).tiny)
    return Spectrum(
        basis,
        np.stack([ones, 0.0 * ones, kept / total], axis=1),
        np.stack([0.0 * ones, ones, dropped / total], axis=1),
    )


def select_spectrum(is_first: np.ndarray, first: Spectrum, second: Spectrum) -> Spectrum:
    """Return `first` where `is_first` (batch) holds, else `second`."""
    column = is_first[:, None]
    return Spectrum(
        np.where(column[:, :, None], first.basis, second.basis),
        np.where(column, first.kept, second.kept),
        np.where(column, first.dropped, second.dropped),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class BoundaryRay:
    """The ray onto which v = a û + b n̂ projects, at a û, and how the boundary bends there.

    Let φ be the angle along the boundary and c = n̂ × û. Then û' = c, n̂' = κ c and
    c' = −û − κ n̂, so D = û ûᵀ + θ c cᵀ with θ = a/(a + κ b).

    Attributes:
        ray: û.
        normal: n̂, outwards.
        kept: a.
        dropped: b.
        kept_rate: any positive number r ...
        dropped_rate: ... with κ r.
        bend: r κ'/κ.
    """

    ray: Float[np.ndarray, "batch 3"]
    normal: Float[np.ndarray, "batch 3"]
    kept: Float[np.ndarray, " batch"]
    dropped: Float[np.ndarray, " batch"]
    kept_rate: Float[np.ndarray, " batch"]
    dropped_rate: Float[np.ndarray, " batch"]
    bend: Float[np.ndarray, " batch"]

    def second_derivative(
        self, first: Float[np.ndarray, "batch 3"], second: Float[np.ndarray, "batch 3"]
    ) -> Float[np.ndarray, "batch 3"]:
        """Return D²Π_K(v)[p, p'].

        The symmetric product of w = û/a − n̂/b with c and c, less that of c with itself thrice,
        times θ (1 − θ) and θ κ'/(κ a).
        """
        total = self.kept * self.kept_rate + self.dropped * self.dropped_rate
        # Where the frame is lost to rounding, the boundary is as good as flat.
        is_curved = total > 0.0
        kept_rate, dropped_rate, bend = (
            rate / total for rate in (self.kept_rate, self.dropped_rate, self.bend)
        )
        kept, dropped = self.kept * kept_rate, self.dropped * dropped_rate  # θ and 1 − θ
        along_ray, along_normal = kept_rate * dropped, kept * dropped_rate
        lead = along_ray[:, None] * self.ray - along_normal[:, None] * self.normal
        across = np.cross(self.normal, self.ray)
        first_lead, second_lead, first_across, second_across = (
            np.sum(direction * vector, axis=1)
            for vector in (lead, across)
            for direction in (first, second)
        )
        both = first_across * second_across
        weight = first_lead * second_across + second_lead * first_across
        weight -= kept * dropped * bend * both
        bent = both[:, None] * lead + weight[:, None] * across
        return np.where(is_curved[:, None], bent, 0.0)


def find_root(
    function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    start: Float[np.ndarray, " batch"],
    low: Float[np.ndarray, " batch"],
    high: Float[np.ndarray, " batch"],
) -> Float[np.ndarray, " batch"]:
    """Return the root of an increasing function, row by row, to rounding.

    Newton's method, with bisection where a step would leave the bracket.

    Args:
        function: maps points to values and slopes, for all rows at once. Only signs of the
            values have to be increasing.
        start: first guess.
        low: not above the root.
        high: not below it.
    """
    # Rows without a bracket are none of the caller's interest.
    root, is_done = start, ~(low <= high)
    for _ in range(_MAX_STEPS):
        value, slope = function(root)
        low, high = np.where(value < 0.0, root, low), np.where(value < 0.0, high, root)
        newton = root - value / slope
        is_inside = (newton >= low) & (newton <= high)
        following = np.where(is_inside, newton, 0.5 * (low + high))
        scale = np.maximum(1.0, np.abs(following))
        is_last = is_inside & (np.abs(following - root) <= _LAST_STEP * scale)
        is_last |= high - low <= _ROUNDING * scale
        root = np.where(is_done, root, following)
        is_done |= is_last
        if is_done.all():
            break
    return root


def normalized(rows: Float[np.ndarray, "batch 3"]) -> Float[np.ndarray, "batch 3"]:
    """Return each row over its length; zero stays."""
    # Squares of the smallest numbers would be lost.
    size = np.max(np.abs(rows), axis=1, initial=0.0, keepdims=True)
    rows = rows / np.where(size > 0.0, size, 1.0)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0.0, norm, 1.0)
