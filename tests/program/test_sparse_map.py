# SPDX-License-Identifier: Apache-2.0
"""Sparse maps agree with dense ones, and each direction is the adjoint of the other."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayer.program.parameters import ParameterDomain, ParameterSpec
from cvxlayer.program.parametric import AffineAdjoint, AffineMap, QuadraticForm
from cvxlayer.program.sparse_map import SparseMap, apply_adjoints, apply_maps, sum_rows

EXACT = {"rtol": 1e-13, "atol": 1e-13}


def matrices(rng: np.random.Generator) -> dict[str, np.ndarray]:
    permutation = np.eye(6)[rng.permutation(6)]
    scattered = np.zeros((12, 4))
    scattered[[1, 5, 9, 10], [3, 0, 0, 2]] = [1.0, -2.0, 0.5, 1.0]
    rare = np.zeros((40, 3))
    rare[[3, 30], [0, 1]] = 1.0
    lower, upper = np.tril_indices(6), np.triu_indices(6)
    place = np.zeros((6, 6), int)
    place[lower] = place[lower[::-1]] = np.arange(21)
    symmetric = np.eye(21)[place.ravel()] * np.where(np.eye(6), 1.0, 0.5).reshape(36, 1)
    mirrored = np.eye(36)[np.ravel_multi_index(upper, (6, 6))]
    return {
        "identity": np.eye(5),
        "symmetric": symmetric,
        "triangle": mirrored,
        "permutation": permutation,
        "slice": np.eye(7)[2:5],
        "repeated": np.eye(3)[[0, 0, 2, 1, 1]],
        "scattered": scattered,
        "rare": rare,
        "dense": rng.normal(size=(4, 6)),
        "empty": np.zeros((3, 2)),
        "no rows": np.zeros((0, 2)),
    }


NAMES = list(matrices(np.random.default_rng(0)))


@pytest.mark.parametrize("batch", [0, 1, 5, 3000])
@pytest.mark.parametrize("name", NAMES)
def test_both_directions_equal_the_dense_product(name: str, batch: int, rng: Any) -> None:
    matrix = matrices(rng)[name]
    sparse_map = SparseMap.of(sp.csr_array(matrix))
    points = rng.normal(size=(batch, matrix.shape[1]))
    image_bar = rng.normal(size=(batch, matrix.shape[0]))
    np.testing.assert_allclose(
        apply_maps([(sparse_map, points)], None, batch, 2), points @ matrix.T, **EXACT
    )
    np.testing.assert_allclose(
        apply_adjoints([(sparse_map, image_bar)], batch, 2), image_bar @ matrix, **EXACT
    )


@pytest.mark.parametrize("base_rows", [0, 1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_several_maps_and_a_base_are_added(name: str, base_rows: int, rng: Any) -> None:
    matrix, points = matrices(rng)[name], rng.normal(size=(4, 6))
    other = rng.normal(size=(matrix.shape[0], 6)) * (rng.random((matrix.shape[0], 6)) < 0.5)
    shared = rng.normal(size=(1, matrix.shape[1]))
    base = rng.normal(size=(base_rows, matrix.shape[0]))
    terms = [(SparseMap.of(matrix), shared), (SparseMap.of(other), points)]
    expected = shared @ matrix.T + points @ other.T + (base if base_rows else 0.0)
    found = apply_maps(terms, base if base_rows else None, 4, 1)
    np.testing.assert_allclose(found, expected, **EXACT)


def test_the_bits_of_a_row_depend_on_nothing_but_its_point(rng: Any) -> None:
    matrix = sp.csr_array(np.where(rng.random((300, 200)) < 0.05, rng.normal(size=(300, 200)), 0))
    sparse_map, points = SparseMap.of(matrix), rng.normal(size=(500, 200))
    alone = [apply_maps([(sparse_map, point[None])], None, 1, 1) for point in points]
    for threads in (1, 2, 7):
        found = apply_maps([(sparse_map, points)], None, 500, threads)
        np.testing.assert_array_equal(found, np.concatenate(alone))


def test_the_bits_of_a_sum_do_not_depend_on_the_number_of_threads(rng: Any) -> None:
    rows = rng.normal(size=(700, 300)) * 10.0 ** rng.integers(-8, 8, size=(700, 1))
    one = sum_rows(rows, 1)
    np.testing.assert_allclose(one, rows.sum(axis=0, keepdims=True), rtol=1e-9)
    for threads in (2, 7):
        np.testing.assert_array_equal(sum_rows(rows, threads), one)


@pytest.mark.parametrize("name", NAMES)
def test_the_image_is_a_new_array(name: str, rng: Any) -> None:
    matrix = matrices(rng)[name]
    points = rng.normal(size=(3, matrix.shape[1]))
    assert not np.shares_memory(apply_maps([(SparseMap.of(matrix), points)], None, 3, 1), points)


def test_infinite_entries_reach_only_the_places_that_use_them() -> None:
    matrix = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    points = np.array([[np.inf, 1.0], [1.0, -np.inf]])
    image = apply_maps([(SparseMap.of(matrix), points)], None, 2, 1)
    np.testing.assert_array_equal(image, [[np.inf, 0.0, 2.0], [1.0, 0.0, -np.inf]])


def test_a_copied_map_still_multiplies(rng: Any) -> None:
    matrix, points = rng.normal(size=(4, 3)), rng.normal(size=(2, 3))
    sparse_map = SparseMap.of(matrix)
    image = apply_maps([(sparse_map, points)], None, 2, 1)
    copied = pickle.loads(pickle.dumps(sparse_map))
    np.testing.assert_array_equal(apply_maps([(copied, points)], None, 2, 1), image)


def _specs(*sizes: int) -> list[ParameterSpec]:
    return [ParameterSpec(f"p{i}", (size,)) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("shared", [(), (0,), (1,), (0, 1, 2), (0, 2)])
def test_an_affine_map_evaluates_shared_parameters_once(shared: tuple[int, ...], rng: Any) -> None:
    sizes, batch = (3, 2, 4), 5
    matrix = rng.normal(size=(6, 9)) * (rng.random((6, 9)) < 0.5)
    offset = rng.normal(size=6)
    affine = AffineMap.of(sp.csr_array(matrix), offset, _specs(*sizes))
    values = [rng.normal(size=(1 if i in shared else batch, s)) for i, s in enumerate(sizes)]
    theta = np.concatenate([np.broadcast_to(v, (batch, v.shape[1])) for v in values], axis=1)
    found = affine.evaluate(values)
    assert found.shape[0] == (1 if len(shared) == 3 else batch)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(np.broadcast_to(found, (batch, 6)), theta @ matrix.T + offset)
    entries_bar = rng.normal(size=(batch, 6))
    adjoint = AffineAdjoint(values, [True] * 3, 1)
    adjoint.add(affine, entries_bar)
    bars = adjoint.total()
    expected = np.split(entries_bar @ matrix, np.cumsum(sizes)[:-1], axis=1)
    for i, (bar, full) in enumerate(zip(bars, expected, strict=True)):
        assert bar is not None
        np.testing.assert_allclose(bar, full.sum(axis=0, keepdims=True) if i in shared else full)


def test_symmetric_parameters_are_read_once_and_their_gradient_is_symmetric(rng: Any) -> None:
    matrix = rng.normal(size=(5, 9))
    matrix = 0.5 * (matrix + matrix.reshape(5, 3, 3).swapaxes(1, 2).reshape(5, 9))
    spec = ParameterSpec("S", (3, 3), ParameterDomain(is_symmetric=True))
    affine = AffineMap.of(sp.csr_array(matrix), np.zeros(5), [spec])
    value = rng.normal(size=(3, 3))
    value = (value + value.T).reshape(1, 9)
    np.testing.assert_allclose(affine.evaluate([value]), value @ matrix.T, **EXACT)
    adjoint = AffineAdjoint([value], [True], 1)
    adjoint.add(affine, np.ones((1, 5)))
    (bar,) = adjoint.total()
    assert bar is not None
    np.testing.assert_allclose(bar, np.ones((1, 5)) @ matrix, **EXACT)
    np.testing.assert_allclose(bar.reshape(3, 3), bar.reshape(3, 3).T, **EXACT)


def test_a_quadratic_forms_gradient_is_its_derivative(rng: Any) -> None:
    matrix = rng.normal(size=(4, 4))
    form = QuadraticForm(sp.csr_array(matrix + matrix.T))
    theta, change = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    step = 1e-6
    difference = (form.evaluate(theta + step * change) - form.evaluate(theta - step * change)) / (
        2 * step
    )
    gradient = np.sum(form.gradient(theta) * change, axis=1)
    np.testing.assert_allclose(gradient, difference, rtol=1e-8)
