# SPDX-License-Identifier: Apache-2.0
"""What the core says about a batch of values is what NumPy says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cvxlayer.program.inspection import is_finite, is_positive_definite, is_symmetric

THREADS = pytest.mark.parametrize("threads", [1, 2, 5])


@THREADS
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (3, 7), (400, 1001)])
def test_numbers_are_finite(shape: tuple[int, int], threads: int, rng: Any) -> None:
    assert is_finite(1e300 * rng.normal(size=shape), threads)


@THREADS
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (400, 1001)])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_one_entry_that_is_not_finite_is_found(
    shape: tuple[int, int], wrong: float, threads: int, rng: Any
) -> None:
    for place in {0, shape[0] * shape[1] // 2, shape[0] * shape[1] - 1}:
        rows = rng.normal(size=shape)
        rows.reshape(-1)[place] = wrong
        assert not is_finite(rows, threads)


@THREADS
@pytest.mark.parametrize("n", [0, 1, 2, 5, 30])
def test_one_matrix_that_is_not_symmetric_is_found(n: int, threads: int, rng: Any) -> None:
    stack = rng.normal(size=(300, n, n))
    stack += stack.swapaxes(1, 2)
    assert is_symmetric(stack, threads)
    for row in range(1, n):
        changed = stack.copy()
        changed[-1, row, row - 1] += 1e-15 + abs(changed[-1, row, row - 1]) * 1e-15
        assert not is_symmetric(changed, threads)


@THREADS
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 8, 13, 64])
def test_positive_definite_matrices_are_told_from_others(n: int, threads: int, rng: Any) -> None:
    root = rng.normal(size=(60, n, n))
    stack = root @ root.swapaxes(1, 2) + 0.01 * np.eye(n)
    assert is_positive_definite(stack, threads)
    for change in (-1.0, np.nan):
        wrong = stack.copy()
        wrong[37] += change * (np.linalg.eigvalsh(stack[37]).min(initial=np.inf) + 1e-6) * np.eye(n)
        assert is_positive_definite(wrong, threads) == (n == 0)


def test_only_the_lower_triangle_tells_whether_a_matrix_is_definite() -> None:
    assert is_positive_definite(np.array([[[1.0, 9.0], [0.0, 1.0]]]), 1)
    assert not is_positive_definite(np.array([[[1.0, 0.0], [9.0, 1.0]]]), 1)
