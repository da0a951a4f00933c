# SPDX-License-Identifier: Apache-2.0
"""The barriers of the dual cones, and the smooth map that they make of the projection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cvxlayer.cones import barrier, projection, semidefinite
from cvxlayer.cones.product import ConeProduct

CASES = {
    "nonnegative": (ConeProduct(0, 3), 3),
    "second-order-1": (ConeProduct(second_order=(1,)), 1),
    "second-order-5": (ConeProduct(second_order=(5,)), 1),
    "semidefinite": (ConeProduct(semidefinite=(3,)), 3),
    "exponential": (ConeProduct(exponential=1), 3),
    "power-0.2": (ConeProduct(power=(0.2,)), 3),
    "power-0.5": (ConeProduct(power=(0.5,)), 3),
}
MUS = (1.0, 1e-2, 1e-4)
STEP = 1e-5
DIFFERENCE = 1e-6
each_case = pytest.mark.parametrize("name", CASES)
each_mu = pytest.mark.parametrize("mu", MUS)


def value(name: str, y: np.ndarray) -> float:
    """f*, from the list in the file itself."""
    if name == "nonnegative":
        return -np.log(y).sum()
    if name.startswith("second-order"):
        return -0.5 * math.log(y[0] ** 2 - y[1:] @ y[1:])
    if name == "semidefinite":
        return -math.log(np.linalg.det(semidefinite.unpack(y[None])[0]))
    if name == "exponential":
        psi = y[1] - y[0] - y[0] * math.log(-y[2] / y[0])
        return -math.log(psi) - math.log(-y[0]) - math.log(y[2])
    alpha = float(name.rsplit("-", 1)[-1])
    psi = (y[0] / alpha) ** (2 * alpha) * (y[1] / (1 - alpha)) ** (2 - 2 * alpha) - y[2] ** 2
    return -math.log(psi) - (1 - alpha) * math.log(y[0]) - alpha * math.log(y[1])


def points(name: str, mu: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Some v on all sides of the cone, and the Π_μ(v)."""
    rng, cones = np.random.default_rng(0), CASES[name][0]
    rows = rng.normal(size=(4, cones.size)) * 10.0 ** rng.uniform(-1, 1, size=(4, 1))
    return [(v, barrier.project(cones, v, mu)) for v in rows]


def slope(function: Callable[[np.ndarray], Any], point: np.ndarray) -> np.ndarray:
    """Central differences along every coordinate, as columns."""
    size = STEP * np.abs(point).min()
    units = size * np.eye(len(point))
    ends = [(function(point + unit), function(point - unit)) for unit in units]
    return np.stack([(ahead - behind) / (2 * size) for ahead, behind in ends], axis=-1)


@each_case
@each_mu
def test_gradient_hessian_and_third_derivative_are_differences(name: str, mu: float) -> None:
    ((found, rows),) = barrier.barriers(CASES[name][0])
    rng = np.random.default_rng(1)
    for _, y in points(name, mu):
        y = y[rows] + 0.1 * barrier.project(CASES[name][0], 0.0 * y, 1.0)[rows]  # well inside
        u, w = rng.normal(size=(2, len(y)))
        for ours, expected in (
            (found.gradient(y), slope(lambda at: value(name, at), y)),
            (found.hessian(y), slope(found.gradient, y)),
            (found.third(y, u, w), slope(lambda at, u=u: found.hessian(at) @ u, y) @ w),
        ):
            size = 1e-6 * (1.0 + np.abs(expected).max())
            np.testing.assert_allclose(ours, expected, rtol=0, atol=size)


@each_case
@each_mu
def test_the_point_is_on_the_path(name: str, mu: float) -> None:
    """y − v = −μ∇f*(y), hence yᵀs = νμ, and both are inside their cones."""
    cones, degree = CASES[name]
    ((found, rows),) = barrier.barriers(cones)
    for v, y in points(name, mu):
        s, size = y - v, 1.0 + np.abs(v).max()
        np.testing.assert_allclose(s, -mu * found.gradient(y[rows]), rtol=0, atol=1e-9 * size)
        assert abs(y @ s - degree * mu) <= 1e-9 * size**2
        np.testing.assert_allclose(projection.project(cones, s[None])[0], s, atol=1e-9 * size)
        np.testing.assert_allclose(projection.project_dual(cones, y[None])[0], y, atol=1e-9 * size)


@each_case
@each_mu
def test_its_derivatives_are_differences(name: str, mu: float, rng: np.random.Generator) -> None:
    cones = CASES[name][0]
    # Derivatives grow with 1/√μ. The four-point formula leaves the fourth power of the step, and
    # rounding over the step: each at most a fifth of what is allowed.
    step = 1e-2 * math.sqrt(mu)
    for v, y in points(name, mu):
        p, q = rng.normal(size=(2, cones.size))

        def differences(
            function: Callable[[np.ndarray], Any], v: np.ndarray = v, q: np.ndarray = q
        ) -> np.ndarray:
            near, far = (function(v + k * q) - function(v - k * q) for k in (step, 2 * step))
            return (8 * near - far) / (12 * step)

        D = barrier.project_derivative(cones, y, mu)
        moved = differences(lambda at: barrier.project(cones, at, mu))
        np.testing.assert_allclose(D @ q, moved, atol=DIFFERENCE)
        values = np.linalg.eigvalsh(D)
        assert values[0] > 0.0
        assert values[-1] < 1.0 + 1e-12
        bent = differences(
            lambda at, p=p: (
                barrier.project_derivative(cones, barrier.project(cones, at, mu), mu) @ p
            )
        )
        ours = barrier.project_second_derivative(cones, y, mu, p, q)
        size = 1.0 + np.abs(bent).max()
        np.testing.assert_allclose(ours, bent, rtol=0, atol=DIFFERENCE * size)


@each_case
def test_for_small_mu_it_is_the_projection(name: str) -> None:
    cones = CASES[name][0]
    for v, y in points(name, 1e-10):
        nearest = projection.project_dual(cones, v[None])[0]
        np.testing.assert_allclose(y, nearest, atol=1e-7)
        D = barrier.project_derivative(cones, y, 1e-10)
        expected = projection.project_dual_derivative(cones, v[None])[0]
        np.testing.assert_allclose(D, expected, atol=1e-4)
