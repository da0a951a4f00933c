# SPDX-License-Identifier: Apache-2.0
"""The primitives of the native core, side by side with their specification."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones import exponential, power, second_order, semidefinite
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate import native, primitives
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.engine import prepare_engine
from cvxlayer.program.solution import LinearizationPoint
from tests.catalog.cone_programs import random_batch
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
