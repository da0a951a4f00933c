# SPDX-License-Identifier: Apache-2.0
"""The product of cones: its counts, its rows, and projections block by block."""

from __future__ import annotations

import numpy as np

from cvxlayer.cones import projection
from cvxlayer.cones.product import ConeProduct

CONES = ConeProduct(zero=2, nonnegative=3, second_order=(3, 1, 4))


def test_sizes_and_rows_of_a_product() -> None:
    assert CONES.size == 13
    assert CONES.num_linear == 5
    assert CONES.degree == 6
    assert [cone.rows for cone in CONES.curved] == [slice(5, 8), slice(8, 9), slice(9, 13)]


def test_an_empty_product_has_no_rows() -> None:
    assert ConeProduct().size == 0
    assert projection.project(ConeProduct(), np.zeros((4, 0))).shape == (4, 0)


def test_every_row_belongs_to_exactly_one_block() -> None:
    rows = np.concatenate([np.arange(13)[block] for _, block, _ in projection.blocks(CONES)])
    np.testing.assert_array_equal(rows, np.arange(13))


def test_moreau_holds_on_the_product(rng: np.random.Generator) -> None:
    point = rng.normal(size=(20, 13))
    in_cone, in_dual = projection.project(CONES, point), projection.project_dual(CONES, -point)
    np.testing.assert_allclose(in_cone - in_dual, point, atol=1e-12)


def test_the_derivative_of_the_product_is_block_diagonal(rng: np.random.Generator) -> None:
    point, direction = rng.normal(size=(20, 13)), rng.normal(size=(20, 13))
    derivative = projection.project_dual_derivative(CONES, point)
    np.testing.assert_array_equal(derivative[:, :2, 2:], 0.0)
    np.testing.assert_array_equal(derivative[:, 5:8, 8:], 0.0)
    step = 1e-6
    plus = projection.project_dual(CONES, point + step * direction)
    minus = projection.project_dual(CONES, point - step * direction)
    tangent = np.einsum("bij,bj->bi", derivative, direction)
    np.testing.assert_allclose(tangent, (plus - minus) / (2 * step), atol=1e-8)


def test_the_root_of_the_product_squares_to_the_derivative(rng: np.random.Generator) -> None:
    point = rng.normal(size=(20, 13))
    root = projection.project_dual_derivative_root(CONES, point)
    expected = projection.project_dual_derivative(CONES, point)
    np.testing.assert_allclose(root @ root, expected, atol=1e-12)


def test_curved_cones_follow_the_linear_rows_in_a_fixed_order():
    cones = ConeProduct(1, 2, (3,), (1, 3), 2, (0.3,))
    sizes = [(cone.kind.name, cone.size) for cone in cones.curved]
    assert sizes == [
        ("SECOND_ORDER", 3),
        ("SEMIDEFINITE", 1),
        ("SEMIDEFINITE", 6),
        ("EXPONENTIAL", 3),
        ("EXPONENTIAL", 3),
        ("POWER", 3),
    ]
    starts = [cone.rows.start for cone in cones.curved]
    assert starts == [3, 6, 7, 13, 16, 19]
    assert cones.size == 22
    assert cones.degree == 2 + 1 + 4 + 6 + 3
    assert cones.with_linear(0, 1).curved[0].rows == slice(1, 4)
