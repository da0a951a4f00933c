# SPDX-License-Identifier: Apache-2.0
"""Barriers of the dual cones, and what the central path has instead of the projection.

With f* the barrier of K*, the path of μ is s = −μ∇f*(y). Given v = y − s, y is the proximal point

    Π_μ(v) = argmin ½‖y − v‖² + μ f*(y)

which depends smoothly on v and becomes the projection onto K* as μ → 0. Its derivative is
D = (I + μ∇²f*(y))⁻¹ and its second derivative D²Π_μ(v)[p, p'] = −μ D ∇³f*(y)[Dp, Dp'].

    nonnegative   −Σ log yᵢ
    second-order  −½ log(t² − ‖z‖²)
    semidefinite  −log det Y
    exponential   −log ψ − log(−y₀) − log y₂,         ψ = y₁ − y₀ − y₀ log(−y₂/y₀)
    power         −log ψ − (1−α) log y₀ − α log y₁,   ψ = (y₀/α)^2α (y₁/(1−α))^2(1−α) − y₂²

The specification of `native/cones/central_path.hpp`: plain formulas, one cone after the other.
Source: `docs/derivations/derivative.md`, "On the central path".
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from cvxlayer.cones import exponential, power, semidefinite
from cvxlayer.cones.product import ConeKind, ConeProduct, CurvedCone

Vector = np.ndarray
"""One cone's part of y, or a direction there."""

_MAX_STEPS = 200
_WHOLE_STEP = 0.25  # Newton decrements below which a step is taken whole, ...
_LAST_STEP = 1e-11  # and below which it is the last.


class AbstractBarrier(abc.ABC):
    """The barrier f* of the dual of one cone, at points inside."""

    @abc.abstractmethod
    def start(self, v: Vector, mu: float) -> Vector:
        """Return a point inside that is about as good as Π_μ(v)."""

    @abc.abstractmethod
    def gradient(self, y: Vector) -> Vector:
        """Return ∇f*(y)."""

    @abc.abstractmethod
    def hessian(self, y: Vector) -> np.ndarray:
        """Return ∇²f*(y)."""

    @abc.abstractmethod
    def third(self, y: Vector, u: Vector, w: Vector) -> Vector:
        """Return ∇³f*(y)[u, w]."""

    def project(self, v: Vector, mu: float) -> Vector:
        """Return Π_μ(v), by damped Newton steps.

        Source:
            Nesterov, Lectures on Convex Optimization (2018), section 5.2.
        """
        y, before = self.start(v, mu), math.inf
        for _ in range(_MAX_STEPS):
            slope = y - v + mu * self.gradient(y)
            step = np.linalg.solve(np.eye(len(v)) + mu * self.hessian(y), -slope)
            decrement = math.sqrt(max(-slope @ step, 0.0) / mu)
            if decrement >= before and decrement < 1e-5:
                break  # rounding
            y = y + (1.0 if decrement < _WHOLE_STEP else 1.0 / (1.0 + decrement)) * step
            before = decrement
            if decrement < _LAST_STEP:
                break
        return y

    def derivative(self, y: Vector, mu: float) -> np.ndarray:
        """Return D = (I + μ∇²f*)⁻¹, symmetric."""
        inverse = np.linalg.inv(np.eye(len(y)) + mu * self.hessian(y))
        return 0.5 * (inverse + inverse.T)


class OrthantBarrier(AbstractBarrier):
    """−Σ log yᵢ, where the path is sᵢyᵢ = μ."""

    def start(self, v: Vector, mu: float) -> Vector:
        """Return Π_μ(v) itself: the positive root of y² − v y − μ."""
        return _positive_root(v, mu)

    def gradient(self, y: Vector) -> Vector:
        """Return −1/y."""
        return -1.0 / y

    def hessian(self, y: Vector) -> np.ndarray:
        """Return diag(1/y²)."""
        return np.diag(1.0 / y**2)

    def third(self, y: Vector, u: Vector, w: Vector) -> Vector:
        """Return −2 u w/y³."""
        return -2.0 * u * w / y**3


