# SPDX-License-Identifier: Apache-2.0
"""No input, however bad, gets more than a status: what Hypothesis finds to throw at our engine
ends in time, is right where it claims to be, and harms nobody else in the batch."""

from __future__ import annotations

import time
import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cvxlayer.differentiate.native import NativeDerivative
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.native import DEFAULT_MAX_ITERS, NativeBackend
from tests.catalog.fuzzing import search
from tests.catalog.optimality import infeasibility_error, optimality_error, unboundedness_error
from tests.catalog.wild_cone_programs import (
    BLOCKS,
    CONVEX,
    FINITE_TROUBLE,
    TROUBLE,
    WildProgram,
    wild_programs,
    with_value,
)

EPS = 1e-8
OPTIMAL = 2 * EPS  # measured by other sums, in another order
CERTIFICATE = 1e-5  # the engine's 1e-8 is in its own units, which its equilibration limits
SECONDS = 20.0

trouble = st.lists(
    st.tuples(
        st.sampled_from(BLOCKS), st.integers(0, 16), st.integers(0, 12), st.sampled_from(TROUBLE)
    ),
    max_size=3,
)
finite_trouble = st.lists(
    st.tuples(
        st.sampled_from(BLOCKS),
        st.integers(0, 16),
        st.integers(0, 12),
        st.sampled_from(FINITE_TROUBLE),
    ),
    max_size=3,
)
options = st.fixed_dictionaries(
    {
        "threads": st.integers(1, 9),
        "width": st.sampled_from([0, 0, 1, 4, 8, 3]),
        "polish": st.booleans(),
        "fallback": st.booleans(),
    }
)


def spoiled(program: WildProgram, entries: list[tuple[str, int, int, float]]) -> ConeProgramBatch:
    batch = program.build()
    for entry in entries if batch.size else []:
        batch = with_value(batch, *entry)
    return batch


def solve(batch: ConeProgramBatch, threads: int = 1, **extra: object) -> ConeSolution:
    backend = NativeBackend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return backend.solve(
            backend.setup(batch.structure), batch, Settings(EPS, EPS, threads=threads, extra=extra)
        )


@search(300)
@given(wild_programs(), trouble, options)
def test_everything_ends_with_a_status(program, entries, chosen):
    batch = spoiled(program, entries)
    start = time.monotonic()
    solution = solve(batch, **chosen)
    assert time.monotonic() - start < SECONDS
    assert set(solution.status.tolist()) <= {int(status) for status in Status}
    assert (solution.iterations >= 0).all()
    # Clarabel keeps its own count, and is asked twice.
    assert (solution.iterations <= 2 * DEFAULT_MAX_ITERS + 2).all()


@search(400)
@given(wild_programs(CONVEX), trouble, options)
def test_what_is_called_solved_is_optimal(program, entries, chosen):
    batch = spoiled(program, entries)
    solution = solve(batch, **chosen)
    for row in np.flatnonzero(solution.status == Status.SOLVED):
        point = (solution.x[row], solution.y[row], solution.s[row])
        assert optimality_error(batch, int(row), *point, unit=1.0) <= OPTIMAL


@search(400)
@given(wild_programs(CONVEX), trouble, options)
def test_what_is_called_infeasible_or_unbounded_is_certified(program, entries, chosen):
    batch = spoiled(program, entries)
    solution = solve(batch, **chosen)
    for row in np.flatnonzero(solution.status == Status.INFEASIBLE):
        assert infeasibility_error(batch, int(row), solution.y[row]) <= CERTIFICATE
    for row in np.flatnonzero(solution.status == Status.UNBOUNDED):
        ray = solution.x[row], solution.s[row]
        assert unboundedness_error(batch, int(row), *ray) <= CERTIFICATE


@search(200)
@given(wild_programs(), trouble, options)
def test_the_same_call_gives_the_same_bits_whatever_the_threads(program, entries, chosen):
    batch = spoiled(program, entries)
    first, second = solve(batch, **chosen), solve(batch, **{**chosen, "threads": 1})
    for name in ("x", "y", "s", "status", "iterations", "is_active", "gap"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


@search(200)
@given(wild_programs(), st.integers(0, 16), trouble, options)
def test_a_bad_row_changes_no_bit_of_the_others(program, bad, entries, chosen):
    batch = program.build()
    if batch.size == 0:
        return
    row = bad % batch.size
    other = batch
    for name, _, at, value in entries:
        # A block that all instances share would spoil them all.
        if getattr(batch, name).shape[0] == batch.size > 1:
            other = with_value(other, name, row, at, value)
    first, second = solve(batch, **chosen), solve(other, **chosen)
    good = np.arange(batch.size) != row
    for name in ("x", "y", "s", "status", "iterations", "is_active"):
        np.testing.assert_array_equal(getattr(first, name)[good], getattr(second, name)[good])


@search(300)
@given(wild_programs(), finite_trouble, options)
def test_gradients_are_zero_where_there_is_no_solution_and_finite_where_there_is(
    program, entries, chosen
):
    batch = spoiled(program, entries)
    solution = solve(batch, **chosen)
    derivative = NativeDerivative()
    bars = [np.ones_like(block) for block in (solution.x, solution.y, solution.s)]
    cotangent = derivative.vjp(derivative.setup(batch.structure), batch, solution, *bars)
    has_solution = solution.status <= Status.INACCURATE
    # Numbers near the end of the range have gradients beyond it.
    largest = np.max([np.abs(getattr(batch, name)).max(initial=0.0) for name in BLOCKS])
    smallest = np.max(np.abs(solution.y[has_solution]), initial=0.0)
    for name in BLOCKS:
        gradient = getattr(cotangent, name)
        assert (gradient[~has_solution] == 0.0).all()
        if max(largest, smallest) < 1e100:
            assert np.isfinite(gradient[has_solution]).all()
