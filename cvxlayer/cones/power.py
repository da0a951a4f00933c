# SPDX-License-Identifier: Apache-2.0
"""The power cone K = {(x, y, z) : x^α y^(1−α) ≥ |z|, x, y ≥ 0} and its dual.

    K* = {(a, b, c) : (a/α)^α (b/(1−α))^(1−α) ≥ |c|, a, b ≥ 0}

Every function takes the exponent 0 < α < 1 as its second argument; ᾱ = 1 − α. A point outside
K and its polar projects to u = (X, Y, ±ρ) with X (X − x) = α ρ(|z|−ρ) and Y (Y − y) = ᾱ ρ(|z|−ρ),
so all that has to be found is in which ratio ρ : (|z|−ρ) = e^σ : 1 the projection divides |z|.
"""

from __future__ import annotations

import functools
import math

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

# Beyond, ρ or |z| − ρ is zero, to rounding and far more.
_LARGEST_SIGMA = 600.0
_SMALLEST_SHARE = 1e-150
# Next to nothing, but not when multiplied.
_TINY_SHARE = 1e-60


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


def project_second_derivative(
    point: Float[np.ndarray, "batch dim"],
    first: Float[np.ndarray, "batch dim"],
    second: Float[np.ndarray, "batch dim"],
    alpha: float,
) -> Float[np.ndarray, "batch dim"]:
    """Return D²Π_K(v)[p, p'] at each row v: symmetric, and linear in each direction.

    Args:
        point: v.
        first: p.
        second: p'.
        alpha: the exponent of x.

    Notes:
        Zero in the cone and in its polar, and where z = 0 and x or y is negative: from there it
        has no limit, but for α = ½.

    Source:
        `docs/derivations/derivative.md`, "Second derivatives".
    """
    size = _size(point)
    unit = point / size
    with np.errstate(all="ignore"):
        is_inside, is_polar, is_on_edge = _regions(unit, alpha)
        if alpha == 0.5:  # a second-order cone, which has no edge
            x, y, z = unit.T
            z = np.where(is_on_edge, _TINY_SHARE * np.maximum(np.abs(x), np.abs(y)), z)
            unit, is_on_edge = np.stack([x, y, z], axis=1), np.zeros_like(is_on_edge)
        bent = _boundary_ray(unit, alpha).second_derivative(first, second)
    is_flat = is_inside | is_polar | is_on_edge
    return np.where(is_flat[:, None], 0.0, bent / size)


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


def project_dual_second_derivative(
    point: Float[np.ndarray, "batch dim"],
    first: Float[np.ndarray, "batch dim"],
    second: Float[np.ndarray, "batch dim"],
    alpha: float,
) -> Float[np.ndarray, "batch dim"]:
    """Return that of `project_dual`: D²Π_K(−v)[p, p']."""
    return project_second_derivative(-point, first, second, alpha)


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
    # The derivative is the same on a ray; products of four entries stay within range.
    point = point / _size(point)
    with np.errstate(all="ignore"):
        is_inside, is_polar, is_on_edge = _regions(point, alpha)
        nearest, normal, q, size = _frame(point, alpha)
        # Close to the polar u is tiny, and where it is lost v may as well be in the polar.
        is_polar |= size == 0.0
        kept = np.sum(normal**2, axis=1)
        dropped = alpha * (1.0 - alpha) * (q / size / size) * np.sum(nearest**2, axis=1)
        on_curve = curved_spectrum(nearest, normal, kept, dropped)
    spectrum = select_spectrum(is_on_edge, _edge_spectrum(point, alpha), on_curve)
    spectrum = select_spectrum(is_polar, diagonal_spectrum(np.zeros((len(point), 3))), spectrum)
    return select_spectrum(is_inside, diagonal_spectrum(np.ones((len(point), 3))), spectrum)


def _size(point: np.ndarray) -> np.ndarray:
    """Return the largest entry of each row (batch × 1); one where all are zero."""
    size = np.max(np.abs(point), axis=1, initial=0.0, keepdims=True)
    return np.where(size > 0.0, size, 1.0)


