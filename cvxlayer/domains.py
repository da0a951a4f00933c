# SPDX-License-Identifier: Apache-2.0
"""Does a value lie in the domain its parameter declares (`nonneg=True`, `PSD=True`, …)?

Each rule takes a stack of values and says which of them break it. A value within rounding
of its domain is accepted: rounding of the dtype it came in, not of float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Shaped

from cvxlayer.program.inspection import SEMIDEFINITE, find_bits, is_in_domains
from cvxlayer.program.parameters import ParameterDomain

_Stack = Shaped[np.ndarray, "rows ..."]
_Verdict = Bool[np.ndarray, " rows"]
# Which rows break the rule, or None where it is plain that none does.
_Rule = Callable[[np.ndarray, float], np.ndarray | None]

# What CVXPY itself tolerates when a value is assigned to a parameter.
_ROUNDING = 1e-10
_EIGENVALUE_ROUNDING = 1e-8


def find_violation(
    domain: ParameterDomain, values: _Stack, epsilon: float, threads: int = 1
) -> tuple[_Verdict, str] | None:
    """Return the first declared domain that a stack of values breaks.

    Args:
        domain: what was declared.
        values: one value per row, real or complex, in the user's scaling, without NaN.
        epsilon: machine epsilon of the dtype in which the values were given.
        threads: threads over the stack.

    Returns:
        Which rows are outside, and the words that follow "must be"; None if all are inside.
    """
    bits = None if np.iscomplexobj(values) else find_bits(domain)
    if bits is not None and is_in_domains(_flat(values), bits, epsilon, threads):
        return None
    for field, rule, words in _RULES:
        if getattr(domain, field):
            if field in ("is_psd", "is_nsd") and np.iscomplexobj(values):
                values = _real_block(values)
            wrong = rule(values, epsilon)
            if wrong is not None and wrong.any():
                return wrong, words
    if domain.lower is not None or domain.upper is not None:
        wrong = _is_out_of_bounds(domain, values, epsilon)
        if wrong.any():
            return wrong, f"within its `bounds`, {_describe_bounds(domain)}"
    if domain.sparsity is not None:
        wrong = _any_entry((values != 0) & ~domain.sparsity)
        if wrong.any():
            return wrong, "zero outside its declared `sparsity`"
    return None


def _flat(values: _Stack) -> np.ndarray:
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _real_block(values: _Stack) -> _Stack:
    """Return real symmetric matrices that are semidefinite with Hermitian ones."""
    real, imaginary = np.real(values), np.imag(values)
    return np.block([[real, -imaginary], [imaginary, real]])


def _scale(values: _Stack, epsilon: float) -> np.ndarray:
    """Return the rounding to allow in each row, shaped to broadcast against the values."""
    axes = tuple(range(1, values.ndim))
    finite = np.where(np.isfinite(values), np.abs(values), 1.0)
    largest = np.max(finite, axis=axes, initial=1.0, keepdims=True)
    return max(_ROUNDING, 8 * epsilon) * largest


def _any_entry(entries: np.ndarray) -> _Verdict:
    return np.asarray(entries.any(axis=tuple(range(1, entries.ndim))))


def _is_negative(values: _Stack, epsilon: float) -> _Verdict | None:
    if values.min(initial=0.0) >= 0:
        return None
    return _any_entry(values < -_scale(values, epsilon))


def _is_positive(values: _Stack, epsilon: float) -> _Verdict | None:
    return _is_negative(-values, epsilon)


def _is_not_symmetric(values: _Stack, epsilon: float) -> _Verdict:
    transposed = values.swapaxes(-1, -2)
    return _any_entry(np.abs(values - transposed) > _scale(values, epsilon))


def _is_not_hermitian(values: _Stack, epsilon: float) -> _Verdict | None:
    distance = np.abs(values - values.swapaxes(-1, -2).conj())
    return _any_entry(distance > _scale(values, epsilon)) if distance.any() else None


def _is_not_imaginary(values: _Stack, epsilon: float) -> _Verdict:
    return _any_entry(np.abs(np.real(values)) > _scale(values, epsilon))


def _is_not_diagonal(values: _Stack, epsilon: float) -> _Verdict:
    off_diagonal = ~np.eye(values.shape[-1], dtype=bool)
    return _any_entry((np.abs(values) > _scale(values, epsilon)) & off_diagonal)


def _has_negative_eigenvalue(values: _Stack, epsilon: float) -> _Verdict | None:
    # Many times cheaper than eigenvalues.
    if is_in_domains(_flat(values), SEMIDEFINITE, epsilon, 1):
        return None
    dimension = values.shape[-1]
    rounding = max(_EIGENVALUE_ROUNDING, 8 * dimension * epsilon)
    shift = rounding * np.max(np.abs(values), axis=(-1, -2), initial=1.0, keepdims=True)
    shifted = values + shift * np.eye(dimension)
    return _any_entry(np.linalg.eigvalsh(shifted) < 0)


def _is_not_integer(values: _Stack, epsilon: float) -> _Verdict:
    return _any_entry(np.abs(values - np.round(values)) > _scale(values, epsilon))


def _is_not_boolean(values: _Stack, epsilon: float) -> _Verdict:
    distance = np.minimum(np.abs(values), np.abs(values - 1))
    return _any_entry(distance > _scale(values, epsilon))


def _is_out_of_bounds(domain: ParameterDomain, values: _Stack, epsilon: float) -> _Verdict:
    slack = _scale(values, epsilon)
    wrong = np.zeros(values.shape, dtype=bool)
    if domain.lower is not None:
        wrong |= values < domain.lower - slack
    if domain.upper is not None:
        wrong |= values > domain.upper + slack
    return _any_entry(wrong)


def _describe_bounds(domain: ParameterDomain) -> str:
    def words(bound: np.ndarray | None, absent: str) -> str:
        if bound is None:
            return absent
        return str(bound.flat[0]) if np.all(bound == bound.flat[0]) else "…"

    return f"[{words(domain.lower, '-inf')}, {words(domain.upper, 'inf')}]"


# In this order: of two broken promises the simpler one is reported.
_RULES: tuple[tuple[str, _Rule, str], ...] = (
    ("is_nonneg", _is_negative, "nonnegative (`nonneg=True`)"),
    ("is_nonpos", _is_positive, "nonpositive (`nonpos=True`)"),
    ("is_pos", lambda values, _: _any_entry(values <= 0), "positive (`pos=True`)"),
    ("is_neg", lambda values, _: _any_entry(values >= 0), "negative (`neg=True`)"),
    ("is_boolean", _is_not_boolean, "0 or 1 (`boolean=True`)"),
    ("is_integer", _is_not_integer, "integer (`integer=True`)"),
    ("is_diag", _is_not_diagonal, "diagonal (`diag=True`)"),
    ("is_symmetric", _is_not_symmetric, "symmetric"),
    ("is_hermitian", _is_not_hermitian, "Hermitian"),
    ("is_imag", _is_not_imaginary, "imaginary (`imag=True`)"),
    ("is_psd", _has_negative_eigenvalue, "positive semidefinite (`PSD=True`)"),
    (
        "is_nsd",
        lambda values, epsilon: _has_negative_eigenvalue(-values, epsilon),
        "negative semidefinite (`NSD=True`)",
    ),
)
