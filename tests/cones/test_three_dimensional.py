# SPDX-License-Identifier: Apache-2.0
"""The exponential and power cones where entries differ by many orders, and at their kinks."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer.cones import exponential, power
from cvxlayer.cones.three_dimensional import find_root
from tests.catalog.cones import ConeCase

ROUNDING = 1e-12
CASES = [
    ConeCase(exponential, 3),
    *(ConeCase(power, 3, (alpha,)) for alpha in (0.001, 0.2, 0.5, 0.99)),
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_spread = pytest.mark.parametrize("spread", [2, 8, 30])


def _spread_points(rng: np.random.Generator, spread: float) -> np.ndarray:
    """Rows with a largest entry of one and others down to 10^(−2·spread)."""
    point = rng.normal(size=(2000, 3)) * 10.0 ** rng.uniform(-spread, spread, size=(2000, 3))
    return point / np.abs(point).max(axis=1, keepdims=True)


@each_case
@each_spread
def test_entries_of_any_size_project_into_the_cone(
    case: ConeCase, spread: float, rng: np.random.Generator
) -> None:
    assert case.contains(case.call("project", _spread_points(rng, spread)), ROUNDING).all()


@each_case
@each_spread
def test_entries_of_any_size_split_into_orthogonal_parts(
    case: ConeCase, spread: float, rng: np.random.Generator
) -> None:
    point = _spread_points(rng, spread)
    inside = case.call("project", point)
    np.testing.assert_allclose(np.sum(inside * (point - inside), axis=1), 0.0, atol=ROUNDING)


@each_case
@each_spread
def test_what_is_left_of_entries_of_any_size_is_in_the_polar(
    case: ConeCase, spread: float, rng: np.random.Generator
) -> None:
    """Its inner products with points of the cone are not positive."""
    point = _spread_points(rng, spread)
    left = point - case.call("project", point)
    inside = case.call("project", _spread_points(rng, 3))
    assert (left @ inside.T <= ROUNDING).all()


@each_case
@each_spread
def test_the_derivative_keeps_the_projection_and_takes_the_point_to_it(
    case: ConeCase, spread: float, rng: np.random.Generator
) -> None:
    point = _spread_points(rng, spread)
    derivative, nearest = case.call("project_derivative", point), case.call("project", point)
    for vector in (point, nearest):
        product = np.einsum("bij,bj->bi", derivative, vector)
        np.testing.assert_allclose(product, nearest, atol=ROUNDING)


@each_case
@pytest.mark.parametrize("size", [1e-100, 1e100])
def test_the_projection_does_not_depend_on_units(
    case: ConeCase, size: float, rng: np.random.Generator
) -> None:
    point = case.points(rng)
    scaled, plain = case.call("project", size * point), case.call("project", point)
    np.testing.assert_allclose(scaled / size, plain, atol=ROUNDING)
    scaled, plain = (case.call("project_derivative", v) for v in (size * point, point))
    np.testing.assert_allclose(scaled, plain, atol=ROUNDING)


@each_case
def test_the_apex_stays(case: ConeCase) -> None:
    apex = np.zeros((1, 3))
    np.testing.assert_array_equal(case.call("project", apex), apex)
    np.testing.assert_array_equal(case.call("project_dual", apex), apex)
    assert np.isfinite(case.call("project_derivative", apex)).all()


@pytest.mark.parametrize(
    ("point", "nearest", "derivative"),
    [
        ((-2.0, -1.0, 3.0), (-2.0, 0.0, 3.0), (1.0, 0.0, 1.0)),
        ((-2.0, -1.0, -3.0), (-2.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
        ((1e-9, -1.0, 3.0), (0.0, 0.0, 3.0), (0.0, 0.0, 1.0)),
        ((-2.0, 1e-9, -3.0), (-2.0, 0.0, 0.0), (1.0, 1.0, 0.0)),
    ],
)
def test_the_faces_of_the_exponential_cone_are_planes(
    point: tuple[float, ...], nearest: tuple[float, ...], derivative: tuple[float, ...]
) -> None:
    row = np.array([point])
    np.testing.assert_allclose(exponential.project(row)[0], nearest, atol=1e-8)
    computed = exponential.project_derivative(row)[0]
    np.testing.assert_allclose(computed, np.diag(derivative), atol=1e-8)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("point", [(-1.0, 1.0, 0.0), (2.0, -0.5, 0.0), (-3.0, 1.0, 0.0)])
def test_the_edges_of_the_power_cone_have_the_limit_as_derivative(
    alpha: float, point: tuple[float, ...]
) -> None:
    row = np.array([point])
    beside = np.array([(*point[:2], 1e-14)])
    limit = power.project(beside, alpha)[0, 2] / 1e-14
    derivative = power.project_derivative(row, alpha)[0]
    np.testing.assert_array_equal(np.diag(derivative)[:2], row[0, :2] > 0.0)
    assert derivative[2, 2] == pytest.approx(limit, abs=2e-3)


def test_bisection_takes_over_where_newton_leaves_the_bracket() -> None:
    """The cube root of 0 and of 8, from where the slope is zero or misleading."""
    target = np.array([0.0, 8.0])
    root = find_root(
        lambda u: (np.cbrt(u - target), 1e-3 * np.ones(2)),
        np.array([3.0, -50.0]),
        np.full(2, -100.0),
        np.full(2, 100.0),
    )
    np.testing.assert_allclose(root, target, atol=1e-8)
