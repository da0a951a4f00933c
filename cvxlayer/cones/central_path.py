# SPDX-License-Identifier: Apache-2.0
"""What the central path s∘y = μe of a symmetric cone has instead of the projection.

There v = y − s has the eigenvalues λ = η − μ/η, with η > 0 those of y, so that v ↦ y is smooth.
For μ → 0 it becomes the projection.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def differences(
    eigenvalues: Float[np.ndarray, "batch order"], mu: float
) -> Float[np.ndarray, "batch order order"]:
    """Return Ω_ij = (η_i − η_j)/(λ_i − λ_j) = η_iη_j/(η_iη_j + μ), for μ > 0.

    Source:
        `docs/derivations/derivative.md`, "Where the faces cannot be told".
    """
    root = np.sqrt(eigenvalues**2 + 4.0 * mu)
    # Half of λ + root, without cancellation where λ is negative.
    below = 2.0 * mu / (root - np.minimum(eigenvalues, 0.0))
    eta = np.where(eigenvalues > 0.0, 0.5 * (eigenvalues + root), below)
    product = eta[:, :, None] * eta[:, None, :]
    return product / (product + mu)
