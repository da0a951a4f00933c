# SPDX-License-Identifier: Apache-2.0
"""The native engine claims nothing that is not true, on programs that come with a proof of how
they end; the whole table is docs/statuses.md."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from cvxlayer.cones import projection
from cvxlayer.errors import Status
from tests.benchmarks.statuses import Verdict, draw, proof_error, ray_error, solve
from tests.catalog.known_programs import FAMILIES, SORTS

EXACT = 1e-9
#: Of the rows of a family, how many may end without a claim or short of the tolerance.
MOST_UNDECIDED, MOST_NOT_RIGHT = 0.05, 0.1
# Where steps along free directions, lost pivots or large numbers in P once led astray.
HARD = [
    *(("rank-deficient", "linear", index) for index in (0, 2, 3, 5)),
    ("redundant", "linear", 12),
    ("unbounded, badly scaled", "quadratic", 3),
    ("unbounded, badly scaled", "mixed", 7),
    ("barely infeasible", "semidefinite", 3),
    ("rank-deficient", "semidefinite", 6),
]


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_proofs_prove_what_they_should(family, sort):
    known = draw(family, sort, 0)
    for program in known.programs:
        x, y, s, cones = program.x, program.y, program.s, program.cones
        if program.status is Status.INFEASIBLE:
            assert proof_error(program, y) <= EXACT
            continue
        if program.status is Status.UNBOUNDED:
            assert ray_error(program, x, s) <= EXACT
            continue
        size = 1.0 + max(np.abs(program.A @ x).max(), np.abs(s).max())
        assert np.abs(program.A @ x + s - program.b).max() <= EXACT * size
        gradient = program.P @ x + program.q + program.A.T @ y
        assert np.abs(gradient).max() <= EXACT * (1.0 + np.abs(program.q).max())
        assert np.abs(s - projection.project(cones, s[None])[0]).max() <= EXACT * size
        assert np.abs(y - projection.project_dual(cones, y[None])[0]).max() <= EXACT * (
            1.0 + np.abs(y).max()
        )
        assert abs(s @ y) <= EXACT * (1.0 + np.abs(s) @ np.abs(y))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_native_engine_is_never_wrong(family):
    count = collections.Counter(
        verdict for sort in SORTS for verdict in solve("native", draw(family, sort, 0))
    )
    total = sum(count.values())
    assert count[Verdict.WRONG] == 0
    assert count[Verdict.UNDECIDED] <= MOST_UNDECIDED * total
    assert total - count[Verdict.RIGHT] <= MOST_NOT_RIGHT * total


@pytest.mark.parametrize(("family", "sort", "index"), HARD)
def test_what_once_went_astray_ends_right(family, sort, index):
    verdicts = solve("native", draw(family, sort, index))
    assert set(verdicts) == {Verdict.RIGHT}
