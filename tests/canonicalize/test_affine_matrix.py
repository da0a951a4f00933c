# SPDX-License-Identifier: Apache-2.0
"""Algebra on matrices that are affine in θ agrees with the algebra at each θ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayer.canonicalize.affine_matrix import AffineMatrix

PARAMETERS = 3


def random_matrix(
    rng: np.random.Generator, rows: int, columns: int, terms: int = 12, *, constant: bool = False
) -> AffineMatrix:
    parameter = rng.integers(0, PARAMETERS + 1, terms)
    return AffineMatrix.of_terms(
        (rows, columns),
        PARAMETERS,
        rng.integers(0, rows, terms),
        rng.integers(0, columns, terms),
        np.full(terms, PARAMETERS) if constant else parameter,
        rng.normal(size=terms),
    )


def at(matrix: AffineMatrix, theta: np.ndarray) -> np.ndarray:
    dense = np.zeros(matrix.shape)
    np.add.at(
        dense, (matrix.row, matrix.column), matrix.value * np.append(theta, 1.0)[matrix.parameter]
    )
    return dense


@pytest.fixture
def theta(rng: Any) -> np.ndarray:
    return rng.normal(size=PARAMETERS)


def test_terms_are_summed_sorted_and_those_that_vanish_dropped() -> None:
    index = np.array([1, 1, 0, 0, 0])
    matrix = AffineMatrix.of_terms(
        (2, 1), 1, index, np.zeros(5, int), np.zeros(5, int), np.array([1.0, 2.0, 0.1, 0.2, -0.3])
    )
    # 0.1 + 0.2 − 0.3 is 5.6e-17 in floating point: a rounding error, not an entry.
    assert matrix.row.tolist() == [1]
    assert matrix.value.tolist() == [3.0]


def test_sums_transposes_and_submatrices(rng: Any, theta: np.ndarray) -> None:
    one, two = random_matrix(rng, 4, 5), random_matrix(rng, 4, 5)
    np.testing.assert_allclose(at(one + two, theta), at(one, theta) + at(two, theta))
    np.testing.assert_allclose(at(one.T, theta), at(one, theta).T)
    rows, columns = np.array([3, 0]), np.array([4, 1, 2])
    part = at(one.take(rows, columns), theta)
    np.testing.assert_allclose(part, at(one, theta)[np.ix_(rows, columns)])
    factors = rng.normal(size=4)
    np.testing.assert_allclose(
        at(one.scale_rows(factors), theta), factors[:, None] * at(one, theta)
    )


def test_products_with_a_constant_on_either_side(rng: Any, theta: np.ndarray) -> None:
    moving, fixed = random_matrix(rng, 4, 5), random_matrix(rng, 5, 3, constant=True)
    np.testing.assert_allclose(
        at(moving.matmul(fixed), theta), at(moving, theta) @ at(fixed, theta)
    )
    left = random_matrix(rng, 6, 4, constant=True)
    np.testing.assert_allclose(at(left.matmul(moving), theta), at(left, theta) @ at(moving, theta))


def test_products_of_moving_parts_that_do_not_meet(rng: Any, theta: np.ndarray) -> None:
    left = random_matrix(rng, 4, 2).take(None, np.array([0]))
    right = random_matrix(rng, 2, 3).take(np.array([1]), None)
    fixed = [random_matrix(rng, *shape, constant=True) for shape in ((4, 1), (1, 3))]
    both = [
        AffineMatrix.of_terms(
            (4, 2),
            PARAMETERS,
            np.concatenate([left.row, fixed[0].row]),
            np.concatenate([left.column, fixed[0].column + 1]),
            np.concatenate([left.parameter, fixed[0].parameter]),
            np.concatenate([left.value, fixed[0].value]),
        ),
        AffineMatrix.of_terms(
            (2, 3),
            PARAMETERS,
            np.concatenate([fixed[1].row, right.row + 1]),
            np.concatenate([fixed[1].column, right.column]),
            np.concatenate([fixed[1].parameter, right.parameter]),
            np.concatenate([fixed[1].value, right.value]),
        ),
    ]
    expected = at(both[0], theta) @ at(both[1], theta)
    np.testing.assert_allclose(at(both[0].matmul(both[1]), theta), expected)


def test_the_compressed_form_evaluates_to_the_matrix(rng: Any, theta: np.ndarray) -> None:
    matrix = random_matrix(rng, 6, 4, 20)
    indptr, indices, linear, offset = matrix.compressed()
    found = sp.csc_array((linear @ theta + offset, indices, indptr), shape=matrix.shape)
    assert found.has_sorted_indices
    np.testing.assert_allclose(found.toarray(), at(matrix, theta))
    column = random_matrix(rng, 6, 1)
    linear, offset = column.dense_column()
    np.testing.assert_allclose(linear @ theta + offset, at(column, theta).ravel())
