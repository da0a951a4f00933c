# SPDX-License-Identifier: Apache-2.0
"""The power cone K = {(x, y, z) : x^α y^(1−α) ≥ |z|, x, y ≥ 0} and its dual.

    K* = {(a, b, c) : (a/α)^α (b/(1−α))^(1−α) ≥ |c|, a, b ≥ 0}

Every function takes the exponent 0 < α < 1 as its second argument; ᾱ = 1 − α. A point outside
K and its polar projects to u = (X, Y, ±ρ) with X (X − x) = α ρ(|z|−ρ) and Y (Y − y) = ᾱ ρ(|z|−ρ),
so all that has to be found is in which ratio ρ : (|z|−ρ) = e^σ : 1 the projection divides |z|.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from cvxlayer.cones.three_dimensional import (
    Spectrum,
    curved_spectrum,
    diagonal_spectrum,
    find_root,
    select_spectrum,
)

# Beyond, ρ or |z| − ρ is zero, to rounding and far more.
_LARGEST_SIGMA = 600.0
_SMALLEST_SHARE = 1e-150


def project(point: Float[np.ndarray, "batch dim"], alpha: float) -> Float[np.ndarray, "batch dim"]:
    """Project each row (x, y, z) onto the power cone.

    Args:
        point: rows, in any scaling that is constant on the cone; `dim == 3`.
        alpha: the exponent of x.

    Returns:
        The nearest point of the cone, row by row.

    Notes:
        Not differentiable on the boundary of the cone and on that of its polar; where z = 0
        and x or y is negative, `project_derivative` takes the limit, which is reached slowly
        if α is close to ½.

    Source:
        Hien, Differential properties of Euclidean projection onto power cone, Mathematical
        Methods of Operations Research 82 (2015).
    """
    with np.errstate(all="ignore"):
        is_inside, is_polar, is_on_edge = _regions(point, alpha)
        X, Y, rho, _ = _nearest(point, alpha)
    x, y, z = point.T
    on_curve = np.stack([X, Y, np.copysign(rho, z)], axis=1)
    on_edge = np.stack([np.maximum(x, 0.0), np.maximum(y, 0.0), np.zeros_like(z)], axis=1)
    nearest = np.where(is_on_edge[:, None], on_edge, on_curve)
    return np.where(is_inside[:, None], point, np.where(is_polar[:, None], 0.0, nearest))


def project_derivative(
    point: Float[np.ndarray, "batch dim"], alpha: float
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the derivative of `project` at each row: symmetric, 0 ⪯ D ⪯ I.

    Notes:
        On the curved part D = ûûᵀ + θ ccᵀ, with û and c unit vectors, along u = (X, Y, ρ) and
        orthogonal to it and to v − u, and with N = X²Y² + ρ²(α²Y² + ᾱ²X²)

            θ = N / (N + αᾱ ρ(|z|−ρ) ‖u‖²).

    Source:
        `docs/derivations/derivative.md`, "Projections".
    """
    return _spectrum(point, alpha).derivative()