def _frame(
    point: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return u over its largest entry, a multiple of v − u, ρ(|z|−ρ), and that entry."""
    X, Y, rho, q = _nearest(point, alpha)
    size = np.maximum(np.maximum(X, Y), rho)
    x, y, z = X / size, Y / size, rho / size
    sign = np.copysign(1.0, point[:, 2])
    # v − u is along (−αρ/X, −ᾱρ/Y, ±1); times X Y it stays finite.
    normal = np.stack([-alpha * z * y, (alpha - 1.0) * z * x, sign * x * y], axis=1)
    return np.stack([x, y, sign * z], axis=1), normal, q, size


def _boundary_ray(point: np.ndarray, alpha: float) -> BoundaryRay:
    """Return the ray of rows on the curved part; anything elsewhere.

    The rays p = (e^(ᾱτ), e^(−ατ), ±1) have the normal n of `_frame`, κ = αᾱ x y z ‖p‖³/‖n‖³ and
    an angle that falls by ‖n‖/‖p‖² with ±τ.
    """
    beta = 1.0 - alpha
    nearest, normal, q, size = _frame(point, alpha)
    unit = np.max(np.abs(normal), axis=1, initial=0.0)
    normal = normal / unit[:, None]
    long, wide = np.linalg.norm(nearest, axis=1), np.linalg.norm(normal, axis=1)
    x, y, z = nearest[:, 0], nearest[:, 1], np.abs(nearest[:, 2])
    log_slope = beta - alpha + 3.0 * (beta * x**2 - alpha * y**2) / long**2
    turn = beta * normal[:, 1] ** 2 - alpha * normal[:, 0] ** 2 + (beta - alpha) * normal[:, 2] ** 2
    log_slope -= 3.0 * turn / wide**2
    # X − x is αq/X, and a sum where x is negative.
    lost = [
        np.where(linear > 0.0, share * q / (size * root), size * root - linear)
        for linear, share, root in ((point[:, 0], alpha, x), (point[:, 1], beta, y))
    ]
    lost.append(np.abs(point[:, 2]) - size * z)
    return BoundaryRay(
        normalized(nearest),
        normalized(normal),
        long * size,
        np.linalg.norm(np.stack(lost, axis=1), axis=1),
        wide * (wide / long),
        alpha * beta * (x / unit) * (y / unit) * (z / unit) * long * (long / wide),
        -np.sign(nearest[:, 2]) * long * (wide / unit) * log_slope,
    )


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
    # Close to the boundary of K, and of the polar, the left side is constant but for e^∓σ.
    flat = 2.0 * (1.0 + alpha / a**2 + beta / b**2)
    size = 2.0 * (alpha * np.log(np.abs(x) / z) + beta * np.log(np.abs(y) / z))
    start = np.where((a > 0.0) & (b > 0.0), -np.log(-size / flat), 0.0)
    start = np.where((a < 0.0) & (b < 0.0), np.log((2.0 * offset - size) / flat), start)
    limit = np.full(len(x), _LARGEST_SIGMA)
    start = np.clip(np.where(np.isfinite(start), start, 0.0), -limit, limit)
    balance = functools.partial(_balance, a, b, alpha, offset)
    return find_root(balance, start, -limit, limit)


def _balance(
    a: np.ndarray, b: np.ndarray, alpha: float, offset: float, sigma: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what is left of the equation for σ, with sinh ξ = a cosh(σ/2), and its slope."""
    beta = 1.0 - alpha
    cosh, sinh = np.cosh(0.5 * sigma), np.sinh(0.5 * sigma)
    value = sigma - 2.0 * (alpha * np.arcsinh(a * cosh) + beta * np.arcsinh(b * cosh)) - offset
    first, second = a * sinh / np.hypot(1.0, a * cosh), b * sinh / np.hypot(1.0, b * cosh)
    return value, 1.0 - alpha * first - beta * second
