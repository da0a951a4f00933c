# SPDX-License-Identifier: Apache-2.0
"""Dense inequalities, of which every instance has other active ones, and so does every lane."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate import conic
from cvxlayer.differentiate.native import pull_back
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.engine import prepare_engine
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.batches import batch_of

BLOCKS = ("P", "q", "A", "b")
CLOSE = 1e-8
each_width = pytest.mark.parametrize("width", _native.widths())
# Enough entries for the core to tell active rows from others (`kLeastDense` in kkt/plan.cpp).
NUM_VARIABLES, NUM_ROWS = 24, 18
# No row, some and all of them, in no order that lanes of any width share.
NUM_ACTIVE = (3, 0, 18, 1, 0, 0, 0, 0, 7, 18, 18, 2, 5, 0, 4, 16, 9)


def programs(
    rng: np.random.Generator,
    num_active: tuple[int, ...] = NUM_ACTIVE,
    *,
    num_equalities: int = 0,
    num_bounds: int = 0,
    cone_sizes: tuple[int, ...] = (),
    curvature: float = 1.0,
) -> ConeProgramBatch:
    """Return instances with that many active rows, each at places of its own.

    Bounds, each of one variable, come after the dense rows and hold strictly, a second-order cone
    comes last and is tight.
    """
    n, size = NUM_VARIABLES, sum(cone_sizes)
    m = num_equalities + NUM_ROWS + num_bounds + size
    blocks: list[tuple[np.ndarray, ...]] = []
    dense = num_equalities + np.arange(NUM_ROWS)
    bounds = num_equalities + NUM_ROWS + np.arange(num_bounds)
    for count in num_active:
        root = rng.normal(size=(n, n))
        P = curvature * (root @ root.T / n + np.eye(n))
        A, x = rng.normal(size=(m, n)), rng.normal(size=n)
        A[bounds] = np.eye(n)[:num_bounds]
        y, s = np.zeros(m), np.zeros(m)
        y[:num_equalities] = rng.normal(size=num_equalities)
        s[bounds] = rng.uniform(0.5, 2.0, num_bounds)
        order = rng.permutation(dense)
        y[order[:count]] = rng.uniform(0.5, 2.0, count)
        s[order[count:]] = rng.uniform(0.5, 2.0, NUM_ROWS - count)
        if size:
            direction = rng.normal(size=size - 1)
            edge = np.r_[np.linalg.norm(direction), direction]
            y[-size:], s[-size:] = edge, edge * np.r_[1.0, -np.ones(size - 1)]
        blocks.append((P, -P @ x - A.T @ y, A, A @ x + s))
    cones = ConeProduct(num_equalities, NUM_ROWS + num_bounds, cone_sizes)
    return batch_of(cones, *(list(each) for each in zip(*blocks, strict=True)))


def solved(batch: ConeProgramBatch, width: int) -> ConeSolution:
    backend = get_backend("native")
    settings = Settings(threads=1, extra={"fallback": False, "width": width})
    solution = backend.solve(backend.setup(batch.structure), batch, settings)
    assert (solution.status == Status.SOLVED).all()
    return solution


KINDS = {
    "inequalities alone": {},
    "after equalities": {"num_equalities": 2},
    "before bounds of some variables": {"num_bounds": 3},
    "beside a curved cone": {"cone_sizes": (3,)},
    # A row that is not quite out of the matrix weighs more than P then, so that refinement does
    # not make up for it.
    "with little curvature": {"curvature": 1e-4},
}


@each_width
@pytest.mark.parametrize("kind", KINDS)
def test_each_instance_is_differentiated_on_its_own_active_rows(
    kind: str, width: int, rng: np.random.Generator
) -> None:
    few = tuple(min(count, 8) for count in NUM_ACTIVE) if kind != "inequalities alone" else None
    batch = programs(rng, few or NUM_ACTIVE, **KINDS[kind])
    solution = solved(batch, width)
    bars = tuple(rng.normal(size=each.shape) for each in (solution.x, solution.y, solution.s))
    ours = pull_back(prepare_engine(batch.structure), batch, solution, *bars, width=width)
    wanted = conic.vjp(batch, solution, *bars)
    for name in BLOCKS:
        found, expected = getattr(ours, name), getattr(wanted, name)
        scale = np.abs(expected).max(axis=1, keepdims=True)
        assert (np.abs(found - expected) <= CLOSE * scale).all(), name
    assert (ours.residual < CLOSE).all()


@each_width
def test_the_polish_reaches_rounding_whatever_is_active(
    width: int, rng: np.random.Generator
) -> None:
    batch = programs(rng)
    solution = solved(batch, width)
    active = solution.y > 1e-6
    assert tuple(active.sum(axis=1)) == NUM_ACTIVE
    assert (solution.y[~active] == 0.0).all()
    assert (np.abs(solution.s[active]) < 1e-12).all()
    assert (solution.primal_residual < 1e-12).all()
    assert (solution.dual_residual < 1e-12).all()


@each_width
def test_a_row_that_stands_twice_is_told_from_one_that_is_not_active(
    width: int, rng: np.random.Generator
) -> None:
    """Dependent rows are dropped in their lane, and the others go on as they were."""
    batch = programs(rng)
    doubled = batch.A.reshape(len(batch.b), NUM_VARIABLES, NUM_ROWS).copy()
    b = batch.b.copy()
    wanted_q = conic.vjp(batch, solved(batch, width), np.ones_like(batch.q), None, None).q
    lanes = [2, 8, 9]
    y = solved(batch, width).y
    for lane in lanes:
        first, second = np.flatnonzero(y[lane] > 1e-6)[:2]
        # The multiplier of the second goes to the first, so x stays where it is.
        q = batch.q[lane] + doubled[lane, :, second] * y[lane, second]
        batch.q[lane] = q - doubled[lane, :, first] * y[lane, second]
        doubled[lane, :, second] = doubled[lane, :, first]
        b[lane, second] = b[lane, first]
    again = ConeProgramBatch(
        batch.structure,
        len(batch.b),
        batch.P,
        batch.q,
        doubled.reshape(len(batch.b), -1),
        b,
    )
    solution = solved(again, width)
    x_bar = np.ones_like(batch.q)
    ours = pull_back(
        prepare_engine(again.structure), again, solution, x_bar, None, None, width=width
    )
    expected = conic.vjp(again, solution, x_bar, None, None)
    for name in ("P", "q"):
        np.testing.assert_allclose(
            getattr(ours, name), getattr(expected, name), rtol=0, atol=CLOSE * 10
        )
    others = np.setdiff1d(np.arange(len(batch.b)), lanes)
    np.testing.assert_allclose(ours.q[others], wanted_q[others], rtol=0, atol=CLOSE)
