# SPDX-License-Identifier: Apache-2.0
"""Dependent rows that bounds and their equalities leave: assignments, where all are in doubt."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.native import examine
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.engine import prepare_engine
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.native import NativeBackend
from tests.catalog.cone_programs import batch_of

EXACT = 1e-9


def assignment(size: int, rng: np.random.Generator) -> ConeProgramBatch:
    """minimize ⟨C, X⟩ over doubly stochastic X: a vertex with size² + size active rows."""
    sums = np.kron(np.eye(size), np.ones(size)), np.kron(np.ones(size), np.eye(size))
    A = np.vstack([*sums, -np.eye(size * size)])
    b = np.concatenate([np.ones(2 * size), np.zeros(size * size)])
    cones = ConeProduct(zero=2 * size, nonnegative=size * size)
    costs = [rng.normal(size=size * size)]
    return batch_of(cones, [np.zeros((size * size, size * size))], costs, [A], [b])


def solve(batch: ConeProgramBatch) -> ConeSolution:
    backend = NativeBackend()
    return backend.solve(backend.setup(batch.structure), batch, Settings(threads=1))


@pytest.mark.parametrize("size", [3, 12])
def test_the_rows_that_are_kept_are_independent_and_carry_the_cost(
    size: int, rng: np.random.Generator
) -> None:
    batch = assignment(size, rng)
    point = examine(prepare_engine(batch.structure), batch, solve(batch)).point
    _, q, A, _ = batch.instance(0)
    kept = point.is_active[0] != 0
    rows = A.toarray()[kept]
    assert np.linalg.matrix_rank(rows) == len(rows) == len(q)
    y = np.where(kept, point.v[0], 0.0)
    np.testing.assert_allclose(A.T @ y, -q, atol=EXACT)
    assert y[2 * size :].min() >= 0.0
