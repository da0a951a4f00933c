# SPDX-License-Identifier: Apache-2.0
"""The second derivative of every projection, D²Π(v)[p, p']."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cvxlayer.cones import exponential, power, semidefinite
from tests.catalog.cones import CONES, ConeCase

ROUNDING = 1e-12
# The four-point formula with step h leaves h⁴ times a fifth derivative, and 1e-16/h of rounding.
STEP = 1e-4
FINITE_DIFFERENCE = 1e-8
THREE_DIMENSIONAL = [
    ConeCase(exponential, 3),
    *(ConeCase(power, 3, (alpha,)) for alpha in (0.001, 0.2, 0.5, 0.99)),
]
each_cone = pytest.mark.parametrize("case", CONES, ids=str)
each_side = pytest.mark.parametrize("project", ["project", "project_dual"])


def differences(case: ConeCase, project: str, v: np.ndarray, *directions: np.ndarray) -> np.ndarray:
    """D²Π(v)[p, p'] by differences of the derivative along p'."""
    p, along = directions

    def moved(step: float) -> np.ndarray:
        derivative = case.call(f"{project}_derivative", v + step * along)
        return np.einsum("bij,bj->bi", derivative, p)

    near, far = moved(STEP) - moved(-STEP), moved(2 * STEP) - moved(-2 * STEP)
    return (8 * near - far) / (12 * STEP)


def away_from_kinks(case: ConeCase, project: str, v: np.ndarray) -> np.ndarray:
    """Rows around which the derivative does not jump."""
    rng = np.random.default_rng(1)
    around = [v + 0.05 * rng.normal(size=v.shape) for _ in range(20)]
    here = case.call(f"{project}_derivative", v)
    jumps = [np.abs(case.call(f"{project}_derivative", w) - here).max(axis=(1, 2)) for w in around]
    return v[np.max(jumps, axis=0) < 0.2]


@each_cone
@each_side
def test_it_equals_finite_differences_of_the_derivative(
    case: ConeCase, project: str, rng: np.random.Generator
) -> None:
    v = away_from_kinks(case, project, case.points(rng, 200))
    p, along = rng.normal(size=(2, *v.shape))
    computed = case.call(f"{project}_second_derivative", v, p, along)
    expected = differences(case, project, v, p, along)
    assert len(v) > 20
    size = 1.0 + np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(computed - expected) <= FINITE_DIFFERENCE * size).all()


@each_cone
@each_side
def test_it_is_symmetric_in_three_directions(
    case: ConeCase, project: str, rng: np.random.Generator
) -> None:
    v = case.points(rng)
    directions = rng.normal(size=(3, *v.shape))
    values = []
    for first, second, third in itertools.permutations(directions):
        computed = case.call(f"{project}_second_derivative", v, first, second)
        values.append(np.sum(computed * third, axis=1))
    scale = 1.0 + np.abs(values[0])
    assert (np.abs(np.array(values) - values[0]) <= 10 * ROUNDING * scale).all()


@each_cone
@each_side
def test_along_the_point_itself_the_derivative_does_not_change(
    case: ConeCase, project: str, rng: np.random.Generator
) -> None:
    v = case.points(rng)
    p = rng.normal(size=v.shape)
    sized = np.abs(case.call(f"{project}_second_derivative", v, p, p)).max(axis=1)
    change = np.abs(case.call(f"{project}_second_derivative", v, p, v)).max(axis=1)
    assert (change <= 100 * ROUNDING * (1.0 + sized)).all()


@each_cone
def test_no_rows_give_no_rows(case: ConeCase) -> None:
    empty = np.zeros((0, case.dim))
    assert case.call("project_second_derivative", empty, empty, empty).shape == (0, case.dim)


def test_repeated_eigenvalues_need_no_limit(rng: np.random.Generator) -> None:
    """X = 2 P − 3 (I − P), where the projection is smooth."""
    case = ConeCase(semidefinite, 15)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    P = basis[:, :2] @ basis[:, :2].T
    v = semidefinite.pack((2 * P - 3 * (np.eye(5) - P))[None])
    p, along = rng.normal(size=(2, 1, 15))
    computed = case.call("project_second_derivative", v, p, along)
    expected = differences(case, "project", v, p, along)
    np.testing.assert_allclose(computed, expected, atol=10 * FINITE_DIFFERENCE)


def test_a_zero_eigenvalue_counts_as_negative() -> None:
    weights = semidefinite.second_divided_differences(np.array([[2.0, 1.0, 0.0, -3.0]]))[0]
    assert weights[0, 2, 0] == 0.0  # two positive and 0
    assert weights[0, 2, 2] == pytest.approx(0.5)  # 2/(2 + 0)²
    assert weights[0, 2, 3] == pytest.approx(0.2)  # 2/((2 + 0)(2 + 3))
    assert weights[0, 1, 3] == pytest.approx(3.0 / 20.0)


@pytest.mark.parametrize("case", THREE_DIMENSIONAL, ids=str)
@pytest.mark.parametrize("spread", [2, 8])
def test_entries_of_any_size_keep_their_digits(
    case: ConeCase, spread: float, rng: np.random.Generator
) -> None:
    """Against the symmetric trilinear form with v in one place, which vanishes."""
    v = rng.normal(size=(2000, 3)) * 10.0 ** rng.uniform(-spread, spread, size=(2000, 3))
    v /= np.abs(v).max(axis=1, keepdims=True)
    p = rng.normal(size=v.shape)
    sized = np.abs(case.call("project_second_derivative", v, p, p)).max(axis=1)
    change = np.abs(case.call("project_second_derivative", v, p, v)).max(axis=1)
    assert np.isfinite(sized).all()
    assert (change <= 1e3 * ROUNDING * (1.0 + sized)).all()


@pytest.mark.parametrize("rho", [-30.0, -8.0, -1.0, 0.0, 1.5, 8.0, 30.0])
def test_it_is_accurate_along_the_whole_exponential_curve(
    rho: float, rng: np.random.Generator
) -> None:
    """v = β p(ρ) + λ n(ρ) is known exactly, and so is how D changes with ρ, β and λ."""
    beta, lam = np.exp(min(0.0, -rho)), np.exp(min(0.0, -rho))
    p = rng.normal(size=3)
    step = 1e-3

    def at(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r, b, m = parameters
        ray = np.array([r, 1.0, np.exp(r)])
        normal = np.array([np.exp(r), (1 - r) * np.exp(r), -1.0])
        u, n = ray / np.linalg.norm(ray), normal / np.linalg.norm(normal)
        theta = 1.0 / (1.0 + m / b * np.exp(r) * (ray @ ray) / (normal @ normal))
        c = np.cross(n, u)
        return b * ray + m * normal, u * (u @ p) + theta * c * (c @ p)

    start = np.array([rho, beta, lam])
    for direction in np.diag([1.0, beta, lam]):
        steps = [at(start + factor * step * direction) for factor in (-2, -1, 1, 2)]
        weights = np.array([1.0, -8.0, 8.0, -1.0]) / (12.0 * step)
        along, expected = (
            sum(weight * pair[part] for weight, pair in zip(weights, steps, strict=True))
            for part in (0, 1)
        )
        computed = exponential.project_second_derivative(
            at(start)[0][None], p[None], np.asarray(along)[None]
        )[0]
        np.testing.assert_allclose(computed, expected, atol=1e-7 * np.abs(expected).max() + 1e-9)


def test_the_power_cone_of_one_half_has_no_edge() -> None:
    """Where z = 0 it is as smooth as the second-order cone that it is."""
    v = np.array([[-1.0, 2.0, 0.0], [2.0, -0.3, 0.0]])
    p, along = np.array([[0.3, -1.0, 0.7], [1.0, 2.0, -0.4]]), np.array([[1.0, 0.2, 2.0]] * 2)
    computed = power.project_second_derivative(v, p, along, 0.5)
    beside = power.project_second_derivative(v + np.array([0.0, 0.0, 1e-9]), p, along, 0.5)
    np.testing.assert_allclose(computed, beside, atol=1e-8)
    assert np.abs(computed).min() > 1e-3
