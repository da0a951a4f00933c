# SPDX-License-Identifier: Apache-2.0
"""A warm start changes how long a solve takes, and nothing of where it ends."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.native import pull_back
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.engine import prepare_engine
from cvxlayer.program.objective import objective_value
from cvxlayer.program.solution import ConeSolution, SolvedBy
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import WARM_STARTING, backend_names, get_backend
from cvxlayer.solve.residuals import measure
from tests.catalog.cone_programs import (
    ALL,
    REGULAR,
    SOLVABLE,
    ConeProgramCase,
    batch_of,
    random_batch,
)
from tests.catalog.hard_cone_programs import FAMILIES, hard_batch

WIDTHS = _native.widths()
EPS = 1e-9
TIGHT_EPS = 1e-11
ACCURACY = 1e-4
CHANGES = (1e-4, 1e-2, 0.3)

each_backend = pytest.mark.parametrize("backend", WARM_STARTING)


def solve(
    batch: ConeProgramBatch,
    start: ConeSolution | None = None,
    backend: str = "native",
    **extra: object,
) -> ConeSolution:
    engine = get_backend(backend)
    # A first-order method stops at its start if that meets the tolerance, and to an objective
    # of size 1e-6 an absolute one of 1e-9 is large.
    eps = EPS if backend == "native" else TIGHT_EPS
    settings = Settings(eps, eps, threads=1, extra=extra, warm_start=start)
    return engine.solve(engine.setup(batch.structure), batch, settings)


def moved(rng: np.random.Generator, batch: ConeProgramBatch, size: float) -> ConeProgramBatch:
    """Change q and b, and the entries of A, by a relative size."""

    def move(block: np.ndarray) -> np.ndarray:
        scale = np.where(np.isfinite(block), np.abs(block), 0.0)
        return block + size * rng.standard_normal(block.shape) * scale

    return dataclasses.replace(batch, q=move(batch.q), A=move(batch.A), b=move(batch.b))


def started(solution: ConeSolution) -> np.ndarray:
    return solution.solved_by == SolvedBy.WARM_START


@each_backend
@pytest.mark.parametrize("size", CHANGES)
@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_a_warm_started_row_equals_the_cold_one(
    backend: str, case: ConeProgramCase, size: float, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    start, changed = solve(batch), moved(rng, batch, size)
    cold, warm = solve(changed), solve(changed, start, backend)
    same = cold if backend == "native" else solve(changed, None, backend)
    np.testing.assert_array_equal(warm.status, same.status)
    good = np.flatnonzero(cold.status == Status.SOLVED)
    scale = np.abs(cold.x[good]).max(axis=1, keepdims=True, initial=1.0)
    np.testing.assert_array_less(np.abs(warm.x[good] - cold.x[good]) / scale, ACCURACY)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", SOLVABLE, ids=str)
def test_small_changes_are_followed_without_an_interior_point(
    case: ConeProgramCase, width: int, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    changed = dataclasses.replace(batch, q=batch.q * (1.0 + 1e-5))
    warm = solve(changed, solve(batch), width=width)
    assert started(warm).all()
    assert (warm.iterations <= 5).all()
    for row in range(batch.size):
        residuals = measure(changed.instance(row), warm.x[row], warm.y[row], warm.s[row])
        assert residuals.are_below(EPS, EPS), residuals


@pytest.mark.parametrize("case", SOLVABLE, ids=str)
def test_a_warm_started_point_is_complementary_and_in_its_cones(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    warm = solve(batch, solve(batch))
    cones = batch.structure.cones
    linear = slice(cones.zero, cones.num_linear)
    y, s = warm.y[:, linear], warm.s[:, linear]
    assert (y >= 0.0).all()
    assert (s >= 0.0).all()
    assert ((y == 0.0) | (s == 0.0)).all()
    assert (warm.s[:, : cones.zero] == 0.0).all()
    np.testing.assert_array_equal(warm.is_active[:, linear], y > 0.0)
    assert (warm.is_active[:, : cones.zero] == 1).all()
    assert (warm.is_active[:, cones.num_linear :] == -1).all()


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_hard_families_end_the_same_way(family: str, rng: np.random.Generator) -> None:
    differing: list[tuple[str, str]] = []
    for _ in range(20):
        batch, _ = hard_batch(family, rng)
        changed = moved(rng, batch, 1e-2)
        cold, warm = solve(changed), solve(changed, solve(batch))
        for row in range(batch.size):
            statuses = Status(int(cold.status[row])), Status(int(warm.status[row]))
            if statuses[0] is not statuses[1] and not all(s.has_solution for s in statuses):
                differing.append((statuses[0].name, statuses[1].name))
        good = (cold.status == Status.SOLVED) & (warm.status == Status.SOLVED)
        values = objective_value(changed, cold.x)[good], objective_value(changed, warm.x)[good]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-5, atol=1e-5)
    assert not differing


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", ALL, ids=str)
def test_a_useless_start_spoils_nothing(
    case: ConeProgramCase, width: int, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    start = solve(batch)
    for size in (0.0, 1e3, 1e200, np.nan):
        noise = [size * rng.standard_normal(part.shape) for part in (start.x, start.y)]
        useless = dataclasses.replace(
            start, x=noise[0], y=noise[1], status=np.zeros_like(start.status)
        )
        assert (solve(batch, useless, width=width).status == case.status).all(), size


@each_backend
def test_data_without_a_solution_get_their_certificate(
    backend: str, rng: np.random.Generator
) -> None:
    a, others = rng.normal(size=(1, 5)), rng.normal(size=(4, 5))
    rows, eye, q = np.concatenate([others, a, -a]), np.eye(5), rng.normal(size=5)
    feasible, contradicting = np.full(6, 3.0), np.array([3.0, 3, 3, 3, -1, -1])
    cones = ConeProduct(0, 6)
    before = batch_of(cones, [eye] * 3, [q] * 3, [rows] * 3, [feasible] * 3)
    bounds = [feasible, contradicting, feasible]
    after = batch_of(cones, [eye] * 3, [q] * 3, [rows] * 3, bounds)
    warm = solve(after, solve(before), backend)
    assert list(warm.status) == [Status.SOLVED, Status.INFEASIBLE, Status.SOLVED]
    assert after.b[1] @ warm.y[1] == pytest.approx(-1.0)
    assert np.abs(rows.T @ warm.y[1]).max() <= 1e-5


@each_backend
def test_rows_without_a_solution_are_solved_from_scratch(
    backend: str, rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=6, cones=ConeProduct(1, 7), batch=5)
    hopeless = dataclasses.replace(batch, b=batch.b.copy())
    hopeless.b[[1, 3], 2] = -np.inf
    start = solve(hopeless)
    assert not Status(int(start.status[1])).has_solution
    warm = solve(batch, start, backend)
    assert (warm.status == Status.SOLVED).all()
    assert list(started(warm)) == [True, False, True, False, True]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_warm_started_row_does_not_depend_on_its_neighbors(
    width: int, rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=8, cones=ConeProduct(2, 9, (3,)), batch=30)
    start, changed = solve(batch), moved(rng, batch, 0.5)
    whole = solve(changed, start, width=width)
    assert 0 < started(whole).sum() < 30
    order = rng.permutation(30)
    names = ("x", "y", "s", "status", "is_active")
    parts = {name: getattr(start, name)[order] for name in names}
    shuffled = solve(changed.select(order), dataclasses.replace(start, **parts), width=width)
    for name in ("x", "y", "s", "status", "iterations", "solved_by", "is_active"):
        np.testing.assert_array_equal(getattr(whole, name)[order], getattr(shuffled, name))


def test_threads_do_not_change_a_bit(rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=8, cones=ConeProduct(2, 9, (3,)), batch=40)
    batch = batch.select(np.tile(np.arange(40), 20))
    changed, start = moved(rng, batch, 0.1), solve(batch)
    engine = get_backend("native")
    found = [
        engine.solve(
            engine.setup(batch.structure), changed, Settings(threads=threads, warm_start=start)
        )
        for threads in (1, 4)
    ]
    for name in ("x", "y", "s", "status", "iterations", "solved_by"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))


@each_backend
def test_bounds_may_become_infinite_and_finite_again(
    backend: str, rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=6, cones=ConeProduct(1, 8), batch=6)
    looser = dataclasses.replace(batch, b=batch.b.copy())
    looser.b[::2, 3:5] = np.inf
    tight, loose = solve(batch), solve(looser)
    for data, start, expected in [(looser, tight, loose), (batch, loose, tight)]:
        warm = solve(data, start, backend)
        np.testing.assert_allclose(warm.x, expected.x, atol=ACCURACY)
        np.testing.assert_array_equal(np.isposinf(warm.s), np.isposinf(expected.s))
    assert (solve(looser, tight).y[::2, 3:5] == 0.0).all()


@pytest.mark.parametrize("cones", [ConeProduct(2, 9), ConeProduct(1, 6, (4,))], ids=str)
def test_gradients_at_warm_started_solutions_are_the_same(
    cones: ConeProduct, rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=8, cones=cones, batch=9)
    changed = dataclasses.replace(batch, q=batch.q + 1e-3 * rng.standard_normal(batch.q.shape))
    cold, warm = solve(changed), solve(changed, solve(batch))
    assert started(warm).all()
    engine, x_bar = prepare_engine(batch.structure), rng.standard_normal(cold.x.shape)
    ours, theirs = (pull_back(engine, changed, s, x_bar, None, None) for s in (warm, cold))
    for name in ("P", "q", "A", "b"):
        expected = getattr(theirs, name)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(getattr(ours, name), expected, rtol=0, atol=1e-6 * scale)


def test_the_limit_on_iterations_holds_for_the_steps(rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=8, cones=ConeProduct(2, 9), batch=20)
    start, changed = solve(batch), moved(rng, batch, 0.3)
    engine = get_backend("native")
    settings = Settings(max_iters=1, warm_start=start)
    limited = engine.solve(engine.setup(batch.structure), changed, settings)
    assert (limited.iterations <= 1).all()


def test_solvers_say_whether_they_use_a_warm_start() -> None:
    for package in ("ecos", "diffcp"):
        pytest.importorskip(package)
    names = [name for name in backend_names() if get_backend(name).uses_warm_start]
    assert tuple(names) == WARM_STARTING


def test_scs_needs_fewer_iterations_from_a_solution(rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=10, cones=ConeProduct(2, 8, (4,)), batch=6)
    changed = dataclasses.replace(batch, q=batch.q * (1.0 + 1e-4))
    cold, warm = solve(changed, None, "scs"), solve(changed, solve(batch), "scs")
    assert warm.iterations.sum() < cold.iterations.sum()