def project_derivative_root(
    point: Float[np.ndarray, "batch dim"], alpha: float
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the symmetric square root of `project_derivative` at each row."""
    return _spectrum(point, alpha).derivative_root()


def project_dual(
    point: Float[np.ndarray, "batch dim"], alpha: float
) -> Float[np.ndarray, "batch dim"]:
    """Project each row onto the dual cone: v + Π_K(−v), by Moreau."""
    return point + project(-point, alpha)


def project_dual_derivative(
    point: Float[np.ndarray, "batch dim"], alpha: float
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the derivative of `project_dual` at each row: I − DΠ_K(−v)."""
    return _spectrum(-point, alpha).complement()


def project_dual_derivative_root(
    point: Float[np.ndarray, "batch dim"], alpha: float
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the symmetric square root of `project_dual_derivative` at each row."""
    return _spectrum(-point, alpha).complement_root()


def _regions(
    point: np.ndarray, alpha: float
) -> tuple[Bool[np.ndarray, " batch"], Bool[np.ndarray, " batch"], Bool[np.ndarray, " batch"]]:
    """Return which rows are in K, in its polar, and project onto an edge, where z = 0."""
    x, y, z = point[:, 0], point[:, 1], np.abs(point[:, 2])
    beta = 1.0 - alpha
    is_inside = (x >= 0.0) & (y >= 0.0) & (x**alpha * y**beta >= z)
    is_polar = (x <= 0.0) & (y <= 0.0) & ((-x / alpha) ** alpha * (-y / beta) ** beta >= z)
    is_on_edge = z <= _SMALLEST_SHARE * np.maximum(np.abs(x), np.abs(y))
    return is_inside, is_polar, is_on_edge


def _spectrum(point: np.ndarray, alpha: float) -> Spectrum:
    beta = 1.0 - alpha
    # The derivative is the same on a ray; products of four entries stay within range.
    size = np.max(np.abs(point), axis=1, initial=0.0, keepdims=True)
    point = point / np.where(size > 0.0, size, 1.0)
    with np.errstate(all="ignore"):
        is_inside, is_polar, is_on_edge = _regions(point, alpha)
        X, Y, rho, q = _nearest(point, alpha)
        # Close to the polar u is tiny, and where it is lost v may as well be in the polar.
        size = np.maximum(np.maximum(X, Y), rho)
        is_polar |= size == 0.0
        x, y, z = X / size, Y / size, rho / size
        signed = np.copysign(1.0, point[:, 2])
        nearest = np.stack([x, y, signed * z], axis=1)
        # v − u is along (−αρ/X, −ᾱρ/Y, ±1); times X Y it stays finite.
        normal = np.stack([-alpha * z * y, -beta * z * x, signed * x * y], axis=1)
        kept = np.sum(normal**2, axis=1)
        dropped = alpha * beta * (q / size / size) * np.sum(nearest**2, axis=1)
        on_curve = curved_spectrum(nearest, normal, kept, dropped)
    spectrum = select_spectrum(is_on_edge, _edge_spectrum(point, alpha), on_curve)
    spectrum = select_spectrum(is_polar, diagonal_spectrum(np.zeros((len(point), 3))), spectrum)
    return select_spectrum(is_inside, diagonal_spectrum(np.ones((len(point), 3))), spectrum)


def _edge_spectrum(point: np.ndarray, alpha: float) -> Spectrum:
    """Return the limit as z → 0 where one coordinate w is not positive and the other is.

    It depends on the exponent ε of w: moving along z keeps all for ε < ½, nothing for ε > ½.
    """
    x, y, _ = point.T
    is_first = x <= 0.0
    exponent = np.where(is_first, alpha, 1.0 - alpha)
    negative, positive = np.where(is_first, -x, -y), np.where(is_first, y, x)
    middle = positive / np.where(positive > 0.0, positive + 2.0 * negative, 1.0)
    along = np.where(exponent < 0.5, 1.0, np.where(exponent > 0.5, 0.0, middle))
    return diagonal_spectrum(np.stack([1.0 * (x > 0.0), 1.0 * (y > 0.0), along], axis=1))


def _nearest(
    point: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return X, Y, ρ and ρ(|z|−ρ) for rows on the curved part; anything elsewhere."""
    x, y, z = point[:, 0], point[:, 1], np.abs(point[:, 2])
    sigma = _log_ratio(x, y, z, alpha)
    half = np.cosh(0.5 * sigma)
    root_q = z / (2.0 * half)
    X = _larger_root(x, math.sqrt(alpha) * root_q)
    Y = _larger_root(y, math.sqrt(1.0 - alpha) * root_q)
    return X, Y, z / (1.0 + np.exp(-sigma)), root_q**2


def _larger_root(linear: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """Return the positive X with X (X − linear) = constant², without cancellation."""
    distance = np.hypot(0.5 * linear, constant)
    half = 0.5 * np.abs(linear)
    return np.where(linear > 0.0, half + distance, constant * (constant / (half + distance)))


def _log_ratio(x: np.ndarray, y: np.ndarray, z: np.ndarray, alpha: float) -> np.ndarray:
    """Return σ.

    With q = ρ(|z|−ρ) and x = 2√(αq) sinh ξ, X = √(αq) e^ξ and X − x = √(αq) e^−ξ; likewise η
    for y. Then X^α Y^ᾱ = ρ becomes

        σ − 2α ξ − 2ᾱ η = α log α + ᾱ log ᾱ,    sinh ξ = x cosh(σ/2)/(|z|√α),

    whose left side increases in σ, with a slope between 0 and 2.
    """
    beta = 1.0 - alpha
    a, b = x / (z * math.sqrt(alpha)), y / (z * math.sqrt(beta))
    offset = alpha * math.log(alpha) + beta * math.log(beta)

    def balance(sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cosh, sinh = np.cosh(0.5 * sigma), np.sinh(0.5 * sigma)
        value = sigma - 2.0 * (alpha * np.arcsinh(a * cosh) + beta * np.arcsinh(b * cosh)) - offset
        first, second = a * sinh / np.hypot(1.0, a * cosh), b * sinh / np.hypot(1.0, b * cosh)
        return value, 1.0 - alpha * first - beta * second

    # Close to the boundary of K, and of the polar, the left side is constant but for e^∓σ.
    flat = 2.0 * (1.0 + alpha / a**2 + beta / b**2)
    size = 2.0 * (alpha * np.log(np.abs(x) / z) + beta * np.log(np.abs(y) / z))
    start = np.where((a > 0.0) & (b > 0.0), -np.log(-size / flat), 0.0)
    start = np.where((a < 0.0) & (b < 0.0), np.log((2.0 * offset - size) / flat), start)
    limit = np.full(len(x), _LARGEST_SIGMA)
    start = np.clip(np.where(np.isfinite(start), start, 0.0), -limit, limit)
    return find_root(balance, start, -limit, limit)
