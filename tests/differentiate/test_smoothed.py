# SPDX-License-Identifier: Apache-2.0
"""The smoothed derivative: on the path, the derivative of the path, native as specified."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones import barrier
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate import central_path, conic, native
from cvxlayer.differentiate.smoothed import SmoothedDerivative
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.engine import prepare_engine
from cvxlayer.program.solution import ConeSolution, LinearizationPoint
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.batches import random_batch
from tests.catalog.cone_programs import SOLVABLE, UNSOLVABLE, ConeProgramCase

MU = 1e-2
BLOCKS = ("P", "q", "A", "b")
# Equilibrated by other factors than the specification, whose matrix is also not regularized.
AGREEMENT = 1e-9
ROUNDING = 1e-8
STEP, DIFFERENCE = 1e-5, 1e-6
CASES = [case for case in SOLVABLE if "scaled" not in case.name]
LARGE = ConeProgramCase(
    "large-second-order",
    lambda rng: random_batch(rng, n=14, cones=ConeProduct(1, 2, (9, 12)), density=0.6),
)
# Every kind of cone, the large second-order ones with borders in the matrix.
KINDS = [
    *(
        case
        for case in CASES
        if case.name
        in ("linear", "quadratic", "mixed", "semidefinite-mixed", "three-dimensional-mixed")
    ),
    LARGE,
]
each_case = pytest.mark.parametrize("case", [*CASES, LARGE], ids=str)
each_kind = pytest.mark.parametrize("case", KINDS, ids=str)
each_width = pytest.mark.parametrize("width", _native.widths())


@functools.cache
def solved(case: ConeProgramCase) -> tuple[ConeProgramBatch, ConeSolution]:
    batch = case.build(np.random.default_rng(0))
    return batch, solve(batch)


def solve(batch: ConeProgramBatch) -> ConeSolution:
    backend = get_backend("native")
    return backend.solve(backend.setup(batch.structure), batch, Settings())


def path_point(batch: ConeProgramBatch, mu: float = MU) -> LinearizationPoint:
    return native.refine(prepare_engine(batch.structure), batch, solve(batch), mu=mu)


def is_empty(batch: ConeProgramBatch, row: int) -> np.ndarray:
    """Inequalities that bound nothing."""
    empty = np.isinf(batch.b[row if len(batch.b) > 1 else 0])
    cones = batch.structure.cones
    empty[: cones.zero] = empty[cones.num_linear :] = False
    return empty


def directions(batch: ConeProgramBatch, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.normal(size=getattr(batch, name).shape) for name in BLOCKS}


def moved(batch: ConeProgramBatch, along: dict[str, np.ndarray], step: float) -> ConeProgramBatch:
    return dataclasses.replace(
        batch, **{name: getattr(batch, name) + step * along[name] for name in BLOCKS}
    )


def assert_close(ours: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    size = 1.0 + np.abs(expected).max(axis=tuple(range(1, expected.ndim)), initial=0.0)
    size = size.reshape(-1, *(1,) * (expected.ndim - 1))
    assert (np.abs(ours - expected) <= tolerance * size).all()


@each_case
@pytest.mark.parametrize("mu", [1.0, 1e-3])
def test_the_point_satisfies_the_equations_of_the_path(case: ConeProgramCase, mu: float) -> None:
    """In the units of the program, whatever scaling it was found in."""
    batch, solution = solved(case)
    point = native.refine(prepare_engine(batch.structure), batch, solution, mu=mu)
    assert (point.residual < 1e-12).all()
    for row in range(batch.size):
        upper, q, A, b = batch.instance(row)
        P = upper.toarray() + np.triu(upper.toarray(), 1).T
        empty, x, y = is_empty(batch, row), point.x[row], point.y[row]
        s = np.zeros(len(y))
        for found, rows in barrier.barriers(batch.structure.cones):
            s[rows] = -mu * found.gradient(np.where(empty, 1.0, y)[rows])
        scale = 1.0 + max(np.abs(part).max(initial=0.0) for part in (x, y, q, s))
        assert np.abs(P @ x + A.T @ y + q).max() <= ROUNDING * scale
        gap = np.where(empty, 0.0, A @ x + s - np.where(empty, 0.0, b))
        assert np.abs(gap).max(initial=0.0) <= ROUNDING * scale
        assert (y[empty] == 0.0).all()


@each_case
@each_width
def test_native_primitives_are_those_of_the_specification(
    case: ConeProgramCase, width: int, rng: np.random.Generator
) -> None:
    batch, solution = solved(case)
    engine = prepare_engine(batch.structure)
    n, m = batch.structure.num_variables, batch.structure.num_rows
    expected = central_path.refine(batch, solution, MU)
    ours = native.refine(engine, batch, solution, mu=MU, width=width)
    assert_close(ours.x, expected.x, AGREEMENT)
    # Which of dependent equalities carries the multiplier is not determined.
    if case.is_regular:
        assert_close(ours.y, expected.y, AGREEMENT)
    gx = rng.normal(size=(batch.size, 3, n))
    gy, gs = rng.normal(size=(2, batch.size, 3, m))
    gs = np.where(np.isinf(expected.v)[:, None], 0.0, gs)
    if case.is_regular:
        answer = native.apply(engine, batch, expected, gx, gy, gs, mu=MU, width=width)
        specified = central_path.apply(batch, expected, gx, gy, gs, MU)
        assert (answer[2] < 1e-10).all()
        for part, right in zip(answer[:2], specified[:2], strict=True):
            assert_close(part, right, AGREEMENT)
    bent = native.curvature(engine, expected, gy, gs, mu=MU, width=width)
    assert_close(bent, central_path.curvature(batch, expected, gy, gs, MU), AGREEMENT)


@each_kind
def test_it_is_the_derivative_of_the_path(case: ConeProgramCase, rng: np.random.Generator) -> None:
    """By differences of points of which the equations of the path are true."""
    batch, solution = solved(case)
    engine, along = SmoothedDerivative(MU), directions(batch, rng)
    prepared = engine.setup(batch.structure)
    points = [path_point(moved(batch, along, sign * STEP)) for sign in (1, -1)]
    dx, dy = (
        (getattr(points[0], name) - getattr(points[1], name)) / (2 * STEP) for name in ("x", "y")
    )
    bars = rng.normal(size=dx.shape), rng.normal(size=dy.shape)
    cotangent = engine.vjp(prepared, batch, solution, *bars, None)
    assert (cotangent.residual < 1e-9).all()
    terms = [np.abs(bars[0] * dx).sum(axis=1) + np.abs(bars[1] * dy).sum(axis=1)]
    ours = sum((getattr(cotangent, name) * along[name]).sum(axis=1) for name in BLOCKS)
    expected = (bars[0] * dx).sum(axis=1) + (bars[1] * dy).sum(axis=1)
    assert (np.abs(ours - expected) <= DIFFERENCE * (1.0 + terms[0])).all()


@each_kind
def test_apply_is_its_own_adjoint(case: ConeProgramCase, rng: np.random.Generator) -> None:
    batch, solution = solved(case)
    engine = prepare_engine(batch.structure)
    point = native.refine(engine, batch, solution, mu=MU)
    n, m = batch.structure.num_variables, batch.structure.num_rows
    first = rng.normal(size=(batch.size, 1, n)), rng.normal(size=(batch.size, 1, m))
    second = rng.normal(size=(batch.size, 1, n)), rng.normal(size=(batch.size, 1, m))
    (a, b), (c, d) = (
        native.apply(engine, batch, point, *right, None, mu=MU)[:2] for right in (first, second)
    )
    left = (a * second[0]).sum((1, 2)) + (b * second[1]).sum((1, 2))
    right = (c * first[0]).sum((1, 2)) + (d * first[1]).sum((1, 2))
    size = np.abs(a).max() + np.abs(b).max() + np.abs(c).max() + np.abs(d).max()
    np.testing.assert_allclose(left, right, atol=AGREEMENT * size)


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.is_regular and not c.name.endswith(("low-rank", "objective"))],
    ids=str,
)
def test_for_small_mu_it_is_the_exact_derivative(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch, solution = solved(case)
    x_bar = rng.normal(size=solution.x.shape)
    expected = conic.vjp(batch, solution, x_bar)
    errors = []
    for mu in (1e-6, 1e-8):
        engine = SmoothedDerivative(mu)
        ours = engine.vjp(engine.setup(batch.structure), batch, solution, x_bar, None, None)
        size = 1.0 + max(np.abs(getattr(expected, name)).max(initial=0) for name in ("q", "b"))
        errors.append(
            max(np.abs(getattr(ours, n) - getattr(expected, n)).max(initial=0) for n in ("q", "b"))
            / size
        )
    assert errors[1] <= max(0.1 * errors[0], 1e-7)
    assert errors[1] <= 1e-3


@pytest.mark.parametrize("case", UNSOLVABLE[:4], ids=str)
def test_rows_without_a_solution_are_zero(case: ConeProgramCase) -> None:
    batch, solution = solved(case)
    assert (solution.status > Status.INACCURATE).all()
    engine = SmoothedDerivative(MU)
    cotangent = engine.vjp(
        engine.setup(batch.structure),
        batch,
        solution,
        np.full(solution.x.shape, np.nan),
        np.full(solution.y.shape, np.nan),
        None,
    )
    for name in BLOCKS:
        assert (getattr(cotangent, name) == 0.0).all()
