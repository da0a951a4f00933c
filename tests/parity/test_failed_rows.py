# SPDX-License-Identifier: Apache-2.0
"""Rows without a solution, and bounds that are infinite, are the same in every framework."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from tests.catalog.parity_cases import ParityCase, Parts, Values, pack
from tests.parity.comparing import NUMPY, ROUNDING, SAME, assert_close
from tests.parity.conftest import Frontend
from tests.parity.frontends import Subject

POINT = np.array([[2.0, 0.1], [0.5, 0.5], [0.2, -3.0]])
LOW = np.array([[-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
HIGH = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
GOOD = [0, 2]


def _between() -> Parts:
    """Project onto the box from `low` to `high`, empty where low > high, with a curved cost."""
    x, point = cp.Variable(2), cp.Parameter(2, name="point")
    low, high = cp.Parameter(2, name="low"), cp.Parameter(2, name="high")
    cost = cp.sum_squares(x - point) + cp.exp(x[0])
    problem = cp.Problem(cp.Minimize(cost), [low <= x, x <= high])
    return problem, [point, low, high], [x, problem.constraints[1].dual_variables[0]]


def _values(_: np.random.Generator) -> Values:
    return [POINT[0], LOW[0], HIGH[0]]


CASE = ParityCase("between", _between, _values)
SUBJECT = Subject(CASE, "outputs", on_failure="nan")
THETA = pack([POINT, LOW, HIGH], (3,), np.concatenate)


def assert_only_good_rows(found: np.ndarray, alone: np.ndarray) -> None:
    """Check that the failed row is exactly zero and the others are as without it."""
    assert not found[1].any()
    assert_close(found[GOOD], alone, ROUNDING)
    assert np.abs(alone).max() > 0


def test_failed_rows_are_nan_in_the_same_places(frontend: Frontend) -> None:
    for reading in ("outputs", "solution"):
        subject = Subject(CASE, reading, on_failure="nan")
        expected = NUMPY.call(subject, THETA)
        assert np.isnan(expected[1]).any()
        found = frontend.call(subject, THETA)
        np.testing.assert_allclose(found, expected, rtol=SAME, atol=SAME)


def test_cotangents_of_failed_rows_are_exactly_zero(frontend: Frontend, rng) -> None:
    weights = rng.normal(size=(3, 4))
    weights[1] = np.nan
    alone = NUMPY.vjp(SUBJECT, THETA[GOOD], weights[GOOD])
    assert_only_good_rows(NUMPY.vjp(SUBJECT, THETA, weights), alone)
    assert_only_good_rows(frontend.vjp(SUBJECT, THETA, weights), alone)


def test_tangents_of_failed_rows_are_exactly_zero(frontend: Frontend, rng) -> None:
    along = rng.normal(size=THETA.shape)
    jacobians = [NUMPY.jacobian(SUBJECT, THETA[row]) for row in GOOD]
    alone = np.stack([jacobian @ along[row] for jacobian, row in zip(jacobians, GOOD, strict=True)])
    assert_only_good_rows(frontend.jvp(SUBJECT, THETA, along), alone)


def test_second_derivatives_of_failed_rows_are_exactly_zero(frontend: Frontend, rng) -> None:
    along = rng.normal(size=THETA.shape)
    hessians = frontend.mapped_hessians(SUBJECT, THETA)
    assert_only_good_rows(hessians, frontend.mapped_hessians(SUBJECT, THETA[GOOD]))
    products = np.einsum("bij,bj->bi", hessians, along)
    assert_only_good_rows(frontend.mapped_products(SUBJECT, THETA, along), products[GOOD])


def test_infinite_bounds_are_no_bounds_and_have_no_derivative(frontend: Frontend) -> None:
    high = np.array([np.inf, 1.0])
    theta = pack([POINT[0], LOW[0], high], (), np.concatenate)
    subject = Subject(CASE, "solution")
    expected, jacobian = NUMPY.call(subject, theta), NUMPY.jacobian(subject, theta)
    np.testing.assert_allclose(frontend.call(subject, theta), expected, rtol=SAME, atol=SAME)
    for found in frontend.jacobians(subject, theta):
        assert_close(found, jacobian, ROUNDING)
        assert not found[:, 4].any()