class SecondOrderBarrier(AbstractBarrier):
    """−½ log δ with δ = t² − ‖z‖² = yᵀJy."""

    def start(self, v: Vector, mu: float) -> Vector:
        """Return Π_μ(v) itself, whose eigenvalues are roots of η² − λη − μ."""
        norm = np.linalg.norm(v[1:])
        plus, minus = _positive_root(v[0] + norm, mu), _positive_root(v[0] - norm, mu)
        tail = v[1:] / norm if norm > 0.0 else v[1:]
        return 0.5 * np.concatenate([[plus + minus], (plus - minus) * tail])

    def gradient(self, y: Vector) -> Vector:
        """Return −Jy/δ."""
        return -_reflected(y) / (y @ _reflected(y))

    def hessian(self, y: Vector) -> np.ndarray:
        """Return 2 Jy(Jy)ᵀ/δ² − J/δ."""
        image, delta = _reflected(y), y @ _reflected(y)
        return (
            2.0 * np.outer(image, image) / delta**2 - np.diag(_reflected(np.ones(len(y)))) / delta
        )

    def third(self, y: Vector, u: Vector, w: Vector) -> Vector:
        """Return the derivative of `hessian(y) @ u` along w."""
        image, delta = _reflected(y), y @ _reflected(y)
        along_u, along_w, both = image @ u, image @ w, u @ _reflected(w)
        result = 2.0 * (along_u * _reflected(w) + both * image + along_w * _reflected(u))
        return result / delta**2 - 8.0 * along_u * along_w * image / delta**3


class SemidefiniteBarrier(AbstractBarrier):
    """−log det Y, on svec."""

    def start(self, v: Vector, mu: float) -> Vector:
        """Return Π_μ(v) itself, whose eigenvalues are roots of η² − λη − μ."""
        values, vectors = np.linalg.eigh(semidefinite.unpack(v[None])[0])
        return _packed((vectors * _positive_root(values, mu)) @ vectors.T)

    def gradient(self, y: Vector) -> Vector:
        """Return −Y⁻¹."""
        return -_packed(_inverse(y))

    def hessian(self, y: Vector) -> np.ndarray:
        """Return the matrix of U ↦ Y⁻¹UY⁻¹."""
        inverse = _inverse(y)
        units = semidefinite.unpack(np.eye(len(y)))
        return semidefinite.pack(inverse @ units @ inverse).T

    def third(self, y: Vector, u: Vector, w: Vector) -> Vector:
        """Return −Y⁻¹UY⁻¹WY⁻¹ − Y⁻¹WY⁻¹UY⁻¹."""
        inverse = _inverse(y)
        U, W = semidefinite.unpack(np.stack([u, w]))
        half = inverse @ U @ inverse @ W @ inverse
        return -_packed(half + half.T)


class AbstractLogarithmicBarrier(AbstractBarrier):
    """−log ψ − Σ wᵢ log |yᵢ| of a cone of three rows."""

    @property
    @abc.abstractmethod
    def weights(self) -> Vector:
        """W."""

    @property
    @abc.abstractmethod
    def unit(self) -> Vector:
        """The point with y = −∇f*(y)."""

    @abc.abstractmethod
    def nearest(self, v: Vector) -> Vector:
        """Return the projection onto K*."""

    @abc.abstractmethod
    def psi(self, y: Vector) -> tuple[float, Vector, np.ndarray]:
        """Return ψ, ∇ψ and ∇²ψ."""

    @abc.abstractmethod
    def psi_third(self, y: Vector, u: Vector, w: Vector) -> Vector:
        """Return ∇³ψ[u, w]."""

    def start(self, v: Vector, mu: float) -> Vector:
        """Return the projection moved inside along the unit, by the best guess of how far."""
        nearest, unit = self.nearest(v), self.unit
        inner, squared = max((nearest - v) @ unit, 0.0), unit @ unit
        amount = 6.0 * mu / (inner + math.sqrt(inner**2 + 12.0 * mu * squared))
        return nearest + max(amount, 1e-12 * np.abs(v).max()) * unit

    def gradient(self, y: Vector) -> Vector:
        """Return −∇ψ/ψ − w/y."""
        psi, slope, _ = self.psi(y)
        return -slope / psi - self.weights / y_or_one(y, self.weights)

    def hessian(self, y: Vector) -> np.ndarray:
        """Return ∇ψ∇ψᵀ/ψ² − ∇²ψ/ψ + diag(w/y²)."""
        psi, slope, bend = self.psi(y)
        rest = np.diag(self.weights / y_or_one(y, self.weights) ** 2)
        return np.outer(slope, slope) / psi**2 - bend / psi + rest

    def third(self, y: Vector, u: Vector, w: Vector) -> Vector:
        """Return the derivative of `hessian(y) @ u` along w."""
        psi, slope, bend = self.psi(y)
        along_u, along_w, both = slope @ u / psi, slope @ w / psi, u @ bend @ w / psi
        result = (both - 2.0 * along_u * along_w) * slope
        result += along_w * (bend @ u) + along_u * (bend @ w) - self.psi_third(y, u, w)
        return result / psi - 2.0 * self.weights * u * w / y_or_one(y, self.weights) ** 3


