# SPDX-License-Identifier: Apache-2.0
"""Gradients that can be written down, and cases where constraints depend on one another."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.conic import vjp
from cvxlayer.program.batch import ConeProgramBatch
from tests.catalog.cone_programs import batch_of, random_batch
from tests.catalog.true_solutions import solve_accurately

EXACT = 1e-10


def jacobian_of_x_in_q(batch: ConeProgramBatch) -> np.ndarray:
    """dx/dq of the first instance, one vjp for each row."""
    n = batch.structure.num_variables
    solution = solve_accurately(batch)
    rows = [vjp(batch, solution, np.eye(n)[[index]]).q for index in range(n)]
    return np.array([row[0] for row in rows if row is not None])


def test_least_squares_with_equalities(rng: np.random.Generator) -> None:
    n, k = 6, 2
    M, G, h, c = (rng.normal(size=shape) for shape in [(9, n), (k, n), k, 9])
    batch = batch_of(ConeProduct(zero=k), [M.T @ M], [-M.T @ c], [G], [h])
    solution = solve_accurately(batch)
    inverse = np.linalg.inv(np.block([[M.T @ M, G.T], [G, np.zeros((k, k))]]))
    x_bar, y_bar = rng.normal(size=(1, n)), rng.normal(size=(1, k))
    bar = inverse @ np.concatenate([x_bar[0], y_bar[0]])
    cotangent = vjp(batch, solution, x_bar, y_bar)
    assert cotangent.q is not None
    assert cotangent.b is not None
    np.testing.assert_allclose(cotangent.q[0], -bar[:n], rtol=EXACT)
    np.testing.assert_allclose(cotangent.b[0], bar[n:], rtol=EXACT)


def test_projection_onto_the_simplex(rng: np.random.Generator) -> None:
    n = 12
    point = rng.normal(size=n)
    A = np.concatenate([np.ones((1, n)), -np.eye(n)])
    b = np.concatenate([[1.0], np.zeros(n)])
    batch = batch_of(ConeProduct(1, n), [np.eye(n)], [-point], [A], [b])
    support = solve_accurately(batch).x[0] > 1e-6
    expected = np.diag(support.astype(float)) - np.outer(support, support) / support.sum()
    np.testing.assert_allclose(-jacobian_of_x_in_q(batch), expected, atol=EXACT)


def test_projection_onto_a_box(rng: np.random.Generator) -> None:
    point = rng.normal(size=10) * 2.0
    A, b = np.concatenate([np.eye(10), -np.eye(10)]), np.ones(20)
    batch = batch_of(ConeProduct(0, 20), [np.eye(10)], [-point], [A], [b])
    expected = np.diag((np.abs(point) < 1.0).astype(float))
    np.testing.assert_allclose(-jacobian_of_x_in_q(batch), expected, atol=EXACT)


def test_projection_onto_a_ball(rng: np.random.Generator) -> None:
    point = rng.normal(size=5)
    point *= 3.0 / np.linalg.norm(point)
    A = np.concatenate([np.zeros((1, 5)), -np.eye(5)])
    batch = batch_of(ConeProduct(0, 0, (6,)), [np.eye(5)], [-point], [A], [np.eye(6)[0]])
    unit = point / 3.0
    expected = (np.eye(5) - np.outer(unit, unit)) / 3.0
    np.testing.assert_allclose(-jacobian_of_x_in_q(batch), expected, atol=EXACT)


def test_minimum_of_a_norm_plus_a_linear_term() -> None:
    """Minimize ½t² + pt + qᵀx with ‖x − a‖ ≤ t: t = ‖q‖ − p and x = a − t q/‖q‖."""
    q, a = np.array([0.6, -0.3, 0.2]), np.array([1.0, 2.0, -1.0])
    P = np.diag([1.0, 0.0, 0.0, 0.0])
    batch = batch_of(
        ConeProduct(0, 0, (4,)), [P], [np.concatenate([[0.0], q])], [-np.eye(4)], [np.append(0, -a)]
    )
    solution = solve_accurately(batch)
    np.testing.assert_allclose(solution.x[0, 1:], a - q, atol=1e-6)
    unit = q[None] / np.linalg.norm(q)
    expected = np.block([[-np.ones((1, 1)), unit], [unit.T, -np.eye(3)]])
    np.testing.assert_allclose(jacobian_of_x_in_q(batch), expected, atol=EXACT)


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_a_constraint_share_its_gradient(copies: int, rng: np.random.Generator) -> None:
    single = random_batch(rng, n=6, cones=ConeProduct(2, 5), density=1.0)
    instances = [single.instance(row) for row in range(single.size)]
    rows = np.repeat(np.arange(7), copies)
    several = batch_of(
        ConeProduct(2 * copies, 5 * copies),
        [_symmetric(P.toarray()) for P, _, _, _ in instances],
        [q for _, q, _, _ in instances],
        [A.toarray()[rows] for _, _, A, _ in instances],
        [b[rows] for _, _, _, b in instances],
    )
    x_bar = rng.normal(size=(single.size, 6))
    expected = vjp(single, solve_accurately(single), x_bar)
    actual = vjp(several, solve_accurately(several), x_bar)
    assert actual.b is not None
    np.testing.assert_allclose(actual.q, expected.q, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(actual.P, expected.P, rtol=1e-8, atol=1e-10)
    summed = actual.b.reshape(single.size, 7, copies).sum(axis=2)
    np.testing.assert_allclose(summed, expected.b, rtol=1e-8, atol=1e-10)


def test_a_redundant_equality_changes_no_gradient(rng: np.random.Generator) -> None:
    plain = random_batch(rng, n=6, cones=ConeProduct(2), batch=1, density=1.0)
    P, q, A, b = plain.instance(0)
    combination = np.array([[1.0, 0.0], [0.0, 1.0], [0.7, -2.0]])
    more = batch_of(
        ConeProduct(3),
        [_symmetric(P.toarray())],
        [q],
        [combination @ A.toarray()],
        [combination @ b],
    )
    x_bar = rng.normal(size=(1, 6))
    expected = vjp(plain, solve_accurately(plain), x_bar)
    actual = vjp(more, solve_accurately(more), x_bar)
    np.testing.assert_allclose(actual.q, expected.q, rtol=1e-8, atol=1e-10)
    # The data of all three rows, pulled back to the two that define them.
    assert actual.b is not None
    np.testing.assert_allclose(actual.b @ combination, expected.b, rtol=1e-8, atol=1e-10)


def test_at_a_degenerate_vertex_the_gradient_is_that_of_an_adjacent_piece() -> None:
    """x₁ ≤ 1, x₂ ≤ 1 and x₁ + x₂ ≤ 2 meet in one point: any two of them decide."""
    A = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    batch = batch_of(
        ConeProduct(0, 3),
        [np.zeros((2, 2))],
        [np.array([-1.0, -1.0])],
        [A],
        [np.array([1.0, 1, 2])],
    )
    b_bar = vjp(batch, solve_accurately(batch), np.array([[1.0, 0.0]])).b
    assert b_bar is not None
    pieces = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 1.0]])
    assert np.abs(b_bar - pieces).max(axis=1).min() <= EXACT


def test_a_constraint_whose_slack_is_tiny_for_reasons_of_scale_is_inactive() -> None:
    """Minimize ½(x − 1)² with 1e-9 x ≤ 2e-9: the slack is 1e-9 and means nothing."""
    batch = batch_of(
        ConeProduct(0, 1), [np.eye(1)], [np.array([-1.0])], [np.array([[1e-9]])], [np.array([2e-9])]
    )
    np.testing.assert_allclose(jacobian_of_x_in_q(batch), [[-1.0]], atol=EXACT)


def test_a_constraint_whose_multiplier_is_tiny_for_reasons_of_scale_is_active() -> None:
    """Minimize 1e-7 (½x² − 2x) with x ≤ 1: the multiplier is 1e-7, and x stays at 1."""
    batch = batch_of(
        ConeProduct(0, 1), [1e-7 * np.eye(1)], [np.array([-2e-7])], [np.eye(1)], [np.ones(1)]
    )
    np.testing.assert_allclose(jacobian_of_x_in_q(batch), [[0.0]], atol=EXACT)


def _symmetric(upper: np.ndarray) -> np.ndarray:
    return upper + np.triu(upper, 1).T
