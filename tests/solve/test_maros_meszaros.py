# SPDX-License-Identifier: Apache-2.0
"""Real QPs that others made: badly scaled, degenerate, and not chosen to please us."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from cvxlayer.solve.residuals import measure
from tests.catalog.maros_meszaros import FILES, FOLDER, NOT_CONVEX, at_most, load

# The others take seconds each.
MOST_VARIABLES = 500
OBJECTIVE = 2e-5


def solve(backend: str, batch: ConeProgramBatch) -> ConeSolution:
    engine = get_backend(backend)
    return engine.solve(engine.setup(batch.structure), batch, Settings())


def objective(batch: ConeProgramBatch, x: np.ndarray) -> float:
    P, q, _, _ = batch.instance(0)
    return float(0.5 * x @ (P @ x + sp.triu(P, 1).T @ x) + q @ x)


CONVEX = [path for path in at_most(MOST_VARIABLES) if path.stem != NOT_CONVEX]
needs_files = pytest.mark.skipif(
    not FILES, reason="the shared test problems are not beside the repository"
)


@needs_files
@pytest.mark.parametrize("backend", ["native", "clarabel"])
def test_the_one_that_is_not_convex_is_not_called_solved(backend: str) -> None:
    solution = solve(backend, load(FOLDER / f"{NOT_CONVEX}.mat"))
    assert Status(solution.status[0]) is Status.NOT_CONVEX


@needs_files
@pytest.mark.parametrize("path", CONVEX, ids=lambda path: path.stem)
def test_our_engine_solves_what_clarabel_solves(path: Path) -> None:
    batch = load(path)
    ours, theirs = solve("native", batch), solve("clarabel", batch)
    assert Status(theirs.status[0]) is Status.SOLVED
    assert Status(ours.status[0]) is Status.SOLVED
    residuals = measure(batch.instance(0), ours.x[0], ours.y[0], ours.s[0])
    assert residuals.are_below(2e-8, 2e-8), residuals
    inequality = slice(batch.structure.cones.zero, None)
    assert ours.s[0, inequality].min(initial=0.0) >= -1e-8
    assert ours.y[0, inequality].min(initial=0.0) >= -1e-8
    expected = objective(batch, theirs.x[0])
    assert objective(batch, ours.x[0]) == pytest.approx(expected, rel=OBJECTIVE, abs=OBJECTIVE)
