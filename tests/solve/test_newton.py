# SPDX-License-Identifier: Apache-2.0
"""Newton steps and units of single instances, and objectives made linear."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayer.cones import projection
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.solve.epigraph import factorize, keep_flat_directions, linearize_objective
from cvxlayer.solve.newton import ConeProgram, equilibrate, refine
from cvxlayer.solve.rows import read_instance
from tests.catalog.cone_programs import REGULAR, ConeProduct, ConeProgramCase, random_batch
from tests.catalog.true_solutions import refine as true_solutions
from tests.catalog.true_solutions import solve_accurately

ROUNDING = 1e-10
ERROR = 1e-3


def program_of(batch: ConeProgramBatch, index: int) -> ConeProgram:
    instance = read_instance(batch, index)
    assert instance is not None
    whole = sp.csc_matrix(instance.P + sp.triu(instance.P, 1).T)
    return ConeProgram(whole, instance.q, instance.A, instance.b, instance.cones)


@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_newton_steps_lead_from_nearby_to_the_solution(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    start = solve_accurately(batch)
    x_true, y_true, s_true = true_solutions(batch, start.x, start.y, start.s)
    program, units = equilibrate(program_of(batch, 0))
    present = np.isfinite(batch.b[0])
    if not present.any():
        y_true, s_true, present = np.zeros((1, 1)), np.ones((1, 1)), np.ones(1, dtype=bool)
    point = (
        x_true[0] / units.column,
        units.cost * y_true[0, present] / units.row,
        s_true[0, present] * units.row,
    )
    nearby = [part * (1.0 + ERROR * rng.uniform(-1, 1, part.shape)) for part in point]
    for found, true in zip(refine(program, *nearby), point, strict=True):
        np.testing.assert_allclose(found, true, atol=ROUNDING * (1.0 + np.abs(true).max()))


@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_units_change_the_program_and_not_its_solution(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    """Residuals of any point scale by the units, which bring every entry near one."""
    program = program_of(case.build(rng), 0)
    scaled, units = equilibrate(program)
    x, y = rng.normal(size=len(program.q)), rng.normal(size=len(program.b))
    s = projection.project(program.cones, y[None])[0]
    dual = program.P @ x + program.A.T @ y + program.q
    primal = program.A @ x + s - program.b
    x, y, s = x / units.column, units.cost * y / units.row, units.row * s
    np.testing.assert_allclose(
        scaled.P @ x + scaled.A.T @ y + scaled.q, units.cost * units.column * dual, atol=1e-9
    )
    np.testing.assert_allclose(scaled.A @ x + s - scaled.b, units.row * primal, atol=1e-9)
    np.testing.assert_allclose(projection.project(scaled.cones, s[None])[0], s, atol=1e-12)
    assert max(np.abs(scaled.P.data).max(initial=0.0), np.abs(scaled.q).max()) == pytest.approx(1)


@pytest.mark.parametrize("rank", [0, 1, 3, 6])
def test_a_factor_has_as_many_rows_as_the_matrix_has_rank(
    rank: int, rng: np.random.Generator
) -> None:
    root = rng.normal(size=(6, rank))
    whole = np.zeros((8, 8))
    whole[np.ix_([1, 2, 4, 5, 6, 7], [1, 2, 4, 5, 6, 7])] = root @ root.T
    whole[3, 3] = 2.0
    factor, rows = factorize(sp.csc_matrix(np.triu(whole)))
    assert rows == rank + 1
    np.testing.assert_allclose((factor.T @ factor).toarray(), whole, atol=1e-12)


def test_a_block_of_the_pattern_is_a_block_of_the_factor(rng: np.random.Generator) -> None:
    diagonal = rng.uniform(1.0, 2.0, size=5)
    factor, _ = factorize(sp.csc_matrix(np.diag(diagonal)))
    assert factor.nnz == 5


@pytest.mark.parametrize("cones", [ConeProduct(1, 4), ConeProduct(1, 2, (3, 4))], ids=str)
def test_the_linear_objective_has_the_value_of_the_quadratic_one(
    cones: ConeProduct, rng: np.random.Generator
) -> None:
    """At t = ½xᵀPx the new slack is on the boundary of its cone, and above it outside."""
    P, q, A, b = random_batch(rng, n=5, cones=cones, batch=1).instance(0)
    linear = linearize_objective(sp.csc_matrix(P), q, sp.csc_matrix(A), b, cones)
    x = rng.normal(size=5)
    half = 0.5 * x @ (P @ x + sp.triu(P, 1).T @ x)
    slack = linear.b - linear.A @ np.append(x, half)
    np.testing.assert_allclose(slack[linear.is_original], b - A @ x)
    cone = slack[~linear.is_original]
    assert np.linalg.norm(cone[1:]) == pytest.approx(cone[0])
    assert linear.q @ np.append(x, half) == pytest.approx(half + q @ x)
    assert linear.cones.size == len(linear.b)


def test_flat_directions_are_those_the_objective_does_not_see(rng: np.random.Generator) -> None:
    root = rng.normal(size=(4, 2))
    P = sp.csc_matrix(np.triu(root @ root.T))
    A, b = sp.csc_matrix(rng.normal(size=(3, 4))), np.ones(3)
    flat = keep_flat_directions(P, np.ones(4), A, b, ConeProduct(0, 3))
    assert flat.cones == ConeProduct(2, 3)
    kernel = np.linalg.svd(flat.A[:2].toarray())[2][2:]
    np.testing.assert_allclose(root.T @ kernel.T, 0.0, atol=1e-12)
