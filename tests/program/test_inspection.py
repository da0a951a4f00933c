# SPDX-License-Identifier: Apache-2.0
"""What the core says about a batch of values is what NumPy says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cvxlayer import domains
from cvxlayer.program.inspection import find_bits, is_finite, is_in_domains
from cvxlayer.program.parameters import ParameterDomain

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


DOUBLE, SINGLE = (float(np.finfo(dtype).eps) for dtype in (np.float64, np.float32))


def check(stack: np.ndarray, threads: int = 1, epsilon: float = DOUBLE, **declared: bool) -> bool:
    bits = find_bits(ParameterDomain(**declared))
    assert bits is not None
    return is_in_domains(stack.reshape(len(stack), -1), bits, epsilon, threads)


@THREADS
@pytest.mark.parametrize("n", [0, 1, 2, 5, 16, 17, 50])
def test_one_matrix_that_is_not_symmetric_is_found(n: int, threads: int, rng: Any) -> None:
    stack = rng.normal(size=(300, n, n))
    stack += stack.swapaxes(1, 2)
    assert check(stack, threads, is_symmetric=True)
    for row in range(1, n):
        for size, epsilon in ((1e-10, DOUBLE), (8 * SINGLE, SINGLE)):
            for factor in (0.5, 2.0):
                changed = stack.copy()
                changed[-1, row, row // 2] += factor * size * max(1.0, np.abs(changed[-1]).max())
                inside = check(changed, threads, epsilon, is_symmetric=True)
                assert inside == (factor < 1.0)


@THREADS
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 8, 13, 64])
def test_semidefinite_matrices_are_told_from_others(n: int, threads: int, rng: Any) -> None:
    root = rng.normal(size=(60, n, max(n - 1, 0)))  # singular
    stack = root @ root.swapaxes(1, 2)
    stack = 0.5 * (stack + stack.swapaxes(1, 2))
    assert check(stack, threads, is_symmetric=True, is_psd=True)
    assert check(-stack, threads, is_symmetric=True, is_nsd=True)
    assert check(-stack, threads, is_symmetric=True, is_psd=True) == (n <= 1)
    for change in (-1.0, np.nan):
        wrong = stack.copy()
        wrong[37] += change * 2e-8 * max(1.0, np.abs(stack[37]).max(initial=0.0)) * np.eye(n)
        assert check(wrong, threads, is_symmetric=True, is_psd=True) == (n == 0)
        assert check(-wrong, threads, is_symmetric=True, is_nsd=True) == (n == 0)
    if n > 1:  # what single precision may miss
        wrong[37] = stack[37] - 4 * n * SINGLE * np.eye(n)
        assert check(wrong, threads, SINGLE, is_symmetric=True, is_psd=True)


def test_only_the_lower_triangle_tells_whether_a_matrix_is_definite() -> None:
    assert check(np.array([[[1.0, 9.0], [0.0, 1.0]]]), is_psd=True)
    assert not check(np.array([[[1.0, 0.0], [9.0, 1.0]]]), is_psd=True)


@THREADS
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_one_entry_of_the_wrong_sign_is_found(scale: float, threads: int, rng: Any) -> None:
    rows = scale * rng.uniform(0.1, 1.0, size=(4000, 9))
    for sign, weak, strict in ((1.0, "is_nonneg", "is_pos"), (-1.0, "is_nonpos", "is_neg")):
        for entry, is_weak in ((0.0, True), (-0.5e-10, True), (-2e-10, False), (np.nan, False)):
            changed = rows.copy()
            changed[3999, 7] = entry * max(1.0, np.abs(rows[3999]).max())
            assert check(sign * changed, threads, **{weak: True}) == is_weak
            assert not check(sign * changed, threads, **{strict: True})
        assert check(sign * rows, threads, **{weak: True, strict: True})
        assert not check(-sign * rows, threads, **{weak: True})


def test_an_infinite_entry_allows_no_more_to_the_others() -> None:
    assert check(np.array([[np.inf, 0.0]]), is_nonneg=True)
    assert not check(np.array([[np.inf, -1.0]]), is_nonneg=True)


def test_what_the_core_does_not_know_has_no_bits() -> None:
    assert find_bits(ParameterDomain()) == 0
    assert find_bits(ParameterDomain(is_nonneg=True, is_integer=True)) is None
    assert find_bits(ParameterDomain(lower=np.zeros(3))) is None


def test_matrices_have_to_be_square() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 4\)"):
        is_in_domains(np.ones((2, 5)), 16, DOUBLE, 1)


@pytest.mark.parametrize("field", ["is_nonneg", "is_symmetric", "is_psd", "is_diag"])
def test_no_values_break_no_rule(field: str) -> None:
    assert (
        domains.find_violation(ParameterDomain(**{field: True}), np.zeros((0, 3, 3)), DOUBLE)
        is None
    )


@pytest.mark.parametrize("epsilon", [DOUBLE, SINGLE])
@pytest.mark.parametrize("scale", [0.1, 1e4])
@pytest.mark.parametrize("fields", [
    ("is_nonneg",), ("is_nonpos",), ("is_pos",), ("is_neg",), ("is_symmetric",),
    ("is_symmetric", "is_psd"), ("is_symmetric", "is_nsd"),
])  # fmt: skip
def test_the_core_and_the_rules_of_numpy_draw_the_same_line(
    fields: tuple[str, ...], scale: float, epsilon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domains, "is_in_domains", lambda *_: False)
    declared = dict.fromkeys(fields, True)
    sign = -1.0 if fields[-1] in ("is_nonpos", "is_neg", "is_nsd") else 1.0
    wrong = {"is_symmetric": (2, 0), "is_psd": (1, 1), "is_nsd": (1, 1)}.get(fields[-1], (0, 2))
    is_matrix = fields[0] == "is_symmetric"
    verdicts = set()
    for allowed in (1e-10, 1e-8, 8 * epsilon, 24 * epsilon):
        for factor in (-2.0, -0.5, 0.0, 0.5, 2.0):
            value = scale * (np.eye(3) if is_matrix else np.ones((3, 3)))
            value[wrong] = factor * allowed * max(1.0, scale)
            stack = sign * value[None]
            by_rules = domains.find_violation(ParameterDomain(**declared), stack, epsilon) is None
            assert check(stack, epsilon=epsilon, **declared) == by_rules
            verdicts.add(by_rules)
    assert verdicts == {True, False}