class ExponentialBarrier(AbstractLogarithmicBarrier):
    """ψ = y₁ − y₀ − y₀ log(−y₂/y₀)."""

    @property
    def weights(self) -> Vector:
        """(1, 0, 1)."""
        return np.array([1.0, 0.0, 1.0])

    @property
    def unit(self) -> Vector:
        """The point with y = −∇f*(y)."""
        return np.array([-1.051383945322714, 0.556409619469370, 1.258967884768947])

    def nearest(self, v: Vector) -> Vector:
        """Return the projection onto K*."""
        return exponential.project_dual(v[None])[0]

    def psi(self, y: Vector) -> tuple[float, Vector, np.ndarray]:
        """Return ψ, ∇ψ = (−l, 1, −y₀/y₂) with l = log(−y₂/y₀), and ∇²ψ = y₀ rrᵀ."""
        length = math.log(-y[2] / y[0])
        ray = np.array([-1.0 / y[0], 0.0, 1.0 / y[2]])
        slope = np.array([-length, 1.0, -y[0] / y[2]])
        return y[1] - y[0] - y[0] * length, slope, y[0] * np.outer(ray, ray)

    def psi_third(self, y: Vector, u: Vector, w: Vector) -> Vector:
        """Return ∇³ψ[u, w], from ∇²ψ = [1/y₀, −1/y₂; −1/y₂, y₀/y₂²]."""
        a, c = y[0], y[2]
        first = -u[0] * w[0] / a**2 + u[2] * w[2] / c**2
        cross = (u[0] * w[2] + u[2] * w[0]) / c**2
        return np.array([first, 0.0, cross - 2.0 * a * u[2] * w[2] / c**3])


