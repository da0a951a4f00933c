# SPDX-License-Identifier: Apache-2.0
"""Symmetric matrices as vectors, and points where the projection is not smooth."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer.cones import semidefinite

each_order = pytest.mark.parametrize("order", [1, 2, 3, 5])


@each_order
def test_unpacking_undoes_packing(order: int, rng: np.random.Generator) -> None:
    matrix = _symmetric(rng, order)
    np.testing.assert_allclose(semidefinite.unpack(semidefinite.pack(matrix)), matrix, rtol=1e-15)


@each_order
def test_packing_keeps_inner_products(order: int, rng: np.random.Generator) -> None:
    first, second = _symmetric(rng, order), _symmetric(rng, order)
    inner = np.sum(semidefinite.pack(first) * semidefinite.pack(second), axis=1)
    np.testing.assert_allclose(inner, np.sum(first * second, axis=(1, 2)), rtol=1e-13)


def test_packing_stacks_the_lower_triangle_column_by_column() -> None:
    matrix = np.array([[[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]]])
    expected = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]) * np.sqrt([1, 2, 2, 1, 2, 1])
    np.testing.assert_allclose(semidefinite.pack(matrix), expected, rtol=1e-15)


def test_the_upper_triangle_is_stacked_column_by_column_too() -> None:
    # Lower: 11 21 31 22 32 33. Upper: 11 12 22 13 23 33.
    np.testing.assert_array_equal(semidefinite.upper_triangle_order(3), [0, 1, 3, 2, 4, 5])


@each_order
def test_the_two_orders_undo_each_other(order: int) -> None:
    there, back = semidefinite.upper_triangle_order(order), semidefinite.lower_triangle_order(order)
    np.testing.assert_array_equal(there[back], np.arange(order * (order + 1) // 2))


@each_order
def test_repeated_eigenvalues_do_not_disturb_the_derivative(order: int) -> None:
    """At ±I every direction stays on its side."""
    identity = semidefinite.pack(np.eye(order)[None])
    inside = semidefinite.project_derivative(identity)[0]
    np.testing.assert_allclose(inside, np.eye(identity.shape[1]), atol=1e-14)
    np.testing.assert_array_equal(semidefinite.project_derivative(-identity)[0], 0.0)


def test_repeated_eigenvalues_of_both_signs_give_the_derivative_of_their_eigenspaces(
    rng: np.random.Generator,
) -> None:
    """X = 2 P − 3 (I − P): the blocks of H across the eigenspaces are weighted by 2/5."""
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    P = basis[:, :2] @ basis[:, :2].T
    N, H = np.eye(5) - P, _symmetric(rng, 5)[0]
    expected = P @ H @ P + 0.4 * (P @ H @ N + N @ H @ P)
    derivative = semidefinite.project_derivative(semidefinite.pack((2 * P - 3 * N)[None]))[0]
    tangent = derivative @ semidefinite.pack(H[None])[0]
    np.testing.assert_allclose(tangent, semidefinite.pack(expected[None])[0], atol=1e-13)


def test_a_zero_eigenvalue_counts_as_negative() -> None:
    diagonal = semidefinite.pack(np.diag([2.0, 0.0, -3.0])[None])
    derivative = semidefinite.project_derivative(diagonal)[0]
    np.testing.assert_allclose(np.diag(derivative), [1.0, 1.0, 0.4, 0.0, 0.0, 0.0], atol=1e-15)


def test_a_size_that_no_symmetric_matrix_has_is_refused() -> None:
    with pytest.raises(AssertionError, match="4 entries"):
        semidefinite.order_of(4)


def _symmetric(rng: np.random.Generator, order: int) -> np.ndarray:
    matrix = rng.normal(size=(7, order, order))
    return matrix + matrix.transpose(0, 2, 1)
