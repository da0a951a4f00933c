# SPDX-License-Identifier: Apache-2.0
"""No solver calls a point of a problem solved that is not convex."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayer.cones.product import ConeProduct
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.convexity import is_positive_semidefinite
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.backends import BACKENDS
from tests.catalog.cone_programs import batch_of
from tests.catalog.quadratics import MATRICES


def in_a_box(matrices: list[np.ndarray], costs: list[np.ndarray]) -> ConeProgramBatch:
    """½xᵀPx + qᵀx with |x| ≤ 1: solvable for every P."""
    n = len(matrices[0])
    A, b = np.concatenate([np.eye(n), -np.eye(n)]), np.ones(2 * n)
    count = len(matrices)
    return batch_of(ConeProduct(nonnegative=2 * n), matrices, costs, [A] * count, [b] * count)


def solve(batch: ConeProgramBatch, backend: str = "native", **extra: object) -> ConeSolution:
    solver = get_backend(backend)
    return solver.solve(
        solver.setup(batch.structure), batch, Settings(1e-8, 1e-8, threads=1, extra=extra)
    )


@pytest.mark.parametrize("width", [0, 1])
@pytest.mark.parametrize("n", [2, 5, 24])
@pytest.mark.parametrize("case", MATRICES, ids=str)
def test_the_native_test_is_its_specification(case, n, width, rng):
    matrices = [case.build(rng, n) for _ in range(11)]
    batch = in_a_box(matrices, [rng.normal(size=n) for _ in matrices])
    if batch.structure.num_P == 0:
        return
    wanted = [is_positive_semidefinite(sp.csc_array(np.triu(matrix))) for matrix in matrices]
    solution = solve(batch, width=width)
    assert ((solution.status != Status.NOT_CONVEX) == wanted).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_saddle_is_not_called_solved_and_spoils_no_other_row(backend, rng):
    n = 4
    matrices = [case.build(rng, n) for case in MATRICES]
    batch = in_a_box(matrices, [rng.normal(size=n) for _ in matrices])
    solution = solve(batch, backend)
    for row, case in enumerate(MATRICES):
        if case.is_convex:
            assert solution.status[row] <= Status.INACCURATE, case
        else:
            assert solution.status[row] == Status.NOT_CONVEX, case


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_matrix_of_all_rows_is_tested_for_all(backend, rng):
    matrix = np.diag([1.0, -1.0])
    batch = in_a_box([matrix] * 9, [0.1 * rng.normal(size=2) for _ in range(9)])
    shared = dataclasses.replace(batch, P=batch.P[:1])
    assert (solve(shared, backend).status == Status.NOT_CONVEX).all()


def test_a_structure_that_is_said_to_be_convex_is_not_tested(rng):
    batch = in_a_box([np.diag([1.0, -1.0])], [np.array([0.3, 0.2])])
    trusted = dataclasses.replace(batch.structure, is_convex=True)
    solution = solve(dataclasses.replace(batch, structure=trusted), fallback=False)
    assert solution.status[0] != Status.NOT_CONVEX


def test_a_contradiction_is_one_whatever_the_objective():
    A, b = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([-1.0, -1.0])
    batch = batch_of(ConeProduct(nonnegative=2), [np.diag([1.0, -1.0])], [np.zeros(2)], [A], [b])
    assert solve(batch).status[0] == Status.INFEASIBLE


def test_a_warm_start_does_not_hide_a_saddle(rng):
    convex = in_a_box([np.eye(3)] * 4, [rng.normal(size=3) for _ in range(4)])
    start = solve(convex)
    saddle = dataclasses.replace(convex, P=convex.P * np.array([1.0, 1.0, -1.0]))
    solver = get_backend("native")
    settings = Settings(1e-8, 1e-8, threads=1, warm_start=start)
    solution = solver.solve(solver.setup(saddle.structure), saddle, settings)
    assert (solution.status == Status.NOT_CONVEX).all()
