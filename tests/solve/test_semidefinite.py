# SPDX-License-Identifier: Apache-2.0
"""Semidefinite cones in the native engine: closed forms, orders, repeated eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones import semidefinite
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.native import pull_back
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.engine import prepare_engine
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.native import NativeBackend
from tests.catalog.cone_programs import batch_of

POLISHED = 1e-9
ORDERS = [1, 2, 3, 4, 7, 12]


def solve(batch: ConeProgramBatch, width: int = 0) -> ConeSolution:
    backend = NativeBackend()
    settings = Settings(threads=1, extra={"fallback": False, "width": width})
    return backend.solve(backend.setup(batch.structure), batch, settings)


def nearest(points: np.ndarray) -> ConeProgramBatch:
    """minimize ½‖x − p‖² subject to mat(x) ⪰ 0, for each row p."""
    count, size = points.shape
    cones = ConeProduct(semidefinite=(semidefinite.order_of(size),))
    eye = np.eye(size)
    return batch_of(cones, [eye] * count, list(-points), [-eye] * count, [np.zeros(size)] * count)


def with_eigenvalues(eigenvalues: list[float], count: int, rng: np.random.Generator) -> np.ndarray:
    """Return svec of matrices with the given eigenvalues and random eigenvectors."""
    bases = np.linalg.qr(rng.normal(size=(count, len(eigenvalues), len(eigenvalues))))[0]
    return semidefinite.pack((bases * np.array(eigenvalues)) @ bases.transpose(0, 2, 1))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("width", _native.widths())
def test_the_nearest_matrix_is_the_projection(
    order: int, width: int, rng: np.random.Generator
) -> None:
    points = rng.normal(size=(9, order * (order + 1) // 2))
    solution = solve(nearest(points), width)
    assert (solution.status == Status.SOLVED).all()
    np.testing.assert_allclose(solution.x, semidefinite.project(points), atol=POLISHED)
    np.testing.assert_allclose(solution.y, semidefinite.project(-points), atol=POLISHED)


@pytest.mark.parametrize("order", ORDERS)
def test_the_derivative_of_the_nearest_matrix_is_that_of_the_projection(
    order: int, rng: np.random.Generator
) -> None:
    points = rng.normal(size=(9, order * (order + 1) // 2))
    _assert_derivative(points, rng)


@pytest.mark.parametrize(
    "eigenvalues",
    [[2, 2, -3, -3], [1, 1, 1, 1], [-1, -1, -1], [5, -1, -1, -1, -1], [100, 1, -1, -0.1]],
    ids=str,
)
def test_repeated_and_spread_eigenvalues_do_not_disturb(
    eigenvalues: list[float], rng: np.random.Generator
) -> None:
    points = with_eigenvalues(eigenvalues, 9, rng)
    solution = solve(nearest(points))
    size = np.abs(points).max()
    np.testing.assert_allclose(solution.x, semidefinite.project(points), atol=POLISHED * size)
    _assert_derivative(points, rng)


def _assert_derivative(points: np.ndarray, rng: np.random.Generator) -> None:
    batch = nearest(points)
    bar = rng.normal(size=points.shape)
    cotangent = pull_back(prepare_engine(batch.structure), batch, solve(batch), bar, None, None)
    derivative = semidefinite.project_derivative(points)
    expected = -np.einsum("bij,bj->bi", derivative, bar)
    np.testing.assert_allclose(cotangent.q, expected, atol=1e-8)
