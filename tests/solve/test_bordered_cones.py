# SPDX-License-Identifier: Apache-2.0
"""Second-order cones that border the KKT matrix with two rows: like the dense block, and larger."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones import second_order
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate import conic
from cvxlayer.differentiate.native import pull_back
from cvxlayer.errors import Status
from cvxlayer.program import engine
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent, ConeProgramStructure
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.native import NativeBackend
from tests.catalog.cone_programs import batch_of, random_batch
from tests.catalog.hard_cone_programs import FAMILIES, hard_batch

BLOCKS = ("P", "q", "A", "b")
POLISHED = 1e-9
AGREEMENT = 1e-8  # of two derivatives, each refined to rounding
TOLERANCE = 1e-6  # of two solutions, each to 1e-8 in its residuals
NO_BLOCK, ONLY_BLOCKS = 1, 10**9
PRODUCTS = [(2,), (3,), (1, 2, 5), (9, 4), (30,), (12, 3, 20)]
SIZES = [2, 3, 7, 31, 200, 2000]


@contextlib.contextmanager
def largest_block(size: int) -> Iterator[None]:
    """Let cones up to this size have a block, in structures that have no engine yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "LARGEST_BLOCK", size)
        yield


def anew(batch: ConeProgramBatch) -> ConeProgramBatch:
    """The same programs with a structure that has no engine yet."""
    return dataclasses.replace(batch, structure=dataclasses.replace(batch.structure))


def solve(batch: ConeProgramBatch, width: int = 0) -> ConeSolution:
    backend = NativeBackend()
    settings = Settings(threads=1, extra={"fallback": False, "width": width})
    return backend.solve(backend.setup(batch.structure), batch, settings)


def road(
    batch: ConeProgramBatch, size: int, width: int = 0
) -> tuple[ConeSolution, ConeProgramCotangent]:
    """Solve and differentiate with blocks up to this size."""
    with largest_block(size):
        batch = anew(batch)
        solution = solve(batch, width)
        rng = np.random.default_rng(3)
        bars = [rng.normal(size=part.shape) for part in (solution.x, solution.y, solution.s)]
        prepared = engine.prepare_engine(batch.structure)
        return solution, pull_back(prepared, batch, solution, *bars, width=width)


def programs(dimensions: tuple[int, ...], rng: np.random.Generator) -> ConeProgramBatch:
    cones = ConeProduct(1, 4, dimensions)
    return random_batch(rng, n=sum(dimensions) * 3 // 4 + 4, cones=cones, batch=9)


def nearest(points: np.ndarray) -> ConeProgramBatch:
    """minimize ½‖x − p‖² subject to x in the cone, for each row p."""
    count, size = points.shape
    identity = np.arange(size + 1, dtype=np.int32), np.arange(size, dtype=np.int32)
    cones = ConeProduct(second_order=(size,))
    structure = ConeProgramStructure(size, cones, *identity, *identity)
    ones, b = np.ones((1, size)), np.zeros((1, size))
    return ConeProgramBatch(structure, count, ones, -points, -ones, b)


def points_everywhere(size: int, rng: np.random.Generator) -> np.ndarray:
    """Points inside the cone, inside its polar, and between: s in the interior, 0, on the rim."""
    points = rng.normal(size=(9, size))
    tail = np.linalg.norm(points[:, 1:], axis=1)
    points[:, 0] = tail * np.repeat([1.7, -1.7, 0.3], 3)
    return points


def assert_equal(ours: ConeProgramCotangent, reference: ConeProgramCotangent) -> None:
    for name in BLOCKS:
        expected = getattr(reference, name)
        size = np.abs(expected).max(initial=1.0)
        actual = getattr(ours, name)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=AGREEMENT * size, err_msg=name)


