# SPDX-License-Identifier: Apache-2.0
"""The exponential cone K = cl{(r, s, t) : s > 0, s·exp(r/s) ≤ t} and its dual.

    K* = cl{(a, b, c) : a < 0, −a·exp(b/a − 1) ≤ c}

A point outside K and its polar −K* is a combination v = β p + λ n of a ray of the boundary,
p = (ρ, 1, e^ρ), and the normal there, n = (e^ρ, (1−ρ) e^ρ, −1), with β, λ > 0. Projecting
keeps β p, so all that has to be found is the number ρ.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool, Float

from cvxlayer.cones.three_dimensional import (
    BoundaryRay,
    Spectrum,
    curved_spectrum,
    diagonal_spectrum,
    find_root,
    normalized,
    select_spectrum,
)

# Beyond, v is on the piece of the boundary where s = 0 or where t = 0, to rounding and far more.
_LARGEST_RATIO = 1e150


def project(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim"]:
    """Project each row (r, s, t) onto the exponential cone.

    Args:
        point: rows, in any scaling that is constant on the cone; `dim == 3`.

    Returns:
        The nearest point of the cone, row by row.

    Notes:
        Not differentiable on the boundary of the cone, on that of its polar and between the
        curved part and the face s = 0.

    Source:
        Friberg, Projection onto the exponential cone: a univariate root-finding problem,
        Optimization Methods and Software (2023).
    """
    with np.errstate(all="ignore"):
        is_inside, is_polar, is_on_face = _regions(point)
        rho = _ratio(point)
        ray, _ = _frame(rho)
        on_curve = ray * _coefficient(point, ray)[:, None]
    on_face = _face(point)
    nearest = np.where(is_on_face[:, None], on_face, on_curve)
    return np.where(is_inside[:, None], point, np.where(is_polar[:, None], 0.0, nearest))


def project_derivative(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim dim"]:
    """Return the derivative of `project` at each row: symmetric, 0 ⪯ D ⪯ I.

    Notes:
        On the curved part D = ûûᵀ + θ ccᵀ, with û and c unit vectors along u and p × n, and
        θ = 1/(1 + (λ/β) e^ρ ‖p‖²/‖n‖²).

    Source:
        `docs/derivations/derivative.md`, "Projections".
    """
    return _spectrum(point).derivative()


def project_derivative_root(
    point: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the symmetric square root of `project_derivative` at each row."""
    return _spectrum(point).derivative_root()


