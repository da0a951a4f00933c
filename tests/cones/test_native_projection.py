# SPDX-License-Identifier: Apache-2.0
"""The projections of the native core, side by side with their specification."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones import exponential, power, second_order
from cvxlayer.cones.product import ConeKind
from tests.catalog.cones import ConeCase

KINDS = {
    second_order: ConeKind.SECOND_ORDER,
    exponential: ConeKind.EXPONENTIAL,
    power: ConeKind.POWER,
}
CASES = [
    *(ConeCase(second_order, dim) for dim in (1, 2, 3, 8)),
    ConeCase(exponential, 3),
    *(ConeCase(power, 3, (alpha,)) for alpha in (0.001, 0.1, 0.5, 0.7, 0.99)),
]
THREE_DIMENSIONAL = [case for case in CASES if case.cone is not second_order]
ROUNDING = 1e-13
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_width = pytest.mark.parametrize("width", _native.widths())


def native(
    case: ConeCase, point: np.ndarray, width: int, starts: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    count, size = point.shape
    nearest = np.empty_like(point)
    derivative, root = np.empty((2, count, size, size))
    parameter = case.arguments[0] if case.arguments else 0.0
    kind = KINDS[case.cone]
    _native.project_dual(kind, parameter, point, nearest, derivative, root, width, starts)
    return nearest, derivative, root


@each_case
@each_width
def test_native_projections_and_derivatives_are_those_of_the_specification(
    case: ConeCase, width: int, rng: np.random.Generator
) -> None:
    point = case.points(rng, batch=501)
    nearest, derivative, root = native(case, point, width)
    np.testing.assert_allclose(nearest, case.call("project_dual", point), atol=ROUNDING, rtol=0)
    expected = case.call("project_dual_derivative", point)
    np.testing.assert_allclose(derivative, expected, atol=100 * ROUNDING, rtol=0)
    expected = case.call("project_dual_derivative_root", point)
    np.testing.assert_allclose(root, expected, atol=100 * ROUNDING, rtol=0)


@pytest.mark.parametrize("case", THREE_DIMENSIONAL, ids=str)
@each_width
@pytest.mark.parametrize("spread", [2, 8, 30])
def test_entries_of_any_size_project_as_specified(
    case: ConeCase, width: int, spread: float, rng: np.random.Generator
) -> None:
    point = rng.normal(size=(2000, 3)) * 10.0 ** rng.uniform(-spread, spread, size=(2000, 3))
    point /= np.abs(point).max(axis=1, keepdims=True)
    nearest, derivative, _ = native(case, point, width)
    np.testing.assert_allclose(nearest, case.call("project_dual", point), atol=ROUNDING, rtol=0)
    # D v = Π(v), whatever the piece v lies on.
    product = np.einsum("bij,bj->bi", derivative, point)
    np.testing.assert_allclose(product, nearest, atol=10 * ROUNDING, rtol=0)


@pytest.mark.parametrize("case", THREE_DIMENSIONAL, ids=str)
@each_width
def test_faces_edges_and_the_apex_project_as_specified(case: ConeCase, width: int) -> None:
    """Points with zeros, where regions meet."""
    signs = np.array([-1.0, 0.0, 0.5])
    point = np.array(np.meshgrid(signs, signs, signs)).reshape(3, -1).T.copy()
    computed = native(case, point, width)
    names = ("project_dual", "project_dual_derivative", "project_dual_derivative_root")
    for ours, name in zip(computed, names, strict=True):
        np.testing.assert_allclose(ours, case.call(name, point), atol=100 * ROUNDING, rtol=0)


@each_case
def test_a_row_projects_alike_among_any_others(case: ConeCase, rng: np.random.Generator) -> None:
    point = case.points(rng, batch=50)
    order = rng.permutation(50)
    for width in _native.widths():
        for ours, shuffled in zip(
            native(case, point, width), native(case, point[order], width), strict=True
        ):
            np.testing.assert_array_equal(ours[order], shuffled)


def starting_pairs(case: ConeCase, point: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows (s, y): the point's own parts, parts that are off by more and more, and nonsense."""
    y = case.call("project_dual", point)
    own = np.concatenate([y - point, y], axis=1)
    off = own * (1.0 + 10.0 ** rng.uniform(-12, 1, size=(len(point), 1)) * rng.normal(size=(6,)))
    wild = rng.normal(size=own.shape) * 10.0 ** rng.uniform(-40, 40, size=own.shape)
    strange = rng.choice([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-320, 1e308], size=own.shape)
    kind = rng.integers(4, size=(len(point), 1))
    return np.choose(kind, [own, off, wild, strange])


@pytest.mark.parametrize("case", THREE_DIMENSIONAL, ids=str)
@each_width
@pytest.mark.parametrize("spread", [0, 2, 8, 30])
def test_a_projection_is_the_same_wherever_its_search_starts(
    case: ConeCase, width: int, spread: float, rng: np.random.Generator
) -> None:
    point = rng.normal(size=(3000, 3)) * 10.0 ** rng.uniform(-spread, spread, size=(3000, 3))
    point /= np.abs(point).max(axis=1, keepdims=True)
    starts = starting_pairs(case, point, rng)
    nearest, derivative, root = native(case, point, width, starts)
    np.testing.assert_allclose(nearest, case.call("project_dual", point), atol=ROUNDING, rtol=0)
    product = np.einsum("bij,bj->bi", derivative, point)
    np.testing.assert_allclose(product, nearest, atol=10 * ROUNDING, rtol=0)
    np.testing.assert_allclose(root @ root, derivative, atol=10 * ROUNDING, rtol=0)
    _, expected, _ = native(case, point, width)
    np.testing.assert_allclose(derivative, expected, atol=100 * ROUNDING, rtol=0)


@pytest.mark.parametrize("case", THREE_DIMENSIONAL, ids=str)
@each_width
def test_faces_and_edges_project_as_specified_from_any_start(
    case: ConeCase, width: int, rng: np.random.Generator
) -> None:
    """Where regions meet, a start beside the point must not take it to another."""
    signs = np.array([-1.0, -1e-14, 0.0, 1e-14, 0.5])
    corners = np.array(np.meshgrid(signs, signs, signs)).reshape(3, -1).T.copy()
    point = np.tile(corners, (20, 1))
    computed = native(case, point, width, starting_pairs(case, point, rng))
    for ours, cold in zip(computed, native(case, point, width), strict=True):
        np.testing.assert_allclose(ours, cold, atol=100 * ROUNDING, rtol=0)


@pytest.mark.parametrize("case", THREE_DIMENSIONAL, ids=str)
def test_a_started_row_projects_alike_among_any_others(
    case: ConeCase, rng: np.random.Generator
) -> None:
    point = case.points(rng, batch=50)
    starts = starting_pairs(case, point, rng)
    order = rng.permutation(50)
    for width in _native.widths():
        for ours, shuffled in zip(
            native(case, point, width, starts),
            native(case, point[order], width, starts[order]),
            strict=True,
        ):
            np.testing.assert_array_equal(ours[order], shuffled)
