# SPDX-License-Identifier: Apache-2.0
"""Residuals, against the formulas written out densely."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer.cones.product import ConeProduct
from cvxlayer.solve.residuals import RowResiduals, measure
from tests.catalog.cone_programs import random_batch


def test_residuals_are_the_written_out_formulas(rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=5, cones=ConeProduct(1, 3, (3,)))
    x, y, s = rng.normal(size=5), rng.normal(size=7), rng.normal(size=7)
    P, q, A, b = batch.instance(1)
    full = P.toarray() + np.triu(P.toarray(), 1).T
    residuals = measure((P, q, A, b), x, y, s)
    assert residuals.primal == pytest.approx(np.abs(A.toarray() @ x + s - b).max())
    assert residuals.dual == pytest.approx(np.abs(full @ x + A.toarray().T @ y + q).max())
    assert residuals.gap == pytest.approx(abs(x @ full @ x + q @ x + b @ y))
    assert residuals.primal_scale == pytest.approx(
        max(np.abs(A.toarray() @ x).max(), np.abs(s).max(), np.abs(b).max())
    )
    assert residuals.gap_scale == pytest.approx(max(abs(x @ full @ x), abs(q @ x), abs(b @ y)))


def test_rows_with_an_infinite_bound_are_left_out(rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=3, cones=ConeProduct(0, 4), density=1.0)
    P, q, A, b = batch.instance(0)
    b = b.copy()
    b[2] = np.inf
    x, y, s = rng.normal(size=3), np.array([1.0, 2.0, 0.0, 3.0]), np.array([1.0, 1.0, np.inf, 1.0])
    residuals = measure((P, q, A, b), x, y, s)
    kept = [0, 1, 3]
    assert residuals.primal == pytest.approx(np.abs((A @ x)[kept] + 1.0 - b[kept]).max())
    assert np.isfinite(residuals.gap)


def test_one_large_residual_is_enough_to_be_above() -> None:
    scales = {"primal_scale": 10.0, "dual_scale": 10.0, "gap_scale": 10.0}
    assert RowResiduals(1e-8, 1e-8, 1e-8, **scales).are_below(1e-9, 1e-9)
    for large in [(1e-7, 0.0, 0.0), (0.0, 1e-7, 0.0), (0.0, 0.0, 1e-7)]:
        assert not RowResiduals(*large, **scales).are_below(1e-9, 1e-9)


def test_residuals_that_are_not_numbers_are_not_below() -> None:
    assert not RowResiduals(np.nan, np.nan, np.nan).are_below(1.0, 1.0)
