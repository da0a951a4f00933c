# SPDX-License-Identifier: Apache-2.0
"""The specification of the test that P is positive semidefinite."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayer.program.convexity import is_positive_semidefinite
from tests.catalog.quadratics import MATRICES

SIZES = (2, 3, 12, 60)


def upper(matrix: np.ndarray) -> sp.csc_array:
    return sp.csc_array(np.triu(matrix))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("case", MATRICES, ids=str)
def test_rounding_is_forgiven_and_curvature_is_not(case, n, rng):
    for _ in range(10):
        assert is_positive_semidefinite(upper(case.build(rng, n))) is case.is_convex


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1e9, 1e200])
@pytest.mark.parametrize("case", MATRICES, ids=str)
def test_the_unit_of_the_cost_does_not_matter(case, scale, rng):
    matrix = case.build(rng, 8)
    assert is_positive_semidefinite(upper(matrix * scale)) is case.is_convex


@pytest.mark.parametrize("case", MATRICES, ids=str)
def test_the_order_of_the_variables_does_not_matter(case, rng):
    matrix = case.build(rng, 20)
    order = rng.permutation(20)
    assert is_positive_semidefinite(upper(matrix[order][:, order])) is case.is_convex


def test_numbers_that_are_none_are_left_to_others():
    assert is_positive_semidefinite(upper(np.array([[np.nan, 1.0], [1.0, -1.0]])))
    assert is_positive_semidefinite(upper(np.array([[np.inf, 1.0], [1.0, -1.0]])))


def test_a_matrix_without_rows_is_positive_semidefinite():
    assert is_positive_semidefinite(sp.csc_array((0, 0)))
