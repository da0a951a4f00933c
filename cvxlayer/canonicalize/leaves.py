# SPDX-License-Identifier: Apache-2.0
"""How CVXPY stores parameters and variables with attributes, as sparse selections.

CVXPY flattens in Fortran order and keeps the upper triangle of a symmetric leaf, the
diagonal of a diagonal one and the listed entries of a sparse one. Users see full arrays
in C order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxlayer.errors import ParameterValueError, UnsupportedProblemError
from cvxlayer.program.parameters import ParameterDomain


def is_symmetric(leaf: Any) -> bool:
    """Whether CVXPY treats the leaf as a symmetric matrix."""
    return any(leaf.attributes[name] for name in ("symmetric", "PSD", "NSD"))


def c_order_of_fortran(shape: tuple[int, ...]) -> np.ndarray:
    """Return, for each position in Fortran order, the position in C order."""
    return np.arange(int(np.prod(shape, dtype=int))).reshape(shape).ravel(order="F")


def full_from_canonical(leaf: Any, canonical_size: int) -> sp.csr_array:
    """Return the matrix from CVXPY's stored entries of a variable to its full value (C order).

    Args:
        leaf: a variable of the user's problem.
        canonical_size: how many entries CVXPY stores for it.
    """
    position, stored = _stored_entries(leaf, canonical_size)
    return sp.csr_array(
        (np.ones(len(position)), (position, stored)), shape=(leaf.size, canonical_size)
    )


def canonical_from_full(leaf: Any, canonical_size: int) -> sp.csr_array:
    """Return the matrix from a parameter's full value (C order) to CVXPY's stored entries.

    Notes:
        Entries above and below the diagonal of a symmetric parameter count half each, so
        that its gradient is symmetric and agrees with differences along symmetric
        directions. Entries that the attributes fix at zero are ignored.
    """
    position, stored = _stored_entries(leaf, canonical_size)
    counts = np.bincount(stored, minlength=canonical_size)
    weights = 1.0 / counts[stored]
    matrix = sp.csr_array((weights, (stored, position)), shape=(canonical_size, leaf.size))
    if is_symmetric(leaf) and canonical_size == leaf.size:
        mirror = np.arange(leaf.size).reshape(leaf.shape).swapaxes(-2, -1).ravel()
        matrix = 0.5 * (matrix + matrix[:, mirror])
    return sp.csr_array(matrix)


def _stored_entries(leaf: Any, canonical_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (position in C order, index among CVXPY's stored entries)."""
    shape, places = leaf.shape, np.arange(leaf.size).reshape(leaf.shape)
    sparse_index = getattr(leaf, "sparse_idx", None)
    if canonical_size == leaf.size and not (leaf.attributes["diag"] or sparse_index is not None):
        return c_order_of_fortran(shape), np.arange(leaf.size)
    if is_symmetric(leaf) and canonical_size != leaf.size:
        upper = np.triu_indices(shape[-1])
        stored = np.arange(canonical_size).reshape((*shape[:-2], len(upper[0])), order="F")
        above = places[..., upper[0], upper[1]].ravel()
        below = places[..., upper[1], upper[0]].ravel()
        off_diagonal = above != below
        stored = stored.ravel()
        return (
            np.concatenate([above, below[off_diagonal]]),
            np.concatenate([stored, stored[off_diagonal]]),
        )
    allowed = places.diagonal() if leaf.attributes["diag"] else places[sparse_index]
    if canonical_size == leaf.size:  # stored in full, Fortran order
        fortran = np.empty(leaf.size, dtype=int)
        fortran[c_order_of_fortran(shape)] = np.arange(leaf.size)
        return allowed, fortran[allowed]
    assert len(allowed) == canonical_size
    return allowed, np.arange(canonical_size)


def full_value(parameter: Any) -> np.ndarray:
    """Return the value of a parameter that is not an input, flattened in C order.

    Raises:
        ParameterValueError: it has none.
    """
    value = parameter.value
    if value is None and parameter.attributes.get("sparsity"):
        value = parameter.value_sparse
    if value is None:
        raise ParameterValueError(
            f"The parameter `{parameter.name()}` of the problem is not among `parameters` and has "
            f"no value. A parameter that is not an input is a constant and needs one: list it, or "
            f"set `{parameter.name()}.value` before building the layer."
        )
    dtype = np.complex128 if parameter.is_complex() else np.float64
    return np.asarray(_dense(value), dtype=dtype).reshape(-1)


def _dense(value: Any) -> Any:
    """Return a sparse array as a dense one, others as they are."""
    return value.toarray() if hasattr(value, "toarray") else value


def domain_of(parameter: Any) -> ParameterDomain:
    """Return what the user declared about a parameter.

    Raises:
        UnsupportedProblemError: its bounds are expressions.
    """
    attributes = parameter.attributes
    is_definite = bool(attributes["PSD"] or attributes["NSD"])
    lower = upper = sparsity = None
    if attributes.get("bounds") is not None:
        lower, upper = (_bound(bound, parameter) for bound in attributes["bounds"])
    if getattr(parameter, "sparse_idx", None) is not None and not attributes["diag"]:
        sparsity = np.zeros(parameter.shape, dtype=bool)
        sparsity[parameter.sparse_idx] = True
    return ParameterDomain(
        is_nonneg=bool(attributes["nonneg"]),
        is_nonpos=bool(attributes["nonpos"]),
        is_pos=bool(attributes["pos"]),
        is_neg=bool(attributes["neg"]),
        is_symmetric=bool(attributes["symmetric"]) or (is_definite and not parameter.is_complex()),
        is_hermitian=bool(attributes["hermitian"]) or (is_definite and parameter.is_complex()),
        is_imag=bool(attributes["imag"]),
        is_psd=bool(attributes["PSD"]),
        is_nsd=bool(attributes["NSD"]),
        is_diag=bool(attributes["diag"]),
        is_integer=bool(attributes["integer"]),
        is_boolean=bool(attributes["boolean"]),
        lower=lower,
        upper=upper,
        sparsity=sparsity,
    )


def _bound(bound: Any, parameter: Any) -> np.ndarray | None:
    """Return one declared bound as an array, None when it holds nothing back."""
    if hasattr(bound, "value") and not isinstance(bound, np.ndarray):
        raise UnsupportedProblemError(
            f"The bounds of the parameter `{parameter.name()}` are expressions. Bounds of a "
            "parameter must be numbers; check other relations before calling the layer."
        )
    array = np.asarray(_dense(bound), dtype=np.float64)
    return None if np.all(np.isinf(array)) else array