def project_second_derivative(
    point: Float[np.ndarray, "batch dim"],
    first: Float[np.ndarray, "batch dim"],
    second: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim"]:
    """Return D²Π_K(v)[p, p'] at each row v: symmetric, and linear in each direction.

    Args:
        point: v.
        first: p.
        second: p'.

    Notes:
        Zero in the cone, in its polar and where v projects onto the face s = 0.

    Source:
        `docs/derivations/derivative.md`, "Second derivatives".
    """
    with np.errstate(all="ignore"):
        bent = _boundary_ray(point).second_derivative(first, second)
        is_flat = np.any(_regions(point), axis=0)
    return np.where(is_flat[:, None], 0.0, bent)


def project_dual(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim"]:
    """Project each row onto the dual cone: v + Π_K(−v), by Moreau."""
    return point + project(-point)


def project_dual_derivative(
    point: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the derivative of `project_dual` at each row: I − DΠ_K(−v)."""
    return _spectrum(-point).complement()


def project_dual_derivative_root(
    point: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the symmetric square root of `project_dual_derivative` at each row."""
    return _spectrum(-point).complement_root()


def project_dual_second_derivative(
    point: Float[np.ndarray, "batch dim"],
    first: Float[np.ndarray, "batch dim"],
    second: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim"]:
    """Return that of `project_dual`: D²Π_K(−v)[p, p']."""
    return project_second_derivative(-point, first, second)


def _regions(
    point: np.ndarray,
) -> tuple[Bool[np.ndarray, " batch"], Bool[np.ndarray, " batch"], Bool[np.ndarray, " batch"]]:
    """Return which rows are in K, in its polar, and project onto the face s = 0."""
    r, s, t = point.T
    is_inside = ((s > 0.0) & (s * np.exp(r / s) <= t)) | ((s == 0.0) & (r <= 0.0) & (t >= 0.0))
    is_polar = ((r > 0.0) & (r * np.exp(s / r - 1.0) <= -t)) | (
        (r == 0.0) & (s <= 0.0) & (t <= 0.0)
    )
    return is_inside, is_polar, (r <= 0.0) & (s <= 0.0)


def _face(point: np.ndarray) -> np.ndarray:
    r, _, t = point.T
    return np.stack([np.minimum(r, 0.0), np.zeros_like(r), np.maximum(t, 0.0)], axis=1)


def _spectrum(point: np.ndarray) -> Spectrum:
    with np.errstate(all="ignore"):
        is_inside, is_polar, is_on_face = _regions(point)
        rho = _ratio(point)
        ray, normal = _frame(rho)
        beta, lam = _coefficient(point, ray), _coefficient(point, normal)
        # Rays and normals come scaled by e^−|ρ| where ρ > 0, hence the sign.
        kept = beta * np.exp(-np.maximum(rho, 0.0)) * np.sum(normal**2, axis=1)
        dropped = lam * np.exp(np.minimum(rho, 0.0)) * np.sum(ray**2, axis=1)
        on_curve = curved_spectrum(ray, normal, kept, dropped)
    zero, one = np.zeros(len(point)), np.ones(len(point))
    on_face = diagonal_spectrum(np.stack([one, zero, 1.0 * (point[:, 2] > 0.0)], axis=1))
    flat = select_spectrum(is_on_face, on_face, on_curve)
    flat = select_spectrum(is_polar, diagonal_spectrum(np.zeros((len(point), 3))), flat)
    return select_spectrum(is_inside, diagonal_spectrum(np.ones((len(point), 3))), flat)


def _boundary_ray(point: np.ndarray) -> BoundaryRay:
    """Return the ray of rows on the curved part; anything elsewhere.

    κ = e^ρ ‖p‖³/‖n‖³, and the angle grows by ‖n‖/‖p‖² with ρ.
    """
    rho = _ratio(point)
    ray, normal = _frame(rho)
    long, wide = np.linalg.norm(ray, axis=1), np.linalg.norm(normal, axis=1)
    shrunk, grown = np.exp(-np.maximum(rho, 0.0)), np.exp(np.minimum(rho, 0.0))
    log_slope = 1.0 + 3.0 * (rho * shrunk**2 + grown**2) / long**2
    log_slope -= 3.0 * _omega(rho) * (grown / wide) ** 2
    return BoundaryRay(
        normalized(ray),
        normalized(normal),
        long * _coefficient(point, ray),
        wide * _coefficient(point, normal),
        shrunk * wide * (wide / long),
        grown * long * (long / wide),
        long * wide * log_slope,
    )


def _frame(rho: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return p and n at each ρ, both times e^−ρ where ρ > 0 so that they stay finite."""
    shrunk, grown = np.exp(-np.maximum(rho, 0.0)), np.exp(np.minimum(rho, 0.0))
    ray = np.stack([rho * shrunk, shrunk, grown], axis=1)
    normal = np.stack([grown, (1.0 - rho) * grown, -shrunk], axis=1)
    return ray, normal


def _coefficient(point: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the coordinate of each point along one of two orthogonal directions.

    Rounding in ρ changes it to second order only.
    """
    inner, squared = np.sum(point * direction, axis=1), np.sum(direction**2, axis=1)
    return np.maximum(inner, 0.0) / squared


def _ratio(point: np.ndarray) -> np.ndarray:
    """Return ρ for rows on the curved part; anything elsewhere.

    With A = (ρ−1) r + s, B = r − ρ s and ω = ρ² − ρ + 1, β = A/ω and λ = B e^−ρ/ω, so the last
    row of v = β p + λ n reads A e^ρ − B e^−ρ − ω t = 0. Where A, B ≥ 0 its left side over ω
    increases. The factor e^−|ρ| keeps it finite and makes it nearly linear for large |ρ|.
    """
    low, high = _bracket(point)
    return find_root(functools.partial(_balance, point), 0.5 * (low + high), low, high)


def _balance(point: np.ndarray, rho: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the left side, over ω and times e^−|ρ|, and its slope."""
    r, s, t = point.T
    e = np.exp(-np.abs(rho))
    A, B, omega = (rho - 1.0) * r + s, r - rho * s, _omega(rho)
    right = A - B * e * e - omega * t * e
    right_slope = r + (s + 2.0 * B) * e * e - (2.0 * rho - 1.0 - omega) * t * e
    left = A * e * e - B - omega * t * e
    left_slope = (r + 2.0 * A) * e * e + s - (2.0 * rho - 1.0 + omega) * t * e
    is_right = rho > 0.0
    return np.where(is_right, right, left), np.where(is_right, right_slope, left_slope)


def _bracket(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of ρ, close to it where it is large.

    A, B ≥ 0 bound it on one side by 1 − s/r and on the other by r/s. If t > 0, e^ρ ≥ t/β, where
    β − s is at most the distance from v to K; if t < 0, likewise, e^−ρ ≥ −t/(r + the distance to
    the polar). With these, A = β ω and B = λ ω e^ρ give a bound on the sides left open.
    """
    r, s, t = point.T
    low = np.where(r > 0.0, 1.0 - s / r, -_LARGEST_RATIO)
    high = np.where(s > 0.0, r / s, _LARGEST_RATIO)
    low = np.where(t > 0.0, np.maximum(low, np.log(t / _reach(s, r))), low)
    high = np.where(t < 0.0, np.minimum(high, np.log(_reach(r, s) / -t)), high)
    # ω e^−ρ is at most 1 for ρ ≥ 0 and decreases beyond 2; ω e^ρ is below 1.11 for ρ ≤ 0 and
    # increases up to −1.
    bound = np.where(low >= 2.0, _omega(low) * np.exp(-np.abs(low)), 1.0)
    excess = bound * (np.maximum(t, 0.0) / r + np.exp(-np.maximum(low, 0.0)))
    high = np.where(r > 0.0, np.minimum(high, np.maximum(0.0, 1.0 - s / r + excess)), high)
    bound = np.where(high <= -1.0, _omega(high) * np.exp(-np.abs(high)), 1.11)
    excess = bound * (np.exp(np.minimum(high, 0.0)) + np.maximum(-t, 0.0) / s)
    low = np.where(s > 0.0, np.maximum(low, np.minimum(0.0, r / s - excess)), low)
    low, high = (np.clip(end, -_LARGEST_RATIO, _LARGEST_RATIO) for end in (low, high))
    return np.minimum(low, high), high


def _reach(along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Return w + √(w² + max(across, 0)²), without cancellation where w < 0."""
    beyond = np.maximum(across, 0.0)
    distance = np.hypot(along, beyond)
    return np.where(along > 0.0, along + distance, beyond**2 / (distance - along))


def _omega(rho: np.ndarray) -> np.ndarray:
    return rho * rho - rho + 1.0
