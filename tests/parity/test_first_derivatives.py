# SPDX-License-Identifier: Apache-2.0
"""PyTorch and JAX have the values and first derivatives of NumPy's engine, in every mode."""

from __future__ import annotations

import numpy as np

from tests.catalog.parity_cases import ParityCase, unpack
from tests.parity.comparing import (
    DIFFERENCE,
    NUMPY,
    ROUNDING,
    SAME,
    assert_close,
    difference,
    each_case,
    each_kind,
    each_of_a_few,
    each_problem,
    each_smooth_case,
    jacobian_of,
    point_of,
    quietly,
)
from tests.parity.conftest import Frontend
from tests.parity.frontends import Subject

pytestmark = quietly


@each_problem
def test_values_are_those_of_numpy(case: ParityCase, frontend: Frontend) -> None:
    subject, theta = Subject(case, "solution"), point_of(case, 3)
    assert_close(frontend.call(subject, theta), NUMPY.call(subject, theta), SAME)


@each_kind
def test_statistics_are_those_of_numpy(case: ParityCase, frontend: Frontend) -> None:
    subject, theta = Subject(case, "solution"), point_of(case, 3)
    expected = NUMPY.layer(subject).solve(*unpack(theta, case.like))
    values = unpack(frontend.array(theta), case.like)
    found = frontend.layer(subject).solve(*values)
    for name in ("status", "iterations", "solved_by"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("primal", "dual", "gap"):
        left, right = (np.asarray(getattr(one.residuals, name)) for one in (found, expected))
        np.testing.assert_allclose(left, right, rtol=0, atol=SAME)


@each_smooth_case
def test_the_engine_has_the_slopes_of_its_answers(case: ParityCase, rng) -> None:
    subject, theta = Subject(case, "solution"), point_of(case)
    for _ in range(3):
        along = case.direction(rng)
        slope = difference(lambda point: NUMPY.call(subject, point), theta, along)
        assert_close(jacobian_of(subject) @ along, slope, DIFFERENCE)


@each_problem
def test_reverse_mode_is_that_of_numpy(case: ParityCase, frontend: Frontend, rng) -> None:
    subject, theta = Subject(case, "outputs"), point_of(case, 3)
    weights = rng.normal(size=NUMPY.call(subject, theta).shape)
    expected = NUMPY.vjp(subject, theta, weights)
    assert_close(frontend.vjp(subject, theta, weights), expected, ROUNDING)


@each_case
def test_forward_mode_is_the_jacobian_of_numpy(case: ParityCase, frontend: Frontend, rng) -> None:
    subject, theta, along = Subject(case, "outputs"), point_of(case), case.direction(rng)
    expected = jacobian_of(subject) @ along
    assert_close(frontend.jvp(subject, theta, along), expected, ROUNDING)


@each_case
def test_jacobians_by_rows_and_by_columns_are_those_of_numpy(
    case: ParityCase, frontend: Frontend
) -> None:
    subject, theta = Subject(case, "solution"), point_of(case)
    rows, columns = frontend.jacobians(subject, theta)
    assert_close(rows, jacobian_of(subject), ROUNDING)
    assert_close(columns, jacobian_of(subject), ROUNDING)


@each_of_a_few
def test_mapped_cotangents_and_tangents_are_products_with_the_jacobian(
    case: ParityCase, frontend: Frontend, rng
) -> None:
    subject, theta = Subject(case, "solution"), point_of(case)
    jacobian = jacobian_of(subject)
    weights, along = rng.normal(size=(4, len(jacobian))), case.direction(rng, 4)
    found = frontend.mapped_cotangents(subject, theta, weights)
    assert_close(found, weights @ jacobian, ROUNDING)
    found = frontend.mapped_tangents(subject, theta, along)
    assert_close(found, along @ jacobian.T, ROUNDING)


@each_case
def test_nested_maps_are_batches_of_two_dimensions(case: ParityCase, frontend: Frontend) -> None:
    subject, theta = Subject(case, "solution"), point_of(case, 2, 3)
    assert_close(frontend.nested_call(subject, theta), NUMPY.call(subject, theta), SAME)


@each_kind
def test_jacobians_of_nested_maps_are_those_of_each_row(
    case: ParityCase, frontend: Frontend
) -> None:
    subject, theta = Subject(case, "outputs"), point_of(case, 2, 2)
    found = frontend.nested_rows(subject, theta)
    for place in np.ndindex(2, 2):
        assert_close(found[place], NUMPY.jacobian(subject, theta[place]), ROUNDING)


@each_of_a_few
def test_broadcast_values_get_the_sums_of_their_gradients(
    case: ParityCase, frontend: Frontend, rng
) -> None:
    """The first value has batch dimensions (2, 1), the last (3), and all between have none."""
    subject = Subject(case, "solution")
    values = unpack(point_of(case), case.like)
    values[-1] = unpack(point_of(case, 3), case.like)[-1]
    values[0] = unpack(point_of(case, 2, 1), case.like)[0]
    batch = (2, 3) if len(values) > 1 else (2, 1)
    weights = rng.normal(size=NUMPY.call_with(subject, values, batch).shape)
    expected = NUMPY.vjp_with(subject, values, weights)
    found = frontend.gradients_with(subject, values, weights)
    for left, right in zip(found, expected, strict=True):
        # JAX's gradient with respect to a complex value is the conjugate of PyTorch's.
        assert_close(left.conj() if frontend.name == "jax" else left, right, ROUNDING)
