# SPDX-License-Identifier: Apache-2.0
"""The curved cones in Clarabel, and its order of the rows of semidefinite cones."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer.cones import projection, semidefinite
from cvxlayer.cones.product import ConeProduct
from cvxlayer.errors import Status
from cvxlayer.solve.residuals import measure
from tests.catalog.cone_programs import (
    SEMIDEFINITE,
    ConeProgramCase,
    batch_of,
)
from tests.catalog.true_solutions import solve_accurately

ACCURACY = 1e-7


@pytest.mark.parametrize("case", SEMIDEFINITE, ids=str)
def test_semidefinite_rows_come_back_in_our_order(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    solution = solve_accurately(batch)
    cones = batch.structure.cones
    assert (solution.status == Status.SOLVED).all()
    for row in range(batch.size):
        x, y, s = solution.x[row], solution.y[row], solution.s[row]
        assert measure(batch.instance(row), x, y, s).are_below(ACCURACY, ACCURACY)
    np.testing.assert_allclose(projection.project(cones, solution.s), solution.s, atol=ACCURACY)
    np.testing.assert_allclose(
        projection.project_dual(cones, solution.y), solution.y, atol=ACCURACY
    )


@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_the_nearest_semidefinite_matrix_is_the_projection(
    order: int, rng: np.random.Generator
) -> None:
    """minimize ½‖x − p‖² subject to mat(x) ⪰ 0, and y is the projection of −p."""
    size = order * (order + 1) // 2
    points = rng.normal(size=(4, size))
    eye = np.eye(size)
    cones = ConeProduct(semidefinite=(order,))
    batch = batch_of(cones, [eye] * 4, list(-points), [-eye] * 4, [np.zeros(size)] * 4)
    solution = solve_accurately(batch)
    np.testing.assert_allclose(solution.x, semidefinite.project(points), atol=1e-6)
    np.testing.assert_allclose(solution.y, semidefinite.project(-points), atol=1e-6)


@pytest.mark.parametrize("cones", [ConeProduct(exponential=1), ConeProduct(power=(0.3,))], ids=str)
def test_the_nearest_point_of_a_three_dimensional_cone_is_the_projection(
    cones: ConeProduct, rng: np.random.Generator
) -> None:
    """minimize ½‖x − p‖² subject to x ∈ K, and y is the projection of −p onto K*."""
    points, eye = rng.normal(size=(8, 3)), np.eye(3)
    batch = batch_of(cones, [eye] * 8, list(-points), [-eye] * 8, [np.zeros(3)] * 8)
    solution = solve_accurately(batch)
    np.testing.assert_allclose(solution.x, projection.project(cones, points), atol=1e-4)
    np.testing.assert_allclose(solution.y, projection.project_dual(cones, -points), atol=1e-4)


def test_an_infeasible_semidefinite_row_has_a_certificate_in_our_order(
    rng: np.random.Generator,
) -> None:
    """A fixed matrix with one negative eigenvalue: y is its eigenvector's outer product."""
    basis = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    matrix = (basis * [2.0, 1.0, -0.5]) @ basis.T
    fixed = semidefinite.pack(matrix[None])[0]
    cones = ConeProduct(semidefinite=(3,))
    batch = batch_of(cones, [np.zeros((1, 1))], [np.zeros(1)], [np.zeros((6, 1))], [fixed])
    solution = solve_accurately(batch)
    assert Status(solution.status[0]) is Status.INFEASIBLE
    y = solution.y[0]
    assert fixed @ y == pytest.approx(-1.0)
    assert np.linalg.eigvalsh(semidefinite.unpack(y[None])).min() >= -ACCURACY
