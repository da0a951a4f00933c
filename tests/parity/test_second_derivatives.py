# SPDX-License-Identifier: Apache-2.0
"""PyTorch and JAX have the same second derivatives, in every composition of modes."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.catalog.parity_cases import ParityCase
from tests.parity.comparing import (
    DIFFERENCE,
    ROUNDING,
    assert_close,
    difference,
    each_case,
    each_kind,
    each_of_a_few,
    each_smooth_case,
    point_of,
    quietly,
)
from tests.parity.conftest import Frontend, frontend_of
from tests.parity.frontends import ORDERS, Subject

pytestmark = quietly


@functools.cache
def hessian_of(case: ParityCase) -> np.ndarray:
    """Return the Hessian that all others are held against, PyTorch's."""
    subject = Subject(case, "solution")
    return frontend_of("torch").hessian(subject, point_of(case), ORDERS[1])


@each_smooth_case
def test_the_hessian_has_the_slopes_of_the_gradient(case: ParityCase, rng) -> None:
    torch, subject, theta = frontend_of("torch"), Subject(case, "solution"), point_of(case)
    for _ in range(2):
        along = case.direction(rng)
        slope = difference(lambda point: torch.gradient(subject, point), theta, along)
        assert_close(hessian_of(case) @ along, slope, 2 * DIFFERENCE)


@each_case
def test_hessians_of_both_orders_are_equal_and_symmetric(
    case: ParityCase, frontend: Frontend
) -> None:
    for order in ORDERS[:2]:
        found = frontend.hessian(Subject(case, "solution"), point_of(case), order)
        assert_close(found, hessian_of(case), ROUNDING)
        assert_close(found, found.T, ROUNDING)


@pytest.mark.parametrize("order", ORDERS[2:])
@each_kind
def test_hessians_of_every_order_are_equal_and_symmetric(
    case: ParityCase, order: str, frontend: Frontend
) -> None:
    found = frontend.hessian(Subject(case, "solution"), point_of(case), order)
    assert_close(found, hessian_of(case), ROUNDING)
    assert_close(found, found.T, ROUNDING)


@pytest.mark.parametrize("order", ORDERS[:3])
@each_of_a_few
def test_hessian_vector_products_are_products_with_the_hessian(
    case: ParityCase, order: str, frontend: Frontend, rng
) -> None:
    subject, theta, along = Subject(case, "solution"), point_of(case), case.direction(rng)
    found = frontend.hessian_product(subject, theta, along, order)
    assert_close(found, hessian_of(case) @ along, ROUNDING)


@each_of_a_few
def test_mapped_hessian_vector_products_are_those_of_each_row(
    case: ParityCase, frontend: Frontend, rng
) -> None:
    subject, theta, along = Subject(case, "outputs"), point_of(case, 2), case.direction(rng, 2)
    found = frontend.mapped_products(subject, theta, along)
    hessians = frontend.mapped_hessians(subject, theta)
    assert_close(found, np.einsum("bij,bj->bi", hessians, along), ROUNDING)
    torch = frontend_of("torch")
    for row in range(2):
        expected = torch.hessian(subject, theta[row], ORDERS[0])
        assert_close(hessians[row], expected, ROUNDING)