@pytest.mark.parametrize("dimensions", PRODUCTS, ids=str)
@pytest.mark.parametrize("width", _native.widths())
def test_solutions_are_those_of_the_dense_block(
    dimensions: tuple[int, ...], width: int, rng: np.random.Generator
) -> None:
    batch = programs(dimensions, rng)
    dense, _ = road(batch, ONLY_BLOCKS, width)
    bordered, _ = road(batch, NO_BLOCK, width)
    assert (bordered.status == Status.SOLVED).all()
    for name in ("x", "y", "s"):
        expected = getattr(dense, name)
        np.testing.assert_allclose(getattr(bordered, name), expected, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("dimensions", PRODUCTS, ids=str)
@pytest.mark.parametrize("width", _native.widths())
def test_gradients_are_those_of_the_specification(
    dimensions: tuple[int, ...], width: int, rng: np.random.Generator
) -> None:
    batch = programs(dimensions, rng)
    solution, ours = road(batch, NO_BLOCK, width)
    rng = np.random.default_rng(3)
    bars = [rng.normal(size=part.shape) for part in (solution.x, solution.y, solution.s)]
    assert_equal(ours, conic.vjp(batch, solution, *bars))


@pytest.mark.parametrize("size", SIZES)
def test_the_nearest_point_is_the_projection(size: int, rng: np.random.Generator) -> None:
    points = points_everywhere(size, rng)
    with largest_block(NO_BLOCK):
        solution = solve(nearest(points))
    scale = np.abs(points).max()
    assert (solution.status == Status.SOLVED).all()
    np.testing.assert_allclose(
        solution.x, second_order.project(points), atol=POLISHED * scale, rtol=0
    )


@pytest.mark.parametrize("size", SIZES)
def test_its_derivative_is_that_of_the_projection(size: int, rng: np.random.Generator) -> None:
    points = points_everywhere(size, rng)
    bar = rng.normal(size=points.shape)
    with largest_block(NO_BLOCK):
        batch = nearest(points)
        prepared = engine.prepare_engine(batch.structure)
        cotangent = pull_back(prepared, batch, solve(batch), bar, None, None)
    for row, point in enumerate(points):
        derivative = second_order.project_derivative(point[None])[0]
        np.testing.assert_allclose(-cotangent.q[row], derivative @ bar[row], atol=AGREEMENT)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(12))
def test_hard_programs_end_in_the_right_status(family: str, seed: int) -> None:
    batch, expected = hard_batch(family, np.random.default_rng([seed, 11]))
    with largest_block(NO_BLOCK):
        backend = NativeBackend()
        solution = backend.solve(backend.setup(batch.structure), batch, Settings())
    assert (solution.status == expected).all()


@pytest.mark.parametrize("dimensions", [(5,), (9, 4), (40,)], ids=str)
def test_a_row_does_not_depend_on_its_neighbors(
    dimensions: tuple[int, ...], rng: np.random.Generator
) -> None:
    batch = programs(dimensions, rng)
    whole, _ = road(batch, NO_BLOCK, max(_native.widths()))
    order = rng.permutation(batch.size)
    blocks = {name: getattr(batch, name)[order] for name in BLOCKS}
    shuffled, _ = road(dataclasses.replace(batch, **blocks), NO_BLOCK, max(_native.widths()))
    np.testing.assert_array_equal(shuffled.x, whole.x[order])


@pytest.mark.parametrize("dimensions", [(5,), (9, 4), (40,)], ids=str)
def test_a_batch_is_its_instances(dimensions: tuple[int, ...], rng: np.random.Generator) -> None:
    batch = programs(dimensions, rng)
    whole, cotangent = road(batch, NO_BLOCK, max(_native.widths()))
    single, alone = road(batch, NO_BLOCK, 1)
    np.testing.assert_allclose(whole.x, single.x, atol=TOLERANCE)
    assert_equal(cotangent, alone)


def test_many_terms_of_one_norm_are_summed(rng: np.random.Generator) -> None:
    """Least norm over ‖Gx − h‖ with a sparse G: rows of several entries, a head of its own."""
    rows, n = 300, 120
    G = rng.normal(size=(rows, n)) * (rng.random((rows, n)) < 0.03)
    h = rng.normal(size=rows)
    A = np.zeros((rows + 1, n + 1))
    A[0, n], A[1:, :n] = -1.0, -G
    P = np.diag(np.r_[np.full(n, 0.1), 0.0])
    cost, b = np.r_[np.zeros(n), 1.0], np.r_[0.0, -h]
    batch = batch_of(ConeProduct(second_order=(rows + 1,)), [P], [cost], [A], [b])
    x = solve(batch).x[0, :n]
    residual = G @ x - h
    gradient = 0.1 * x + G.T @ residual / np.linalg.norm(residual)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-7)


def test_a_dense_row_does_not_fill_the_matrix(rng: np.random.Generator) -> None:
    """‖x − p‖ ≤ cᵀx + 1, whose head has every variable: memory grows with the entries."""
    memory = []
    for n in (500, 1000):
        A = np.concatenate([rng.normal(size=(1, n)) / n, -np.eye(n)])
        batch = batch_of(
            ConeProduct(second_order=(n + 1,)),
            [np.eye(n)],
            [-rng.normal(size=n)],
            [A],
            [np.ones(n + 1)],
        )
        memory.append(engine.prepare_engine(batch.structure).workspace_bytes(1))
    assert memory[1] < 2.5 * memory[0]
