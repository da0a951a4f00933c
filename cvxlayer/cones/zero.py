# SPDX-License-Identifier: Apache-2.0
"""The zero cone {0}: the slack of an equality. Its dual is the whole space."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def project(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim"]:
    """Project each row onto {0}: zero everywhere."""
    return np.zeros_like(point)


def project_dual(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim"]:
    """Project each row onto the dual cone, the whole space: the point itself."""
    return point.copy()


def project_derivative(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim dim"]:
    """Return the derivative of `project` at each row: the zero matrix."""
    batch, dim = point.shape
    return np.zeros((batch, dim, dim))


def project_derivative_root(
    point: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the square root of `project_derivative`: the zero matrix."""
    return project_derivative(point)


def project_dual_derivative(
    point: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the derivative of `project_dual` at each row: the identity."""
    batch, dim = point.shape
    return np.broadcast_to(np.eye(dim), (batch, dim, dim)).copy()


def project_dual_derivative_root(
    point: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the square root of `project_dual_derivative`: the identity."""
    return project_dual_derivative(point)


def project_second_derivative(
    point: Float[np.ndarray, "batch dim"],
    first: Float[np.ndarray, "batch dim"],
    second: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim"]:
    """Return the second derivative of `project` along two directions: zero."""
    del first, second
    return np.zeros_like(point)


project_dual_second_derivative = project_second_derivative
