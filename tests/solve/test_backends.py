# SPDX-License-Identifier: Apache-2.0
"""What every backend owes, for every backend and every cone program of the catalog."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cvxlayer.cones import projection
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import backend_names, get_backend
from cvxlayer.solve.residuals import measure
from tests.catalog.backends import BACKENDS, CONES_OF, backend
from tests.catalog.cone_programs import (
    ALL,
    REGULAR,
    SOLVABLE,
    UNSOLVABLE,
    ConeProgramCase,
    batch_of,
    random_batch,
)
from tests.catalog.cone_programs import ConeProduct as Cones
from tests.catalog.true_solutions import refine

# The catalog is conditioned so that residuals of SOLVER_EPS leave errors below ACCURACY, relative
# to the largest entry of a solution.
SOLVER_EPS = 1e-9
ACCURACY = 1e-4
CERTIFICATE = 1e-5

each_backend = pytest.mark.parametrize("backend", BACKENDS)


def each_backend_with(cases: list[ConeProgramCase]) -> pytest.MarkDecorator:
    """Every case with every backend that has its cones."""
    pairs = []
    for case in cases:
        cones = case.build(np.random.default_rng(0)).structure.cones
        kinds = {cone.kind for cone in cones.curved}
        for name in backend_names():
            if kinds <= CONES_OF.get(name, kinds):
                marks = backend(name).marks
                pairs.append(pytest.param(case, name, marks=marks, id=f"{case}-{name}"))
    return pytest.mark.parametrize(("case", "backend"), pairs)


def solve(backend: str, batch: ConeProgramBatch, **options: object) -> ConeSolution:
    engine = get_backend(backend)
    settings = Settings(eps_abs=SOLVER_EPS, eps_rel=SOLVER_EPS)
    settings = dataclasses.replace(settings, **options)  # type: ignore[arg-type]
    return engine.solve(engine.setup(batch.structure), batch, settings)


@each_backend_with(ALL)
def test_every_row_gets_the_status_it_deserves(
    backend: str, case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    assert [Status(code).name for code in solve(backend, batch).status] == (
        [case.status.name] * batch.size
    )


@each_backend_with(SOLVABLE)
def test_a_solution_satisfies_the_optimality_conditions(
    backend: str, case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    solution = solve(backend, batch, eps_abs=1e-8, eps_rel=1e-8)
    cones = batch.structure.cones
    for row in range(batch.size):
        x, y, s = solution.x[row], solution.y[row], solution.s[row]
        residuals = measure(batch.instance(row), x, y, s)
        assert residuals.are_below(2e-8, 2e-8), residuals
        # Infinite slacks belong to rows that constrain nothing.
        finite = np.where(np.isfinite(s), s, 1.0)
        assert _distance(projection.project(cones, finite[None])[0], finite) <= 2e-8
        assert _distance(projection.project_dual(cones, y[None])[0], y) <= 2e-8


@each_backend_with(SOLVABLE)
def test_the_reported_residuals_are_those_of_the_returned_point(
    backend: str, case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    solution = solve(backend, batch)
    for row in range(batch.size):
        point = (solution.x[row], solution.y[row], solution.s[row])
        residuals = measure(batch.instance(row), *point)
        for reported, measured, scale in [
            (solution.primal_residual[row], residuals.primal, residuals.primal_scale),
            (solution.dual_residual[row], residuals.dual, residuals.dual_scale),
            (solution.gap[row], residuals.gap, residuals.gap_scale),
        ]:
            # Rows with an infinite bound may still have counted, with a vanishing multiplier.
            assert abs(reported - measured) <= SOLVER_EPS * (1.0 + scale)


@each_backend_with(UNSOLVABLE)
def test_a_certificate_certifies(
    backend: str, case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    solution = solve(backend, batch)
    cones = batch.structure.cones
    for row in range(batch.size):
        P, q, A, b = batch.instance(row)
        if case.status is Status.INFEASIBLE:
            y = solution.y[row]
            assert b @ y == pytest.approx(-1.0)
            assert np.abs(A.T @ y).max() <= CERTIFICATE
            assert _distance(projection.project_dual(cones, y[None])[0], y) <= CERTIFICATE
        else:
            x, s = solution.x[row], solution.s[row]
            assert q @ x == pytest.approx(-1.0)
            assert np.abs(P @ x + np.triu(P.toarray(), 1).T @ x).max() <= CERTIFICATE
            assert np.abs(A @ x + s).max(initial=0.0) <= CERTIFICATE
            assert _distance(projection.project(cones, s[None])[0], s) <= CERTIFICATE


@each_backend_with(REGULAR)
def test_a_batch_equals_its_single_solves(
    backend: str, case: ConeProgramCase, rng: np.random.Generator
) -> None:
    """To the accuracy of a solve: the blocks of a single instance count as shared, and a
    backend may round differently when it works on those."""
    batch = case.build(rng)
    together = solve(backend, batch)
    for row in range(batch.size):
        alone = solve(backend, batch.select(np.array([row])))
        for first, second in [(together.x[row], alone.x[0]), (together.y[row], alone.y[0])]:
            assert _distance(first, second) <= ACCURACY


@each_backend
@pytest.mark.parametrize("cones", [Cones(1, 5), Cones(1, 3, (3, 2))], ids=["linear", "mixed"])
def test_neighbours_do_not_matter(backend: str, cones: Cones, rng: np.random.Generator) -> None:
    pool = random_batch(rng, n=5, cones=cones, batch=40)
    mine, others, more = np.arange(11), np.arange(11, 22), np.arange(22, 40)
    first = solve(backend, pool.select(np.stack([mine, others], axis=1).ravel()))
    second = solve(backend, pool.select(np.concatenate([more, mine])))
    for name in ("x", "y", "s"):
        here, there = getattr(first, name)[::2], getattr(second, name)[-11:]
        np.testing.assert_allclose(here, there, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(first.iterations[::2], second.iterations[-11:])


@each_backend_with(REGULAR)
def test_the_solution_is_the_true_one(
    backend: str, case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    found, start = solve(backend, batch), solve("clarabel", batch)
    truth = refine(batch, start.x, start.y, start.s)
    for computed, true in zip((found.x, found.y), truth, strict=False):
        size = np.abs(true).max(axis=1, initial=1e-5, keepdims=True)
        assert (np.abs(computed - true) <= ACCURACY * size).all()


@each_backend
@pytest.mark.parametrize("dimensions", [(1, 1, 1), (2, 1), (3, 4, 1, 2)], ids=str)
def test_no_step_leaves_a_second_order_cone_through_its_apex(
    backend: str, dimensions: tuple[int, ...], rng: np.random.Generator
) -> None:
    """In the opposite cone the determinant is positive again and all residuals are small."""
    cones = Cones(0, 1, dimensions)
    batch = random_batch(rng, n=cones.size, cones=cones, batch=200)
    solution = solve(backend, batch, eps_abs=1e-8, eps_rel=1e-8)
    assert _distance(projection.project(cones, solution.s), solution.s) <= 1e-8
    assert _distance(projection.project_dual(cones, solution.y), solution.y) <= 1e-8


@each_backend
def test_the_same_call_twice_gives_the_same_bits(backend: str, rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=6, cones=Cones(1, 5, (3,)), batch=11)
    first, second = solve(backend, batch, threads=2), solve(backend, batch, threads=1)
    for name in ("x", "y", "s", "iterations"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@each_backend
@pytest.mark.parametrize("block", ["P", "q", "A", "b"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_one_bad_row_does_not_sink_the_others(
    backend: str, block: str, value: float, rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=5, cones=Cones(1, 4), batch=9)
    spoilt = getattr(batch, block).copy()
    spoilt[4, 0] = value
    good = solve(backend, batch)
    mixed = solve(backend, dataclasses.replace(batch, **{block: spoilt}))
    assert not Status(mixed.status[4]).has_solution
    others = np.arange(9) != 4
    np.testing.assert_array_equal(mixed.status[others], good.status[others])
    np.testing.assert_allclose(mixed.x[others], good.x[others], rtol=1e-9, atol=1e-9)


@each_backend
def test_rows_that_end_differently_live_in_one_batch(backend: str) -> None:
    A = np.array([[1.0, 0.0], [-1.0, 0.0]])
    bounds = [np.array([2.0, 1.0]), np.array([-2.0, 1.0]), np.array([3.0, 1.0])]
    costs = [np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([1.0, 1.0])]
    batch = batch_of(Cones(0, 2), [np.zeros((2, 2))] * 3, costs, [A] * 3, bounds)
    status = [Status(code) for code in solve(backend, batch).status]
    assert status == [Status.SOLVED, Status.INFEASIBLE, Status.UNBOUNDED]


@each_backend
def test_shared_blocks_of_one_row_mean_the_same_as_repeated_ones(
    backend: str, rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=5, cones=Cones(1, 4), batch=1)
    q = rng.normal(size=(6, 5)) * 0.1 + batch.q
    shared = dataclasses.replace(batch, size=6, q=q)
    repeated = dataclasses.replace(
        shared,
        **{name: np.repeat(getattr(batch, name), 6, axis=0) for name in ("P", "A", "b")},
    )
    np.testing.assert_allclose(
        solve(backend, shared).x, solve(backend, repeated).x, rtol=1e-9, atol=1e-9
    )


@each_backend
def test_an_empty_batch_gives_an_empty_solution(backend: str, rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=4, cones=Cones(1, 3)).select(np.array([], dtype=int))
    solution = solve(backend, batch)
    assert solution.x.shape == (0, 4)
    assert solution.y.shape == (0, 4)
    assert solution.status.shape == (0,)


@each_backend
def test_a_program_without_variables_is_decided_by_its_right_hand_side(backend: str) -> None:
    nothing = np.zeros((2, 0))
    bounds = [np.array([1.0, 2.0]), np.array([-1.0, 2.0])]
    batch = batch_of(Cones(0, 2), [np.zeros((0, 0))] * 2, [np.zeros(0)] * 2, [nothing] * 2, bounds)
    solution = solve(backend, batch)
    assert [Status(code) for code in solution.status] == [Status.SOLVED, Status.INFEASIBLE]
    np.testing.assert_allclose(solution.s[0], [1.0, 2.0], atol=1e-7)


@each_backend
def test_too_few_iterations_are_reported(backend: str, rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=8, cones=Cones(2, 9, (4,)), batch=3)
    solution = solve(backend, batch, max_iters=2)
    assert [Status(code) for code in solution.status] == [Status.MAX_ITERATIONS] * 3


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).max(initial=0.0)) / (
        1.0 + float(np.abs(second).max(initial=0.0))
    )
