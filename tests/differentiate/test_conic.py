# SPDX-License-Identifier: Apache-2.0
"""The derivative of cone programs: against finite differences of true solutions, and itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.conic import jvp, vjp
from cvxlayer.program.batch import ConeProgramBatch
from tests.catalog.cone_programs import (
    ALL,
    REGULAR,
    SOLVABLE,
    UNSOLVABLE,
    ConeProgramCase,
    random_batch,
    rescaled,
)
from tests.catalog.true_solutions import (
    BLOCKS,
    perturbed,
    random_direction,
    refine,
    solve_accurately,
)

# Newton's method solves to about 1e-13 of the size of a solution, and the four-point formula
# leaves STEP⁴ times the fifth derivative.
STEP = 1e-4
FINITE_DIFFERENCE = 1e-6
ADJOINT = 1e-9


def random_cotangents(
    batch: ConeProgramBatch, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, m = batch.structure.num_variables, batch.structure.num_rows
    return (
        rng.normal(size=(batch.size, n)),
        rng.normal(size=(batch.size, m)),
        rng.normal(size=(batch.size, m)),
    )


@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_jvp_equals_finite_differences(case: ConeProgramCase, rng: np.random.Generator) -> None:
    batch = case.build(rng)
    solution = solve_accurately(batch)
    direction = random_direction(batch, rng)
    tangent = jvp(batch, solution, *(direction[name] for name in BLOCKS))
    base = refine(batch, solution.x, solution.y, solution.s)
    moved = {
        factor: refine(perturbed(batch, direction, factor * STEP), *base)
        for factor in (-2, -1, 1, 2)
    }
    for part, computed in enumerate((tangent.x, tangent.y, tangent.s)):
        at = {
            factor: np.where(np.isfinite(base[part]), moved[factor][part], 0.0) for factor in moved
        }
        difference = (8.0 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12.0 * STEP)
        size = np.maximum(np.abs(difference), np.abs(at[1]))
        size = np.maximum(size, 1e-3 * size.max(axis=1, initial=0.0, keepdims=True)) + 1e-6
        error = np.abs(computed - difference)
        assert (error <= FINITE_DIFFERENCE * size).all(), (error / size).max()


@pytest.mark.parametrize("case", ALL, ids=str)
def test_vjp_is_the_adjoint_of_jvp(case: ConeProgramCase, rng: np.random.Generator) -> None:
    batch = case.build(rng)
    solution = solve_accurately(batch)
    direction = random_direction(batch, rng)
    x_bar, y_bar, s_bar = random_cotangents(batch, rng)
    tangent = jvp(batch, solution, *(direction[name] for name in BLOCKS))
    cotangent = vjp(batch, solution, x_bar, y_bar, s_bar)
    outputs = [(x_bar, tangent.x), (y_bar, tangent.y), (s_bar, tangent.s)]
    inputs = [(getattr(cotangent, name), direction[name]) for name in BLOCKS]
    forward = sum(np.sum(bar * dot, axis=1) for bar, dot in outputs)
    backward = sum(np.sum(bar * dot, axis=1) for bar, dot in inputs)
    size = sum(np.sum(np.abs(bar * dot), axis=1) for bar, dot in outputs + inputs)
    assert (np.abs(forward - backward) <= ADJOINT * size).all()


@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_the_linear_systems_are_solved(case: ConeProgramCase, rng: np.random.Generator) -> None:
    batch = case.build(rng)
    solution = solve_accurately(batch)
    cotangent = vjp(batch, solution, *random_cotangents(batch, rng))
    assert (cotangent.residual <= 1e-10).all()


@pytest.mark.parametrize("case", UNSOLVABLE, ids=str)
def test_rows_without_a_solution_have_exactly_zero_gradient(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    solution = solve_accurately(batch)
    cotangent = vjp(batch, solution, *random_cotangents(batch, rng))
    for name in BLOCKS:
        np.testing.assert_array_equal(getattr(cotangent, name), 0.0)
    np.testing.assert_array_equal(cotangent.residual, 0.0)
    tangent = jvp(batch, solution, dq=np.ones_like(batch.q))
    np.testing.assert_array_equal(tangent.x, 0.0)


@pytest.mark.parametrize("needed", range(4))
def test_only_what_is_needed_comes_back(needed: int, rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=4, cones=ConeProduct(1, 3))
    solution = solve_accurately(batch)
    bars = random_cotangents(batch, rng)
    everything = vjp(batch, solution, *bars)
    some = vjp(batch, solution, *bars, needs=[index == needed for index in range(4)])
    for index, name in enumerate(BLOCKS):
        if index == needed:
            np.testing.assert_array_equal(getattr(some, name), getattr(everything, name))
        else:
            assert getattr(some, name) is None


def test_a_cotangent_of_none_means_zero(rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=5, cones=ConeProduct(1, 3, (3,)))
    solution = solve_accurately(batch)
    x_bar, y_bar, s_bar = random_cotangents(batch, rng)
    whole = vjp(batch, solution, x_bar, y_bar, s_bar)
    parts = [
        vjp(batch, solution, x_bar),
        vjp(batch, solution, y_bar=y_bar),
        vjp(batch, solution, s_bar=s_bar),
    ]
    for name in BLOCKS:
        total = sum(getattr(part, name) for part in parts)
        np.testing.assert_allclose(total, getattr(whole, name), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_a_loose_solve_gives_the_same_gradient_as_a_tight_one(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    bars = random_cotangents(batch, rng)
    tight = vjp(batch, solve_accurately(batch, 1e-10), *bars)
    loose = vjp(batch, solve_accurately(batch, 1e-5), *bars)
    for name in BLOCKS:
        _assert_close_by_row(getattr(loose, name), getattr(tight, name), 1e-6)


def test_gradients_follow_a_change_of_units(rng: np.random.Generator) -> None:
    cones = ConeProduct(1, 6, (3,))
    batch = random_batch(rng, n=6, cones=cones)
    columns, rows = 10.0 ** rng.uniform(-4, 4, size=6), 10.0 ** rng.uniform(-4, 4, size=10)
    rows[cones.curved[0].rows] = 1e-3
    units = rescaled(batch, columns, rows, 1e5)
    x_bar, y_bar, s_bar = random_cotangents(batch, rng)
    # x' = x / columns, s' = rows s, y' = 1e5 y / rows: the same loss in the new units.
    here = vjp(batch, solve_accurately(batch), x_bar, y_bar, s_bar)
    bars = (x_bar * columns, y_bar * rows / 1e5, s_bar / rows)
    there = vjp(units, solve_accurately(units), *bars)
    np.testing.assert_allclose(there.q * columns * 1e5, here.q, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(there.b * rows, here.b, rtol=1e-6, atol=1e-8)
    unit = ConeProgramBatch(
        batch.structure, 1, *(np.ones((1, getattr(batch, name).shape[1])) for name in BLOCKS)
    )
    factor = rescaled(unit, columns, rows, 1e5)
    np.testing.assert_allclose(there.A * factor.A, here.A, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(there.P * factor.P, here.P, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_a_classification_the_solver_made_is_taken_over(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    solution = solve_accurately(batch)
    _, y, _ = refine(batch, solution.x, solution.y, solution.s)
    num_linear = batch.structure.cones.num_linear
    is_active = solution.is_active.copy()
    is_active[:, :num_linear] = y[:, :num_linear] > 0.0
    known = dataclasses.replace(solution, is_active=is_active)
    bars = random_cotangents(batch, rng)
    for name in BLOCKS:
        _assert_close_by_row(
            getattr(vjp(batch, known, *bars), name),
            getattr(vjp(batch, solution, *bars), name),
            1e-8,
        )


@pytest.mark.parametrize("case", SOLVABLE, ids=str)
def test_gradients_are_finite(case: ConeProgramCase, rng: np.random.Generator) -> None:
    batch = case.build(rng)
    cotangent = vjp(batch, solve_accurately(batch), *random_cotangents(batch, rng))
    for name in BLOCKS:
        assert np.isfinite(getattr(cotangent, name)).all()


def _assert_close_by_row(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    size = np.abs(expected).max(axis=1, initial=0.0, keepdims=True)
    assert (np.abs(actual - expected) <= tolerance * (size + 1e-12)).all(), (
        np.abs(actual - expected).max(),
        size,
    )
