# SPDX-License-Identifier: Apache-2.0
"""The core's examination of points against the specification, and against what it means."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate import native
from cvxlayer.differentiate.examination import Examination, examine
from cvxlayer.differentiate.residual_map import ComplementaryPoint, DenseProgram, KktMatrix
from cvxlayer.differentiate.scaling import Scaling
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.engine import prepare_engine
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.native import NativeBackend
from tests.catalog.cone_programs import REGULAR, UNSOLVABLE, ConeProgramCase, batch_of

# What a few power iterations leave open.
_FACTOR = 10.0
ROUNDING = 1e-9


def kkt_matrix(batch: ConeProgramBatch, found: Examination, row: int) -> KktMatrix:
    """K of one instance, in the scaling and at the point that the core found."""
    P, q, A, b = batch.instance(row)
    is_present, cones = np.isfinite(b), batch.structure.cones
    upper, (d, e) = P.toarray(), np.split(found.factors[row], [len(q)])
    num_inequalities = int(is_present[cones.zero : cones.num_linear].sum())
    program = Scaling(d, e[is_present], float(found.cost[row])).apply(
        DenseProgram(
            cones.with_linear(cones.zero, num_inequalities),
            upper + np.triu(upper, 1).T,
            q,
            A.toarray()[is_present],
            b[is_present],
        )
    )
    is_active = found.point.is_active[row, is_present][: program.cones.num_linear] > 0
    # D is the same along a ray, so the units of v do not matter.
    point = ComplementaryPoint(program.cones, q, found.position[row, is_present], is_active)
    return KktMatrix(program, point.projection_root())


@pytest.mark.parametrize("case", [*REGULAR, *UNSOLVABLE], ids=str)
@pytest.mark.parametrize("width", _native.widths())
def test_the_core_finds_what_the_specification_finds(
    case: ConeProgramCase, width: int, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    backend = NativeBackend()
    solution = backend.solve(backend.setup(batch.structure), batch, Settings())
    found = native.examine(prepare_engine(batch.structure), batch, solution, width=width)
    expected = examine(batch, solution)
    at, expected_at = found.point, expected.point
    np.testing.assert_array_equal(at.has_solution, expected_at.has_solution)
    np.testing.assert_array_equal(at.is_active, expected_at.is_active)
    linear = slice(batch.structure.cones.zero, batch.structure.cones.num_linear)
    np.testing.assert_array_equal(found.position[:, linear] > 0, expected.position[:, linear] > 0)
    rows = at.has_solution
    assert (at.residual[rows] < 1e-9).all()
    for name in ("x", "y", "v", "balance"):
        refined = native.refine(prepare_engine(batch.structure), batch, solution, width=width)
        np.testing.assert_array_equal(getattr(at, name), getattr(refined, name), name)
    for row in np.flatnonzero(rows).tolist():
        values = np.abs(kkt_matrix(batch, found, row).eigenvalues)
        assert values.max() / _FACTOR < found.largest[row] < values.max() * (1 + ROUNDING)
        assert values.min() * (1 - ROUNDING) < found.smallest[row] < values.min() * _FACTOR
    np.testing.assert_array_equal(found.is_singular, expected.is_singular)
    assert not found.null_x[~found.is_singular].any()
    assert not found.null_y[~found.is_singular].any()


def test_a_null_vector_is_one(rng: np.random.Generator) -> None:
    """x₂ of a linear program is free, and its two equalities are the same."""
    A = np.array([[1.0, 0.0, 1.0], [2.0, 0.0, 2.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    q, b = np.array([1.0, 0.0, 0.0]), np.array([1.0, 2.0, 0.0, 5.0])
    batch = batch_of(ConeProduct(2, 2), [np.zeros((3, 3))] * 3, [q] * 3, [A] * 3, [b] * 3)
    backend = NativeBackend()
    solution = backend.solve(backend.setup(batch.structure), batch, Settings())
    found = native.examine(prepare_engine(batch.structure), batch, solution)
    assert found.is_singular.all()
    # One of the dependent equalities was dropped, so nothing else is null.
    assert (found.point.is_active[:, :2].sum(axis=1) == 1).all()
    direction = found.null_x / np.abs(found.null_x).max(axis=1)[:, None]
    np.testing.assert_allclose(np.abs(direction), [[0.0, 1.0, 0.0]] * 3, atol=1e-9)
    assert not found.null_y.any()