class PowerBarrier(AbstractLogarithmicBarrier):
    """ψ = φ − y₂² with φ = (y₀/α)^2α (y₁/(1−α))^2(1−α)."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    @property
    def weights(self) -> Vector:
        """(1 − α, α, 0)."""
        return np.array([1.0 - self._alpha, self._alpha, 0.0])

    @property
    def unit(self) -> Vector:
        """The point with y = −∇f*(y)."""
        return np.array([math.sqrt(1.0 + self._alpha), math.sqrt(2.0 - self._alpha), 0.0])

    def nearest(self, v: Vector) -> Vector:
        """Return the projection onto K*."""
        return power.project_dual(v[None], self._alpha)[0]

    def psi(self, y: Vector) -> tuple[float, Vector, np.ndarray]:
        """Return ψ, ∇ψ and ∇²ψ, with ∇φ = φ a and ∇²φ = φ (aaᵀ − diag(a/y))."""
        phi, lead = self._phi(y)
        bend = phi * (np.outer(lead, lead) - np.diag(lead / y_or_one(y, lead)))
        bend[2, 2] -= 2.0
        return phi - y[2] ** 2, phi * lead - np.array([0.0, 0.0, 2.0 * y[2]]), bend

    def psi_third(self, y: Vector, u: Vector, w: Vector) -> Vector:
        """Return ∇³φ[u, w]."""
        phi, lead = self._phi(y)
        share = lead / y_or_one(y, lead)
        along_u, along_w = lead @ u, lead @ w
        total = (along_u * along_w - share @ (u * w)) * lead
        total -= along_u * share * w + along_w * share * u
        return phi * (total + 2.0 * share * u * w / y_or_one(y, lead))

    def _phi(self, y: Vector) -> tuple[float, Vector]:
        alpha, beta = self._alpha, 1.0 - self._alpha
        phi = (y[0] / alpha) ** (2.0 * alpha) * (y[1] / beta) ** (2.0 * beta)
        return float(phi), np.array([2.0 * alpha / y[0], 2.0 * beta / y[1], 0.0])


def barriers(cones: ConeProduct) -> Iterator[tuple[AbstractBarrier, slice]]:
    """Yield the barrier of each dual cone but that of equalities, and its rows, in order."""
    if cones.nonnegative:
        yield OrthantBarrier(), slice(cones.zero, cones.num_linear)
    for cone in cones.curved:
        yield _barrier_of(cone), cone.rows


def project(
    cones: ConeProduct, point: Float[np.ndarray, " m"], mu: float
) -> Float[np.ndarray, " m"]:
    """Return Π_μ(v): y on the central path of μ where y − s is the point."""
    result = point.copy()
    for barrier, rows in barriers(cones):
        result[rows] = barrier.project(point[rows], mu)
    return result


def project_derivative(
    cones: ConeProduct, y: Float[np.ndarray, " m"], mu: float
) -> Float[np.ndarray, "m m"]:
    """Return D = DΠ_μ where Π_μ is y: symmetric, block diagonal, 0 ≺ D ⪯ I."""
    result = np.eye(cones.size)
    for barrier, rows in barriers(cones):
        result[rows, rows] = barrier.derivative(y[rows], mu)
    return result


def project_second_derivative(
    cones: ConeProduct,
    y: Float[np.ndarray, " m"],
    mu: float,
    first: Float[np.ndarray, " m"],
    second: Float[np.ndarray, " m"],
) -> Float[np.ndarray, " m"]:
    """Return D²Π_μ[p, p'] where Π_μ is y: symmetric, and linear in each direction."""
    result = np.zeros(cones.size)
    for barrier, rows in barriers(cones):
        D = barrier.derivative(y[rows], mu)
        bend = barrier.third(y[rows], D @ first[rows], D @ second[rows])
        result[rows] = -mu * (D @ bend)
    return result


def y_or_one(y: Vector, weights: Vector) -> Vector:
    """Return y, but 1 where its weight is zero, so that quotients are zero there."""
    return np.where(weights == 0.0, 1.0, y)


def _barrier_of(cone: CurvedCone) -> AbstractBarrier:
    match cone.kind:
        case ConeKind.SECOND_ORDER:
            return SecondOrderBarrier()
        case ConeKind.SEMIDEFINITE:
            return SemidefiniteBarrier()
        case ConeKind.EXPONENTIAL:
            return ExponentialBarrier()
        case ConeKind.POWER:
            return PowerBarrier(cone.parameter)


def _positive_root(value: np.ndarray | float, mu: float) -> np.ndarray:
    """Return the positive root of η² − λη − μ, without cancellation."""
    value = np.asarray(value, float)
    root = np.sqrt(value**2 + 4.0 * mu)
    below = 2.0 * mu / (root - np.minimum(value, 0.0))
    return np.where(value > 0.0, 0.5 * (value + root), below)


def _reflected(y: Vector) -> Vector:
    """Return Jy = (t, −z)."""
    return np.concatenate([y[:1], -y[1:]])


def _inverse(y: Vector) -> np.ndarray:
    return np.linalg.inv(semidefinite.unpack(y[None])[0])


def _packed(matrix: np.ndarray) -> Vector:
    return semidefinite.pack(0.5 * (matrix + matrix.T)[None])[0]
