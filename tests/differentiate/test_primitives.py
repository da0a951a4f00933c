# SPDX-License-Identifier: Apache-2.0
"""What derivatives of every order are made of: refine, apply and curvature."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cvxlayer.differentiate.primitives import apply, curvature, refine
from cvxlayer.program.batch import ConeProgramBatch
from tests.catalog.cone_programs import ALL, REGULAR, SOLVABLE, UNSOLVABLE, ConeProgramCase
from tests.catalog.second_order import change_of_apply
from tests.catalog.true_solutions import (
    perturbed,
    random_direction,
    solve_accurately,
)
from tests.catalog.true_solutions import refine as true_solution

STEP = 1e-4
FINITE_DIFFERENCE = 1e-5
ADJOINT = 1e-9
SMOOTH = [case for case in REGULAR if "scaled" not in str(case)]


def right_hand_sides(
    batch: ConeProgramBatch, count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    n, m = batch.structure.num_variables, batch.structure.num_rows
    return [rng.normal(size=(batch.size, count, length)) for length in (n, m, m)]


@pytest.mark.parametrize("case", ALL, ids=str)
def test_apply_is_its_own_adjoint(case: ConeProgramCase, rng: np.random.Generator) -> None:
    batch = case.build(rng)
    point = refine(batch, solve_accurately(batch))
    gx, gy, _ = right_hand_sides(batch, 2, rng)
    lam, nu, _ = apply(batch, point, gx, gy)
    # Nothing depends on a row with an infinite bound.
    gy = np.where(np.isfinite(point.v)[:, None], gy, 0.0)
    products = [
        (gx[:, 0] * lam[:, 1], gy[:, 0] * nu[:, 1]),
        (gx[:, 1] * lam[:, 0], gy[:, 1] * nu[:, 0]),
    ]
    there, back = (x.sum(axis=1) + y.sum(axis=1) for x, y in products)
    size = sum(np.abs(part).sum(axis=1) for pair in products for part in pair)
    assert (np.abs(there - back) <= ADJOINT * size).all()


@pytest.mark.parametrize("case", SOLVABLE, ids=str)
def test_the_point_is_a_solution(case: ConeProgramCase, rng: np.random.Generator) -> None:
    batch = case.build(rng)
    point = refine(batch, solve_accurately(batch))
    assert point.has_solution.all()
    assert (point.residual <= 1e-10).all()
    s = point.y / point.balance**2 - point.v / point.balance
    for row in range(batch.size):
        P, q, A, b = batch.instance(row)
        upper, x = P.toarray(), point.x[row]
        symmetric = upper + np.triu(upper, 1).T
        terms = [symmetric @ x, A.T @ point.y[row], q]
        largest = max(np.abs(term).max(initial=0.0) for term in terms)
        assert np.abs(sum(terms)).max(initial=0.0) <= 1e-8 * largest
        finite = np.isfinite(b)
        terms = [(A @ x)[finite], s[row, finite], b[finite]]
        largest = max(np.abs(term).max(initial=0.0) for term in terms)
        assert np.abs(terms[0] + terms[1] - terms[2]).max(initial=0.0) <= 1e-8 * largest


@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_apply_solves_the_linearized_conditions(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    """P λ + Aᵀν = gx, all units as given."""
    batch = case.build(rng)
    point = refine(batch, solve_accurately(batch))
    gx, gy, gs = right_hand_sides(batch, 2, rng)
    lam, nu, residual = apply(batch, point, gx, gy, gs)
    assert (residual <= 1e-10).all()
    for row in range(batch.size):
        P, _, A, _ = batch.instance(row)
        A, upper = A.toarray(), P.toarray()
        symmetric = upper + np.triu(upper, 1).T
        found, size = lam[row] @ symmetric + nu[row] @ A, np.abs(lam[row]) @ np.abs(symmetric)
        size = size + np.abs(nu[row]) @ np.abs(A) + np.abs(gx[row])
        assert (np.abs(found - gx[row]) <= 1e-8 * size.max()).all()


def test_one_right_hand_side_does_not_disturb_another(rng: np.random.Generator) -> None:
    batch = _case("mixed").build(rng)
    point = refine(batch, solve_accurately(batch))
    gx, gy, gs = right_hand_sides(batch, 3, rng)
    together = apply(batch, point, gx, gy, gs)
    for index in range(3):
        alone = apply(batch, point, *(g[:, index : index + 1] for g in (gx, gy, gs)))
        for several, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(several[:, index], one[:, 0])


def test_a_right_hand_side_of_none_is_zero(rng: np.random.Generator) -> None:
    batch = _case("mixed").build(rng)
    point = refine(batch, solve_accurately(batch))
    gx, gy, gs = right_hand_sides(batch, 1, rng)
    whole = apply(batch, point, gx, gy, gs)
    parts = [apply(batch, point, gx), apply(batch, point, gy=gy), apply(batch, point, gs=gs)]
    for index in range(2):
        total = sum(part[index] for part in parts)
        np.testing.assert_allclose(total, whole[index], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("case", UNSOLVABLE, ids=str)
def test_rows_without_a_solution_are_exactly_zero(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    point = refine(batch, solve_accurately(batch))
    assert not point.has_solution.any()
    _, gy, _ = sides = right_hand_sides(batch, 2, rng)
    for part in apply(batch, point, *sides):
        np.testing.assert_array_equal(part, 0.0)
    np.testing.assert_array_equal(curvature(batch, point, gy, gy), 0.0)
    for field in ("x", "y", "v", "is_active", "residual"):
        np.testing.assert_array_equal(getattr(point, field), 0)


@pytest.mark.parametrize("case", SOLVABLE, ids=str)
def test_curvature_is_zero_on_linear_rows(case: ConeProgramCase, rng: np.random.Generator) -> None:
    batch = case.build(rng)
    point = refine(batch, solve_accurately(batch))
    _, p, along = right_hand_sides(batch, 2, rng)
    linear = slice(0, batch.structure.cones.num_linear)
    np.testing.assert_array_equal(curvature(batch, point, p, along)[:, :, linear], 0.0)


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_the_change_of_apply_equals_finite_differences(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    """The rule for second derivatives, along a random direction of the data."""
    batch = case.build(rng)
    solution = solve_accurately(batch)
    point = refine(batch, solution)
    direction = random_direction(batch, rng)
    sides = right_hand_sides(batch, 1, rng)
    computed = change_of_apply(batch, point, direction, *sides)
    base = true_solution(batch, solution.x, solution.y, solution.s)

    def moved(factor: float) -> tuple[np.ndarray, ...]:
        nearby = perturbed(batch, direction, factor * STEP)
        x, y, s = true_solution(nearby, *base)
        found = dataclasses.replace(solution, x=x, y=y, s=s, is_active=point.is_active)
        return apply(nearby, refine(nearby, found), *sides)

    at = {factor: moved(factor) for factor in (-2, -1, 1, 2)}
    for part in range(2):
        expected = 8.0 * (at[1][part] - at[-1][part]) - (at[2][part] - at[-2][part])
        expected /= 12.0 * STEP
        size = np.abs(expected).max(axis=2, initial=1e-6, keepdims=True)
        size = np.maximum(size, np.abs(at[1][part]).max(axis=2, initial=0.0, keepdims=True))
        error = np.abs(computed[part] - expected)
        assert (error <= FINITE_DIFFERENCE * size).all(), (error / size).max()


def _case(name: str) -> ConeProgramCase:
    return next(case for case in SOLVABLE if str(case) == name)
