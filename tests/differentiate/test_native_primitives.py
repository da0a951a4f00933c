# SPDX-License-Identifier: Apache-2.0
"""The primitives of the native core, side by side with their specification."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones import exponential, power, second_order, semidefinite
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate import native, primitives
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.engine import prepare_engine
from cvxlayer.program.solution import ConeSolution, LinearizationPoint
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.native import NativeBackend
from tests.catalog.cone_programs import ALL, REGULAR, SOLVABLE, ConeProgramCase, random_batch
from tests.catalog.cones import ConeCase

ALPHAS = (0.001, 0.2, 0.5, 0.99)
CURVED = [
    *((ConeCase(second_order, size), ConeProduct(1, 2, (size,))) for size in (1, 2, 3, 8)),
    *(
        (ConeCase(semidefinite, order * (order + 1) // 2), ConeProduct(0, 1, (), (order,)))
        for order in (1, 2, 3, 7)
    ),
    (ConeCase(exponential, 3), ConeProduct(1, 1, (), (), 1)),
    *((ConeCase(power, 3, (a,)), ConeProduct(0, 0, (), (), 0, (a,))) for a in ALPHAS),
]
ROUNDING = 1e-12
# Both polish the solution to rounding level before they differentiate it.
AGREEMENT = 1e-8
REFINED = 1e-10
ADJOINT = 1e-9
each_width = pytest.mark.parametrize("width", _native.widths())
each_cone = pytest.mark.parametrize(("case", "cones"), CURVED, ids=lambda part: str(part)[:20])


def point_at(
    batch: ConeProgramBatch, v: np.ndarray, has_solution: np.ndarray | None = None
) -> LinearizationPoint:
    """A point of which only v means anything."""
    size, m = v.shape
    n = batch.structure.num_variables
    everywhere = np.ones(size, bool) if has_solution is None else has_solution
    zero, one = np.zeros((size, m)), np.ones((size, m))
    active = np.zeros((size, m), np.int8)
    return LinearizationPoint(np.zeros((size, n)), zero, v, one, active, everywhere, zero[:, 0])


def with_cone(
    cones: ConeProduct, v: np.ndarray, rng: np.random.Generator
) -> tuple[ConeProgramBatch, np.ndarray]:
    """A structure with these cones, and points whose last rows are v."""
    batch = random_batch(rng, n=3, cones=cones, batch=1)
    linear = rng.normal(size=(len(v), cones.num_linear))
    linear[::7] = -np.inf
    return batch, np.concatenate([linear, v], axis=1)


@each_cone
@each_width
def test_native_curvature_is_that_of_the_specification(
    case: ConeCase, cones: ConeProduct, width: int, rng: np.random.Generator
) -> None:
    batch, v = with_cone(cones, case.points(rng, 101), rng)
    p, along = rng.normal(size=(2, len(v), 3, cones.size))
    engine, point = prepare_engine(batch.structure), point_at(batch, v)
    ours = native.curvature(engine, point, p, along, width=width)
    expected = primitives.curvature(batch, point, p, along)
    size = 1.0 + np.abs(expected).max(axis=2, keepdims=True)
    assert (np.abs(ours - expected) <= 100 * ROUNDING * size).all()


@pytest.mark.parametrize(("case", "cones"), CURVED[-5:], ids=lambda part: str(part)[:20])
@each_width
def test_entries_of_any_size_bend_as_specified(
    case: ConeCase, cones: ConeProduct, width: int, rng: np.random.Generator
) -> None:
    v = rng.normal(size=(1000, 3)) * 10.0 ** rng.uniform(-8, 8, size=(1000, 3))
    v /= np.abs(v).max(axis=1, keepdims=True)
    batch, v = with_cone(cones, v, rng)
    p, along = rng.normal(size=(2, len(v), 1, cones.size))
    engine, point = prepare_engine(batch.structure), point_at(batch, v)
    ours = native.curvature(engine, point, p, along, width=width)
    expected = primitives.curvature(batch, point, p, along)
    # Close to where a region ends, how the region bends is known to fewer digits.
    size = 1.0 + np.abs(expected).max(axis=2, keepdims=True)
    assert np.quantile(np.abs(ours - expected) / size, 0.99) <= 1e3 * ROUNDING
    assert (np.abs(ours - expected) <= 1e-6 * size).all()


@each_width
def test_faces_edges_and_the_apex_bend_as_specified(width: int, rng: np.random.Generator) -> None:
    """Points with zeros, where regions meet."""
    signs = np.array([-1.0, 0.0, 0.5])
    corners = np.array(np.meshgrid(signs, signs, signs)).reshape(3, -1).T.copy()
    for _, cones in CURVED[-5:]:
        batch, v = with_cone(cones, corners, rng)
        p, along = rng.normal(size=(2, len(v), 1, cones.size))
        engine, point = prepare_engine(batch.structure), point_at(batch, v)
        ours = native.curvature(engine, point, p, along, width=width)
        expected = primitives.curvature(batch, point, p, along)
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-11)


@each_width
def test_curvature_of_rows_without_a_solution_is_exactly_zero(
    width: int, rng: np.random.Generator
) -> None:
    cones = ConeProduct(1, 2, (3,), (2,), 1, (0.3,))
    batch = random_batch(rng, n=3, cones=cones, batch=1)
    v, p, along = (
        rng.normal(size=shape) for shape in [(11, cones.size)] + [(11, 2, cones.size)] * 2
    )
    has_solution = rng.random(11) < 0.5
    p[~has_solution] = np.nan
    engine = prepare_engine(batch.structure)
    ours = native.curvature(engine, point_at(batch, v, has_solution), p, along, width=width)
    assert (ours[~has_solution] == 0.0).all()
    whole = native.curvature(engine, point_at(batch, v), np.nan_to_num(p), along, width=width)
    np.testing.assert_array_equal(ours[has_solution], whole[has_solution])


def solved(batch: ConeProgramBatch) -> ConeSolution:
    backend = NativeBackend()
    return backend.solve(backend.setup(batch.structure), batch, Settings(threads=1))


def sides(batch: ConeProgramBatch, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    n, m = batch.structure.num_variables, batch.structure.num_rows
    return [rng.normal(size=(batch.size, count, length)) for length in (n, m, m)]


def assert_close(ours: np.ndarray, expected: np.ndarray, tolerance: float = AGREEMENT) -> None:
    """Instance by instance, to the size of its largest number."""
    size = np.abs(expected).max(axis=tuple(range(1, expected.ndim)), initial=1e-300)
    error = np.abs(ours - expected).max(axis=tuple(range(1, expected.ndim)), initial=0.0)
    assert (error <= tolerance * size).all(), (error / size).max()


@pytest.mark.parametrize("case", REGULAR, ids=str)
@each_width
def test_native_points_are_those_of_the_specification(
    case: ConeProgramCase, width: int, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    solution = solved(batch)
    ours = native.refine(prepare_engine(batch.structure), batch, solution, width=width)
    expected = primitives.refine(batch, solution)
    for name in ("is_active", "has_solution"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name))
    finite = np.isfinite(expected.v)
    np.testing.assert_array_equal(np.isfinite(ours.v), finite)
    np.testing.assert_array_equal(ours.v[~finite], expected.v[~finite])
    # ω may differ by a factor of two where √(‖y‖/‖s‖) is halfway.
    slack = [np.where(finite, p.y / p.balance**2 - p.v / p.balance, 0.0) for p in (ours, expected)]
    assert_close(ours.x, expected.x)
    assert_close(ours.y, expected.y)
    assert_close(slack[0], slack[1])
    assert (ours.residual <= REFINED).all()


@pytest.mark.parametrize("case", REGULAR, ids=str)
@each_width
def test_native_apply_is_that_of_the_specification(
    case: ConeProgramCase, width: int, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    engine = prepare_engine(batch.structure)
    point = native.refine(engine, batch, solved(batch))
    right = sides(batch, 3, rng)
    lam, nu, residual = native.apply(engine, batch, point, *right, width=width)
    expected = primitives.apply(batch, point, *right)
    assert_close(lam, expected[0])
    assert_close(nu, expected[1])
    assert (residual <= REFINED).all()


@pytest.mark.parametrize("case", SOLVABLE, ids=str)
def test_native_apply_is_its_own_adjoint(case: ConeProgramCase, rng: np.random.Generator) -> None:
    batch = case.build(rng)
    engine = prepare_engine(batch.structure)
    point = native.refine(engine, batch, solved(batch))
    gx, gy, _ = sides(batch, 2, rng)
    gy = np.where(np.isfinite(point.v)[:, None], gy, 0.0)
    lam, nu, _ = native.apply(engine, batch, point, gx, gy, None)
    products = [
        (gx[:, 0] * lam[:, 1], gy[:, 0] * nu[:, 1]),
        (gx[:, 1] * lam[:, 0], gy[:, 1] * nu[:, 0]),
    ]
    there, back = (x.sum(axis=1) + y.sum(axis=1) for x, y in products)
    size = sum(np.abs(part).sum(axis=1) for pair in products for part in pair)
    assert (np.abs(there - back) <= ADJOINT * size).all()


@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_refine_and_apply_make_up_pull_back(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    engine, solution = prepare_engine(batch.structure), solved(batch)
    bars = sides(batch, 1, rng)
    point = native.refine(engine, batch, solution)
    lam, nu, _ = native.apply(engine, batch, point, *bars)
    cotangent = native.pull_back(engine, batch, solution, *(bar[:, 0] for bar in bars))
    assert_close(-lam[:, 0], np.asarray(cotangent.q))
    assert_close(nu[:, 0], np.asarray(cotangent.b))


@each_width
def test_sides_threads_and_shared_blocks_do_not_change_a_bit(
    width: int, rng: np.random.Generator
) -> None:
    few = random_batch(rng, n=6, cones=ConeProduct(1, 6, (4,), (2,), 1), batch=1)
    batch = few.select(np.zeros(400, int))
    assert len(batch.A) == 1
    engine, solution = prepare_engine(batch.structure), solved(batch)
    own = dataclasses.replace(
        batch, **{name: np.repeat(getattr(batch, name), 400, axis=0) for name in ("P", "A")}
    )
    point = native.refine(engine, batch, solution, width=width)
    right = sides(batch, 5, rng)
    together = native.apply(engine, batch, point, *right, width=width)
    threaded = native.apply(engine, batch, point, *right, threads=4, width=width)
    alone = [
        native.apply(engine, batch, point, *(g[:, [r]] for g in right), width=width)
        for r in range(5)
    ]
    spread = native.apply(engine, own, point, *right, width=width)
    for part in range(3):
        np.testing.assert_array_equal(together[part], threaded[part])
        for r in range(5):
            np.testing.assert_array_equal(together[part][:, r], alone[r][part][:, 0])
        if part < 2:
            assert_close(spread[part], together[part], 1e-10)


@pytest.mark.parametrize("given", range(3))
def test_a_native_right_hand_side_of_none_is_zero(given: int, rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=6, cones=ConeProduct(1, 6, (4,)), batch=5)
    engine = prepare_engine(batch.structure)
    point = native.refine(engine, batch, solved(batch))
    right = sides(batch, 2, rng)
    some = [g if k == given else None for k, g in enumerate(right)]
    zeros = [g if k == given else np.zeros_like(g) for k, g in enumerate(right)]
    for part, whole in zip(
        native.apply(engine, batch, point, *some),
        native.apply(engine, batch, point, *zeros),
        strict=True,
    ):
        np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize("case", [case for case in ALL if case not in SOLVABLE], ids=str)
def test_native_rows_without_a_solution_are_exactly_zero(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    engine = prepare_engine(batch.structure)
    point = native.refine(engine, batch, solved(batch))
    assert not point.has_solution.any()
    for field in ("x", "y", "v", "is_active", "residual"):
        np.testing.assert_array_equal(getattr(point, field), 0)
    np.testing.assert_array_equal(point.balance, 1.0)
    right = sides(batch, 2, rng)
    right[0][:] = np.nan
    for part in native.apply(engine, batch, point, *right):
        np.testing.assert_array_equal(part, 0.0)


@each_width
def test_a_failed_row_among_others_does_not_disturb_them(
    width: int, rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=6, cones=ConeProduct(1, 6, (4,), (3,), 1, (0.3,)), batch=11)
    engine, solution = prepare_engine(batch.structure), solved(batch)
    status, x = solution.status.copy(), solution.x.copy()
    status[[0, 7]], x[[0, 7]] = Status.INFEASIBLE, np.nan
    failed = dataclasses.replace(solution, status=status, x=x)
    point = native.refine(engine, batch, failed, width=width)
    whole = native.refine(engine, batch, solution, width=width)
    right = sides(batch, 2, rng)
    ours = native.apply(engine, batch, point, *right, width=width)
    expected = native.apply(engine, batch, whole, *right, width=width)
    good = np.delete(np.arange(11), [0, 7])
    for name in ("x", "y", "v", "balance", "is_active", "residual"):
        np.testing.assert_array_equal(getattr(point, name)[good], getattr(whole, name)[good])
    for part, reference in zip(ours, expected, strict=True):
        assert (part[[0, 7]] == 0.0).all()
        np.testing.assert_array_equal(part[good], reference[good])
