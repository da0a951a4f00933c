# SPDX-License-Identifier: Apache-2.0
"""Piecewise linear maps of a few constraints: which of them are linear after all."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer.differentiate.branching import is_branching

# One constraint: z = max(−g dθ, 0).
ONE = np.ones((1, 1))
# Two that are never on at once: max(−dθ, 0) and max(dθ, 0).
TWO, OPPOSITE = np.eye(2), np.array([[1.0], [-1.0]])


@pytest.mark.parametrize(
    ("M", "G", "R", "expected"),
    [
        (ONE, ONE, ONE, True),
        (ONE, ONE, 0 * ONE, False),
        (ONE, 0 * ONE, ONE, False),
        (TWO, OPPOSITE, np.array([[1.0, 0.0]]), True),
        (TWO, OPPOSITE, np.array([[1.0, 1.0]]), True),
        (TWO, OPPOSITE, np.array([[1.0, -1.0]]), False),
        (TWO, OPPOSITE, np.array([[1.0, -1.0], [1.0, 1.0]]), True),
        # Two constraints, each moved by a parameter of its own.
        (TWO, np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 2.0]]), True),
        # Nothing answers the constraint once it is violated.
        (0 * ONE, ONE, ONE, True),
    ],
)
def test_what_is_linear_is_no_kink(
    M: np.ndarray, G: np.ndarray, R: np.ndarray, expected: bool
) -> None:
    assert is_branching(M, G, R) is expected


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_matter(scale: float) -> None:
    for R, expected in ((np.array([[1.0, -1.0]]), False), (np.array([[1.0, 1.0]]), True)):
        assert is_branching(scale * TWO, OPPOSITE, R) is expected
        assert is_branching(TWO, scale * OPPOSITE, R) is expected
        assert is_branching(TWO, OPPOSITE, scale * R) is expected
