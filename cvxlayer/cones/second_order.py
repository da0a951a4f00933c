# SPDX-License-Identifier: Apache-2.0
"""The second-order cone {(t, z) : ‖z‖₂ ≤ t}, `t` first. It is its own dual.

Everything follows from its spectral form: (t, z) has the eigenvalues t ± ‖z‖ with the
eigenvectors (1, ±ζ)/√2, where ζ = z/‖z‖, and projecting keeps the positive ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from cvxlayer.cones import central_path


def project(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim"]:
    """Project each row onto the second-order cone.

    Args:
        point: rows (t, z), `t` first, in any scaling that is constant on the cone; `dim >= 1`.

    Returns:
        The nearest point of the cone, row by row.

    Notes:
        Not differentiable where ‖z‖ = |t|; there `project_derivative` takes the limit
        from the side on which the projection is linear.

    Source:
        Parikh & Boyd, Proximal Algorithms (2014), section 6.3.
    """
    t, norm, zeta = _polar(point)
    on_boundary = 0.5 * (t + norm) * np.concatenate([np.ones_like(t), zeta], axis=1)
    return np.where(norm <= t, point, np.where(norm <= -t, 0.0, on_boundary))


def project_derivative(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim dim"]:
    """Return the derivative of `project` at each row: symmetric, 0 ⪯ D ⪯ I.

    Notes:
        Outside the cone and its polar, D has the eigenvalue 1 on (1, ζ), 0 on (1, −ζ) and
        ½(1 + t/‖z‖) on (0, w) for every w orthogonal to ζ.

    Source:
        `docs/derivations/derivative.md`, "Projections".
    """
    return _spectral(point, lambda eigenvalue: eigenvalue)


def project_derivative_root(
    point: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the symmetric square root of `project_derivative` at each row."""
    return _spectral(point, np.sqrt)


def project_second_derivative(
    point: Float[np.ndarray, "batch dim"],
    first: Float[np.ndarray, "batch dim"],
    second: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim"]:
    """Return D²Π(v)[p, p'] at each row v: symmetric, and linear in each direction.

    Args:
        point: v.
        first: p.
        second: p'.

    Notes:
        Zero in the cone and in its polar. Elsewhere, with p = (a, c ζ + w), w orthogonal to ζ,
        r = ‖z‖ and p' likewise, it is

            ½/r · (wᵀw',  (a − c t/r) w' + (a' − c' t/r) w − (t/r) wᵀw' ζ).

    Source:
        `docs/derivations/derivative.md`, "Second derivatives".
    """
    t, norm, zeta = _polar(point)
    is_curved = (norm > t) & (norm > -t)
    inverse = np.divide(0.5, norm, out=np.zeros_like(t), where=is_curved)
    ratio = 2.0 * t * inverse
    radial, across = zip(*(_split(direction, zeta) for direction in (first, second)), strict=True)
    lead = [
        direction[:, :1] - along * ratio
        for direction, along in zip((first, second), radial, strict=True)
    ]
    inner = np.sum(across[0] * across[1], axis=1, keepdims=True)
    tail = lead[0] * across[1] + lead[1] * across[0] - ratio * inner * zeta
    return inverse * np.concatenate([inner, tail], axis=1)


def _split(direction: np.ndarray, zeta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of z along ζ (batch × 1) and what is orthogonal to it."""
    tail = direction[:, 1:]
    along = np.sum(tail * zeta, axis=1, keepdims=True)
    return along, tail - along * zeta


def smoothed_derivative_root(
    point: Float[np.ndarray, "batch dim"], mu: float
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the root of the derivative of v ↦ y on the central path: v = y − μy⁻¹, y inside.

    Notes:
        As in `semidefinite.smoothed_derivative_root`, with the eigenvalues t ± ‖z‖.
    """
    t, norm, zeta = _polar(point)
    omega = central_path.differences(np.concatenate([t + norm, t - norm], axis=1), mu)
    root = np.sqrt(omega)[:, :, :, None, None]
    first, second, rest = root[:, 0, 0], root[:, 1, 1], root[:, 0, 1]
    plus, minus = (np.concatenate([np.ones_like(t), sign * zeta], axis=1) for sign in (1.0, -1.0))
    along = 0.5 * (first * _outer(plus) + second * _outer(minus))
    tangential = np.eye(point.shape[1]) - _outer(np.concatenate([np.zeros_like(t), zeta], axis=1))
    tangential[:, 0, 0] = 0.0
    return along + rest * tangential


def _polar(point: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return t, ‖z‖ (both batch × 1) and ζ (zero where z is)."""
    t, z = point[:, :1], point[:, 1:]
    norm = np.linalg.norm(z, axis=1, keepdims=True)
    zeta = np.divide(z, norm, out=np.zeros_like(z), where=norm > 0.0)
    return t, norm, zeta


def _spectral(point: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply `function` to the eigenvalues of the derivative; 0 and 1 stay as they are."""
    t, norm, zeta = _polar(point)
    batch, dim = point.shape
    identity = np.broadcast_to(np.eye(dim), (batch, dim, dim))
    ratio = np.divide(t, norm, out=np.zeros_like(t), where=norm > 0.0)
    middle = function(np.clip(0.5 * (1.0 + ratio), 0.0, 1.0))[:, :, None]
    ray = np.concatenate([np.ones_like(t), zeta], axis=1)
    radial = np.concatenate([np.zeros_like(t), zeta], axis=1)
    tangential = identity - _outer(radial)
    tangential[:, 0, 0] = 0.0
    on_boundary = 0.5 * _outer(ray) + middle * tangential
    inside, in_polar = (norm <= t)[:, :, None], (norm <= -t)[:, :, None]
    return np.where(inside, identity, np.where(in_polar, 0.0, on_boundary))


def _outer(rows: np.ndarray) -> np.ndarray:
    return rows[:, :, None] * rows[:, None, :]


# Self-dual.
project_dual = project
project_dual_derivative = project_derivative
project_dual_derivative_root = project_derivative_root
project_dual_second_derivative = project_second_derivative
