# SPDX-License-Identifier: Apache-2.0
"""The steps from a solver's answer to the KKT matrix: scale, classify, polish, reduce."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cvxlayer.cones import projection
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.active_rows import classify, drop_dependent_rows
from cvxlayer.differentiate.residual_map import (
    ComplementaryPoint,
    DenseProgram,
    KktMatrix,
    polish,
    residual,
)
from cvxlayer.differentiate.scaling import equilibrate

CONES = ConeProduct(2, 6, (3, 4))


def program_with_solution(
    rng: np.random.Generator, cones: ConeProduct = CONES, n: int = 9
) -> tuple[DenseProgram, ComplementaryPoint]:
    """A random program and its exact solution, strictly complementary."""
    m = cones.size
    root, A, x = rng.normal(size=(n, n)), rng.normal(size=(m, n)), rng.normal(size=n)
    v = rng.normal(size=m)
    v += 0.3 * np.sign(v)
    is_active = v[: cones.num_linear] > 0.0
    is_active[: cones.zero] = True
    point = ComplementaryPoint(cones, x, v, is_active)
    P = root @ root.T
    return DenseProgram(cones, P, -P @ x - A.T @ point.y, A, A @ x + point.s), point


def test_a_point_made_of_v_is_complementary(rng: np.random.Generator) -> None:
    _, point = program_with_solution(rng)
    assert point.s @ point.y == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(projection.project(CONES, point.s[None])[0], point.s, atol=1e-12)
    np.testing.assert_allclose(projection.project_dual(CONES, point.y[None])[0], point.y)


def test_the_residual_is_zero_at_the_solution_and_only_there(rng: np.random.Generator) -> None:
    program, point = program_with_solution(rng)
    upper, lower = residual(program, point)
    np.testing.assert_allclose(np.concatenate([upper, lower]), 0.0, atol=1e-10)
    elsewhere = dataclasses.replace(point, x=point.x + 0.1)
    assert np.linalg.norm(np.concatenate(residual(program, elsewhere))) > 0.1


def test_equilibration_brings_rows_columns_and_cost_to_one(rng: np.random.Generator) -> None:
    program, _ = program_with_solution(rng)
    columns, rows = 10.0 ** rng.uniform(-5, 5, size=9), 10.0 ** rng.uniform(-5, 5, size=15)
    bad = DenseProgram(
        CONES,
        1e6 * columns[:, None] * program.P * columns,
        1e6 * columns * program.q,
        rows[:, None] * program.A * columns,
        rows * program.b,
    )
    scaling = equilibrate(bad)
    for block in (cone.rows for cone in CONES.curved):
        assert np.ptp(scaling.row[block]) == 0.0
    scaled = scaling.apply(bad)
    by_column = np.maximum(np.abs(scaled.P).max(axis=0), np.abs(scaled.A).max(axis=0))
    assert 0.1 <= by_column.min() <= by_column.max() <= 10.0
    by_row = np.abs(scaled.A).max(axis=1)
    by_cone = np.array([by_row[block].max() for block in (cone.rows for cone in CONES.curved)])
    sizes = np.concatenate([by_row[: CONES.num_linear], by_cone])
    assert 0.1 <= sizes.min() <= sizes.max() <= 10.0


def test_empty_rows_and_columns_survive_equilibration() -> None:
    program = DenseProgram(
        ConeProduct(0, 2), np.zeros((2, 2)), np.zeros(2), np.diag([1e-3, 0.0]), np.ones(2)
    )
    scaling = equilibrate(program)
    for factors in (scaling.column, scaling.row, np.array([scaling.cost])):
        assert np.isfinite(factors).all()
        assert (factors > 0.0).all()


def test_classification_finds_the_active_rows_from_an_interior_point(
    rng: np.random.Generator,
) -> None:
    program, point = program_with_solution(rng)
    linear = slice(CONES.zero, CONES.num_linear)
    y, s = point.y.copy(), point.s.copy()
    # As an interior-point method leaves them: products equal, whatever the sizes.
    y[linear], s[linear] = np.maximum(y[linear], 0.0), np.maximum(s[linear], 0.0)
    y[linear] += np.where(y[linear] == 0.0, 1e-6 / np.maximum(s[linear], 1e-12), 0.0)
    s[linear] += np.where(s[linear] == 0.0, 1e-6 / y[linear], 0.0)
    np.testing.assert_array_equal(classify(program, point.x, y, s), point.is_active)


def test_classification_takes_exact_zeros_at_their_word(rng: np.random.Generator) -> None:
    program, point = program_with_solution(rng)
    np.testing.assert_array_equal(classify(program, point.x, point.y, point.s), point.is_active)


def test_polish_reaches_rounding_from_a_loose_solution(rng: np.random.Generator) -> None:
    program, point = program_with_solution(rng)
    noisy = dataclasses.replace(
        point,
        x=point.x + 1e-4 * rng.normal(size=9),
        v=point.v + 1e-4 * rng.normal(size=15),
    )
    polished = polish(program, noisy)
    np.testing.assert_allclose(polished.x, point.x, atol=1e-10)
    np.testing.assert_allclose(polished.v, point.v, atol=1e-10)


def test_polish_never_makes_the_residual_larger(rng: np.random.Generator) -> None:
    program, point = program_with_solution(rng)
    for size in (1e-12, 1e-2, 1.0, 30.0):
        noisy = dataclasses.replace(point, v=point.v + size * rng.normal(size=15))
        before = np.linalg.norm(np.concatenate(residual(program, noisy)))
        after = np.linalg.norm(np.concatenate(residual(program, polish(program, noisy))))
        assert after <= before


def test_the_kkt_matrix_is_solved_and_its_map_is_symmetric(rng: np.random.Generator) -> None:
    program, point = program_with_solution(rng)
    root = point.projection_root()
    kkt = KktMatrix(program, root)
    first, second = rng.normal(size=24), rng.normal(size=24)
    upper, lower, relative = kkt.solve(first[:9], first[9:])
    assert relative <= 1e-12
    np.testing.assert_allclose(program.P @ upper + program.A.T @ root @ lower, first[:9], atol=1e-9)
    np.testing.assert_allclose(
        root @ program.A @ upper - (lower - root @ root @ lower), first[9:], atol=1e-9
    )
    other = np.concatenate(kkt.solve(second[:9], second[9:])[:2])
    assert second @ np.concatenate([upper, lower]) == pytest.approx(first @ other, rel=1e-9)


def test_a_singular_kkt_matrix_reports_what_it_cannot_solve() -> None:
    """Nothing holds x₂: a right-hand side there has no solution, one on x₁ has."""
    program = DenseProgram(
        ConeProduct(), np.diag([2.0, 0.0]), np.zeros(2), np.zeros((0, 2)), np.zeros(0)
    )
    kkt = KktMatrix(program, np.zeros((0, 0)))
    solution, _, relative = kkt.solve(np.array([4.0, 0.0]), np.zeros(0))
    np.testing.assert_allclose(solution, [2.0, 0.0])
    assert relative <= 1e-15
    _, _, relative = kkt.solve(np.array([0.0, 1.0]), np.zeros(0))
    assert relative == pytest.approx(1.0)


def test_dependent_rows_are_dropped_and_the_dual_condition_stays(rng: np.random.Generator) -> None:
    cones, n = ConeProduct(3, 8), 5
    independent = rng.normal(size=(4, n))
    # Two copies, a nonnegative combination, and an equality that follows from another.
    A = np.concatenate(
        [
            independent[:2],
            [2.0 * independent[0]],
            independent[2:],
            independent[2:],
            [independent[2] + 3.0 * independent[3]],
            rng.normal(size=(3, n)),
        ]
    )
    v = np.concatenate([rng.normal(size=3), rng.uniform(0.5, 1.5, size=5), -np.ones(3)])
    is_active = np.concatenate([np.ones(8, dtype=bool), np.zeros(3, dtype=bool)])
    program = DenseProgram(cones, np.eye(n), rng.normal(size=n), A, np.zeros(11))
    point = ComplementaryPoint(cones, rng.normal(size=n), v, is_active)
    reduced = drop_dependent_rows(program, point)
    assert np.linalg.matrix_rank(A[reduced.is_active]) == reduced.is_active.sum() == 4
    np.testing.assert_allclose(A.T @ reduced.y, A.T @ point.y, atol=1e-12)
    assert (reduced.y[3:] >= -1e-12).all()
    np.testing.assert_array_equal(reduced.is_active[8:], False)
    np.testing.assert_array_equal(reduced.v[8:], point.v[8:])


def test_independent_rows_are_left_alone(rng: np.random.Generator) -> None:
    program, point = program_with_solution(rng, ConeProduct(2, 5), n=9)
    reduced = drop_dependent_rows(program, point)
    np.testing.assert_array_equal(reduced.is_active, point.is_active)
    np.testing.assert_allclose(reduced.v, point.v)
