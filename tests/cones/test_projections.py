# SPDX-License-Identifier: Apache-2.0
"""The properties every cone owes, for every cone of the catalog."""

from __future__ import annotations

import numpy as np
import pytest

from tests.catalog.cones import CONES, ConeCase

ROUNDING = 1e-12
# Central differences with step h: truncation h², rounding 1e-16/h.
STEP = 1e-6
FINITE_DIFFERENCE = 1e-8

each_cone = pytest.mark.parametrize("case", CONES, ids=str)


@each_cone
def test_the_projection_lands_inside_the_cone(case: ConeCase, rng: np.random.Generator) -> None:
    assert case.contains(case.call("project", case.points(rng)), ROUNDING).all()


@each_cone
def test_projecting_twice_changes_nothing(case: ConeCase, rng: np.random.Generator) -> None:
    once = case.call("project", case.points(rng))
    np.testing.assert_allclose(case.call("project", once), once, atol=ROUNDING)


@each_cone
def test_a_point_of_the_cone_stays_where_it_is(case: ConeCase, rng: np.random.Generator) -> None:
    point = case.points(rng)
    inside = point[case.contains(point, 0.0)]
    np.testing.assert_array_equal(case.call("project", inside), inside)


@each_cone
def test_a_point_splits_into_orthogonal_parts_in_the_cone_and_in_its_polar(
    case: ConeCase, rng: np.random.Generator
) -> None:
    point = case.points(rng)
    in_cone, in_dual = case.call("project", point), case.call("project_dual", -point)
    np.testing.assert_allclose(in_cone - in_dual, point, atol=ROUNDING)
    np.testing.assert_allclose(np.sum(in_cone * in_dual, axis=1), 0.0, atol=10 * ROUNDING)


@each_cone
def test_points_of_the_cone_and_of_its_dual_form_acute_angles(
    case: ConeCase, rng: np.random.Generator
) -> None:
    in_cone = case.call("project", case.points(rng))
    in_dual = case.call("project_dual", case.points(rng))
    assert (in_cone @ in_dual.T >= -ROUNDING * 100).all()


@each_cone
@pytest.mark.parametrize("dual", [False, True], ids=["cone", "dual"])
def test_the_derivative_is_symmetric_with_eigenvalues_between_zero_and_one(
    case: ConeCase, dual: bool, rng: np.random.Generator
) -> None:
    derivative = _derivative(case, dual, case.points(rng))
    np.testing.assert_array_equal(derivative, derivative.transpose(0, 2, 1))
    eigenvalues = np.linalg.eigvalsh(derivative)
    assert eigenvalues.min() >= -ROUNDING
    assert eigenvalues.max() <= 1.0 + ROUNDING


@each_cone
@pytest.mark.parametrize("dual", [False, True], ids=["cone", "dual"])
def test_the_derivative_equals_finite_differences(
    case: ConeCase, dual: bool, rng: np.random.Generator
) -> None:
    point, direction = case.points(rng), rng.normal(size=(60, case.dim))
    project = "project_dual" if dual else "project"
    ahead, behind = (case.call(project, point + h * direction) for h in (STEP, -STEP))
    difference = (ahead - behind) / (2 * STEP)
    tangent = np.einsum("bij,bj->bi", _derivative(case, dual, point), direction)
    np.testing.assert_allclose(tangent, difference, atol=FINITE_DIFFERENCE)


@each_cone
@pytest.mark.parametrize("dual", [False, True], ids=["cone", "dual"])
def test_the_root_squared_is_the_derivative(
    case: ConeCase, dual: bool, rng: np.random.Generator
) -> None:
    point = case.points(rng)
    function = "project_dual_derivative_root" if dual else "project_derivative_root"
    root = case.call(function, point)
    np.testing.assert_allclose(root, root.transpose(0, 2, 1), atol=ROUNDING)
    assert np.linalg.eigvalsh(root).min() >= -ROUNDING
    np.testing.assert_allclose(root @ root, _derivative(case, dual, point), atol=ROUNDING)


@each_cone
def test_the_derivative_of_the_dual_projection_complements_that_of_the_projection(
    case: ConeCase, rng: np.random.Generator
) -> None:
    point = case.points(rng)
    complement = np.eye(case.dim) - case.call("project_derivative", -point)
    derivative = case.call("project_dual_derivative", point)
    np.testing.assert_allclose(derivative, complement, atol=ROUNDING)


@each_cone
def test_no_rows_give_no_rows(case: ConeCase) -> None:
    empty = np.zeros((0, case.dim))
    assert case.call("project", empty).shape == (0, case.dim)
    assert case.call("project_derivative", empty).shape == (0, case.dim, case.dim)


def _derivative(case: ConeCase, dual: bool, point: np.ndarray) -> np.ndarray:
    return case.call("project_dual_derivative" if dual else "project_derivative", point)
