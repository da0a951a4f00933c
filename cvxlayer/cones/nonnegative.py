# SPDX-License-Identifier: Apache-2.0
"""The nonnegative orthant {s : s ≥ 0}: the slack of linear inequalities. It is its own dual."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def project(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim"]:
    """Project each row onto the orthant: max(s, 0), entry by entry.

    Notes:
        Not differentiable where an entry is zero; there `project_derivative` is zero.
    """
    return np.maximum(point, 0.0)


def project_derivative(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim dim"]:
    """Return the derivative of `project` at each row: diag(s > 0)."""
    return np.eye(point.shape[1]) * (point > 0.0)[:, None, :]


def project_derivative_root(
    point: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the square root of `project_derivative`: the same matrix, as it is a projector."""
    return project_derivative(point)


def project_second_derivative(
    point: Float[np.ndarray, "batch dim"],
    first: Float[np.ndarray, "batch dim"],
    second: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim"]:
    """Return the second derivative of `project` along two directions: zero."""
    del first, second
    return np.zeros_like(point)


# Self-dual.
project_dual = project
project_dual_derivative = project_derivative
project_dual_derivative_root = project_derivative_root
project_dual_second_derivative = project_second_derivative
