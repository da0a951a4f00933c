# SPDX-License-Identifier: Apache-2.0
"""The plan that eliminates P and A once an instance, and what it must not change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones.product import ConeProduct
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.engine import prepare_engine
from cvxlayer.program.solution import ConeSolution, SolvedBy
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.batches import batch_of, random_batch
from tests.catalog.quadratics import MATRICES

WIDTHS = _native.widths()
SIZE = 24
CLOSE = 1e-6


def solve(batch: ConeProgramBatch, width: int) -> ConeSolution:
    backend = get_backend("native")
    settings = Settings(1e-9, 1e-9, threads=1, extra={"fallback": False, "width": width})
    return backend.solve(backend.setup(batch.structure), batch, settings)


def solve_by_clarabel(batch: ConeProgramBatch) -> ConeSolution:
    backend = get_backend("clarabel")
    return backend.solve(backend.setup(batch.structure), batch, Settings(1e-12, 1e-12))


def keeps_what_P_and_A_leave(batch: ConeProgramBatch) -> bool:
    return prepare_engine(batch.structure).has_range_space


def dense(
    rng: np.random.Generator,
    n: int = SIZE,
    cones: ConeProduct | None = None,
    batch: int = 11,
    rank_P: int | None = None,
) -> ConeProgramBatch:
    return random_batch(
        rng, n=n, cones=cones or ConeProduct(2, n - 2), batch=batch, rank_P=rank_P, density=1.0
    )


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    scale = 1.0 + np.abs(wanted).max(axis=1, keepdims=True)
    assert (np.abs(found - wanted) <= CLOSE * scale).all()


@pytest.mark.parametrize(
    ("n", "cones", "pays"),
    [
        (24, ConeProduct(0, 24), True),
        (24, ConeProduct(6, 18), True),
        (48, ConeProduct(0, 10), True),
        (24, ConeProduct(0, 72), False),
        (24, ConeProduct(0, 20, (4,)), False),
        (4, ConeProduct(0, 4), False),
    ],
)
def test_it_is_chosen_where_it_pays(n, cones, pays, rng):
    assert keeps_what_P_and_A_leave(dense(rng, n, cones, batch=1)) == pays


def test_bounds_and_a_sparse_quadratic_rule_it_out(rng):
    n = SIZE
    full, rows = np.eye(n) + 0.1, rng.normal(size=(n, n))
    bound = rows.copy()
    bound[-1, 1:] = 0.0
    for P, A, pays in ((full, rows, True), (full, bound, False), (np.eye(n), rows, False)):
        one = batch_of(ConeProduct(nonnegative=n), [P], [np.ones(n)], [A], [np.ones(n)])
        assert keeps_what_P_and_A_leave(one) == pays


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("n", [23, 32, 33, 48])
@pytest.mark.parametrize("size", [1, 5, 19])
def test_its_solutions_are_those_of_clarabel(width, n, size, rng):
    batch = dense(rng, n, batch=size)
    assert keeps_what_P_and_A_leave(batch)
    found = solve(batch, width)
    assert (found.status == Status.SOLVED).all()
    assert (found.solved_by == SolvedBy.FIRST_PASS).all()
    assert_close(found.x, solve_by_clarabel(batch).x)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_has_the_same_bits_in_any_company(width, rng):
    batch = dense(rng, batch=30)
    order = rng.permutation(30)
    whole, shuffled = solve(batch, width), solve(batch.select(order), width)
    np.testing.assert_array_equal(whole.x[order], shuffled.x)
    np.testing.assert_array_equal(whole.y[order], shuffled.y)
    np.testing.assert_array_equal(whole.iterations[order], shuffled.iterations)


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_that_share_P_and_A_may_have_costs_of_any_size(width, rng):
    """The scale of the cost belongs to a row, and with it P as the engine sees it."""
    one, count = dense(rng, batch=1), 19
    b = one.b + rng.uniform(0.0, 1.0, (count, one.b.shape[1]))
    b[:, : one.structure.cones.zero] = one.b[:, : one.structure.cones.zero]
    q = one.q * 10.0 ** np.linspace(-3, 5, count)[:, None]
    batch, order = dataclasses.replace(one, size=count, q=q, b=b), rng.permutation(count)
    found = solve(batch, width)
    shuffled = solve(dataclasses.replace(batch, q=q[order], b=b[order]), width)
    np.testing.assert_array_equal(found.x[order], shuffled.x)
    assert (found.status == Status.SOLVED).all()
    assert_close(found.x, solve_by_clarabel(batch).x)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_matrix_without_good_pivots_goes_another_way(width, rng):
    good, singular = dense(rng, batch=9), dense(rng, batch=9, rank_P=SIZE // 2)
    rows = [(good if k % 2 else singular).select(np.array([k])) for k in range(9)]
    parts = {
        name: np.concatenate([getattr(row, name) for row in rows]) for name in ("P", "q", "A", "b")
    }
    batch = dataclasses.replace(good, **parts)
    found = solve(batch, width)
    assert (found.status == Status.SOLVED).all()
    assert (found.solved_by == SolvedBy.FIRST_PASS).all()
    assert_close(found.x, solve_by_clarabel(batch).x)
    alone = solve(good.select(np.arange(1, 9, 2)), width)
    np.testing.assert_array_equal(found.x[1::2], alone.x)


@pytest.mark.parametrize("width", WIDTHS)
def test_it_sees_whether_P_is_convex(width, rng):
    good = MATRICES[0].build(rng, SIZE) + np.eye(SIZE)
    matrices = [good if k % 3 == 2 else case.build(rng, SIZE) for k, case in enumerate(MATRICES)]
    is_convex = [k % 3 == 2 or case.is_convex for k, case in enumerate(MATRICES)]
    count, A = len(matrices), rng.normal(size=(SIZE, SIZE))
    A[-1] = -A[:-1].sum(axis=0)  # with positive bounds the feasible set is bounded
    cones = ConeProduct(nonnegative=SIZE)
    q = [rng.normal(size=SIZE) for _ in matrices]
    batch = batch_of(cones, matrices, q, [A] * count, [np.ones(SIZE)] * count)
    assert keeps_what_P_and_A_leave(batch)
    found = solve(batch, width)
    np.testing.assert_array_equal(found.status != Status.NOT_CONVEX, is_convex)


@pytest.mark.parametrize("width", WIDTHS)
def test_bad_rows_end_with_their_status_and_spoil_no_other(width, rng):
    batch = dense(rng, cones=ConeProduct(0, SIZE), batch=13)
    alone = solve(batch, width)
    A, b = batch.A.copy(), batch.b.copy()
    row = batch.structure.A_indices
    # Two rows that contradict each other, a bound at infinity, a row twice, and a NaN.
    A[2, row == 1], b[2, 1] = -A[2, row == 0], -b[2, 0] - 1.0
    b[5, 3] = np.inf
    A[7, row == 1], b[7, 1] = A[7, row == 0], b[7, 0]
    b[9, 0] = np.nan
    bad = dataclasses.replace(batch, A=A, b=b)
    found = solve(bad, width)
    assert found.status[2] == Status.INFEASIBLE
    assert found.status[5] == found.status[7] == Status.SOLVED
    assert found.s[5, 3] == np.inf
    assert found.y[5, 3] == 0.0
    assert found.status[9] not in (Status.SOLVED, Status.INACCURATE)
    others = [0, 1, 3, 4, 6, 8, 10, 11, 12]
    np.testing.assert_array_equal(found.x[others], alone.x[others])
    A[5, row == 3], b[5, 3] = 0.0, 1.0
    pair = dataclasses.replace(batch, A=A, b=b).select(np.array([5, 7]))
    assert_close(found.x[[5, 7]], solve_by_clarabel(pair).x)


@pytest.mark.parametrize("width", WIDTHS)
def test_units_do_not_matter(width, rng):
    batch = dense(rng)
    scaled = dataclasses.replace(batch, P=1e6 * batch.P, q=1e6 * batch.q)
    assert_close(solve(scaled, width).x, solve(batch, width).x)
