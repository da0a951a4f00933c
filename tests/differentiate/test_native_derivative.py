# SPDX-License-Identifier: Apache-2.0
"""The native derivative against its NumPy specification."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate import conic
from cvxlayer.differentiate.native import pull_back
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent
from cvxlayer.program.engine import prepare_engine
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.clarabel import ClarabelBackend
from cvxlayer.solve.native import NativeBackend
from tests.catalog.cone_programs import (
    REGULAR,
    SOLVABLE,
    ConeProgramCase,
    batch_of,
    random_batch,
)

BLOCKS = ("P", "q", "A", "b")
# Both polish the solution to rounding level before they differentiate it.
AGREEMENT = 1e-8
REFINED = 1e-10


def solved(batch: ConeProgramBatch) -> ConeSolution:
    backend = NativeBackend()
    return backend.solve(backend.setup(batch.structure), batch, Settings(threads=1))


def cotangents(solution: ConeSolution, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    shapes = (solution.x.shape, solution.y.shape, solution.s.shape)
    return tuple(rng.standard_normal(shape) for shape in shapes)


def assert_close(ours: ConeProgramCotangent, reference: ConeProgramCotangent) -> None:
    for name in BLOCKS:
        expected = getattr(reference, name)
        if expected.size:
            scale = np.abs(expected).max()
            np.testing.assert_allclose(
                getattr(ours, name), expected, rtol=0, atol=AGREEMENT * scale, err_msg=name
            )


@pytest.mark.parametrize("case", REGULAR, ids=str)
@pytest.mark.parametrize("width", _native.widths())
def test_native_equals_the_specification(
    case: ConeProgramCase, width: int, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    solution = solved(batch)
    bars = cotangents(solution, rng)
    ours = pull_back(prepare_engine(batch.structure), batch, solution, *bars, width=width)
    assert_close(ours, conic.vjp(batch, solution, *bars))
    assert (ours.residual < REFINED).all()


@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_an_outside_solution_is_differentiated_as_well(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    backend = ClarabelBackend()
    outside = backend.solve(backend.setup(batch.structure), batch, Settings())
    inside = solved(batch)
    bars = cotangents(inside, rng)
    engine = prepare_engine(batch.structure)
    assert_close(pull_back(engine, batch, outside, *bars), pull_back(engine, batch, inside, *bars))


@pytest.mark.parametrize("case", [case for case in SOLVABLE if not case.is_regular], ids=str)
def test_a_unique_primal_has_its_gradient_in_spite_of_dependent_rows(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    solution = solved(batch)
    x_bar = cotangents(solution, rng)[0]
    engine = prepare_engine(batch.structure)
    ours = pull_back(engine, batch, solution, x_bar, None, None)
    reference = conic.vjp(batch, solution, x_bar, None, None)
    for name in ("P", "q"):
        expected = getattr(reference, name)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(getattr(ours, name), expected, rtol=0, atol=AGREEMENT * scale)
    assert (ours.residual < REFINED).all()


@pytest.mark.parametrize("names", [("q",), ("A", "b"), ("P",)])
def test_only_what_is_needed_is_computed(names: tuple[str, ...], rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=6, cones=ConeProduct(1, 6, (4,)))
    solution = solved(batch)
    bars = cotangents(solution, rng)
    engine = prepare_engine(batch.structure)
    needs = tuple(name in names for name in BLOCKS)
    whole = pull_back(engine, batch, solution, *bars)
    part = pull_back(engine, batch, solution, *bars, needs=needs)
    for name in BLOCKS:
        if name in names:
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))
        else:
            assert getattr(part, name) is None


def test_threads_do_not_change_a_bit(rng: np.random.Generator) -> None:
    few = random_batch(rng, n=6, cones=ConeProduct(1, 6, (4,)), batch=50)
    batch = few.select(np.tile(np.arange(50), 40))  # enough work for several threads
    solution = solved(batch)
    bars = cotangents(solution, rng)
    engine = prepare_engine(batch.structure)
    one = pull_back(engine, batch, solution, *bars, threads=1)
    four = pull_back(engine, batch, solution, *bars, threads=4)
    for name in BLOCKS:
        np.testing.assert_array_equal(getattr(one, name), getattr(four, name))


def test_a_row_without_solution_gets_exactly_zero(rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=6, cones=ConeProduct(1, 6, (4,)), batch=11)
    solution = solved(batch)
    status = solution.status.copy()
    status[[0, 7]] = Status.INFEASIBLE
    x = solution.x.copy()
    x[[0, 7]] = np.nan
    failed = dataclasses.replace(solution, status=status, x=x)
    bars = cotangents(solution, rng)
    engine = prepare_engine(batch.structure)
    ours, reference = (
        pull_back(engine, batch, failed, *bars),
        pull_back(engine, batch, solution, *bars),
    )
    good = np.delete(np.arange(11), [0, 7])
    for name in BLOCKS:
        assert (getattr(ours, name)[[0, 7]] == 0.0).all()
        np.testing.assert_array_equal(getattr(ours, name)[good], getattr(reference, name)[good])


def test_a_row_that_stopped_short_is_differentiated_where_it_stopped(
    rng: np.random.Generator,
) -> None:
    """An unreachable tolerance returns an earlier iterate, whose active rows are its own."""
    batch = random_batch(rng, n=8, cones=ConeProduct(1, 12, (4,)), batch=12)
    backend = NativeBackend()
    unreachable = Settings(1e-18, 1e-18, threads=1, extra={"fallback": False})
    short = backend.solve(backend.setup(batch.structure), batch, unreachable)
    assert (short.status == Status.INACCURATE).all()
    solution = solved(batch)
    bars = cotangents(solution, rng)
    engine = prepare_engine(batch.structure)
    assert_close(pull_back(engine, batch, short, *bars), pull_back(engine, batch, solution, *bars))


def test_dependent_rows_leave_the_gradient_of_the_objective_alone(
    rng: np.random.Generator,
) -> None:
    """Without cotangents of A and b no row has to be dropped, and q̄ and P̄ do not change."""
    case = next(case for case in SOLVABLE if not case.is_regular)
    batch = case.build(rng)
    solution = solved(batch)
    x_bar = cotangents(solution, rng)[0]
    engine = prepare_engine(batch.structure)
    whole = pull_back(engine, batch, solution, x_bar, None, None)
    part = pull_back(engine, batch, solution, x_bar, None, None, needs=(True, True, False, False))
    for name in ("P", "q"):
        expected = getattr(whole, name)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(getattr(part, name), expected, rtol=0, atol=AGREEMENT * scale)


@pytest.mark.parametrize("case", SOLVABLE, ids=str)
@pytest.mark.parametrize("width", _native.widths())
def test_the_scaling_of_the_solve_serves_the_derivative(
    case: ConeProgramCase, width: int, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    solution = solved(batch)
    assert solution.scaling is not None
    bars = cotangents(solution, rng)
    engine = prepare_engine(batch.structure)
    anew = dataclasses.replace(solution, scaling=None)
    assert_close(
        pull_back(engine, batch, solution, *bars, width=width),
        pull_back(engine, batch, anew, *bars, width=width),
    )


@pytest.mark.parametrize("shared", ["PA", "P", "A", "bq"])
def test_matrices_that_all_instances_share_are_scaled_once(
    shared: str, rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=6, cones=ConeProduct(1, 6, (4,)), batch=13)
    firsts = {name: getattr(batch, name)[:1] for name in shared}
    batch = dataclasses.replace(batch, **firsts)
    solution = solved(batch)
    assert solution.scaling is not None
    assert len(solution.scaling[0]) == (1 if shared == "PA" else 13)
    bars = cotangents(solution, rng)
    repeated = {name: np.repeat(block, 13, axis=0) for name, block in firsts.items()}
    apart = dataclasses.replace(batch, **repeated)
    engine = prepare_engine(batch.structure)
    ours = pull_back(engine, batch, solution, *bars)
    assert_close(ours, pull_back(engine, apart, solved(apart), *bars))


def test_a_scaling_of_one_row_is_refused_for_many_matrices(rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=6, cones=ConeProduct(1, 6, (4,)), batch=3)
    solution = solved(batch)
    assert solution.scaling is not None
    scale, cost = solution.scaling
    wrong = dataclasses.replace(solution, scaling=(scale[:1], cost))
    bars = cotangents(solution, rng)
    with pytest.raises(ValueError, match="`scale` must have shape"):
        pull_back(prepare_engine(batch.structure), batch, wrong, *bars)


@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_a_solution_at_the_tolerance_is_brought_to_rounding_first(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    backend = NativeBackend()
    rough = Settings(threads=1, extra={"polish": False})
    bars = cotangents(solved(batch), rng)
    engine = prepare_engine(batch.structure)
    assert_close(
        pull_back(engine, batch, backend.solve(engine, batch, rough), *bars),
        pull_back(engine, batch, solved(batch), *bars),
    )


@pytest.mark.parametrize("width", _native.widths())
def test_rows_may_lie_in_memory_as_they_like(width: int, rng: np.random.Generator) -> None:
    """Lanes are filled from squares of neighboring numbers, or else one by one."""
    batch = random_batch(rng, n=11, cones=ConeProduct(2, 13, (4,)), batch=11)
    solution = solved(batch)
    bars = cotangents(solution, rng)
    engine = prepare_engine(batch.structure)
    scattered = dataclasses.replace(
        batch, **{name: np.asfortranarray(getattr(batch, name)) for name in BLOCKS}
    )
    turned = tuple(np.asfortranarray(bar) for bar in bars)
    ours = pull_back(engine, scattered, solution, *turned, width=width)
    reference = pull_back(engine, batch, solution, *bars, width=width)
    for name in BLOCKS:
        np.testing.assert_array_equal(getattr(ours, name), getattr(reference, name))


@pytest.mark.parametrize("width", _native.widths())
def test_a_cone_may_change_its_face_in_the_last_step(width: int, rng: np.random.Generator) -> None:
    """At the apex of one cone any step does, while a ball next to it comes to rounding level."""
    count, n = 7, 3
    points = rng.standard_normal((count, n))
    points *= 2.0 / np.linalg.norm(points, axis=1, keepdims=True)
    A = np.concatenate([np.zeros((1, 2 * n)), -np.eye(2 * n)])
    batch = batch_of(
        ConeProduct(0, 0, (n + 1, n)),
        [np.eye(2 * n)] * count,
        [np.append(-point, np.zeros(n)) for point in points],
        [A] * count,
        [np.eye(2 * n + 1)[0]] * count,
    )
    solution = solved(batch)
    near = dataclasses.replace(
        solution, x=solution.x.copy(), y=solution.y.copy(), s=solution.s.copy()
    )
    near.x[:, :n] += 1e-7 * rng.standard_normal((count, n))
    near.x[:, n:] = 0.0
    for apex in (near.y[:, n + 1 :], near.s[:, n + 1 :]):
        apex[:] = 1e-14 * rng.standard_normal((count, n))
    x_bar = rng.standard_normal((count, 2 * n))
    engine = prepare_engine(batch.structure)
    ours = pull_back(engine, batch, near, x_bar, None, None, width=width)
    unit = points / 2.0
    along = (unit * x_bar[:, :n]).sum(axis=1, keepdims=True)
    assert ours.q is not None
    np.testing.assert_allclose(
        ours.q[:, :n], -(x_bar[:, :n] - along * unit) / 2.0, rtol=0, atol=AGREEMENT
    )
    assert (ours.residual < REFINED).all()
