# SPDX-License-Identifier: Apache-2.0
"""What a compiled program takes in and gives out: names, shapes, declared domains."""

from __future__ import annotations

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ParameterDomain:
    """What the user promised about the values of a parameter; all entries optional.

    Attributes:
        is_nonneg, is_nonpos, is_pos, is_neg: sign of every entry.
        is_symmetric: the matrix equals its transpose (also set for real PSD and NSD ones).
        is_hermitian: it equals its conjugate transpose (also set for complex PSD and NSD ones).
        is_imag: every real part is zero.
        is_psd, is_nsd: all eigenvalues are nonnegative, nonpositive.
        is_diag: every entry off the diagonal is zero.
        is_integer, is_boolean: every entry is an integer, is 0 or 1.
        lower, upper: bounds that broadcast to the shape, or None.
        sparsity: True where an entry may be nonzero, in the parameter's shape, or None.
    """

    is_nonneg: bool = False
    is_nonpos: bool = False
    is_pos: bool = False
    is_neg: bool = False
    is_symmetric: bool = False
    is_hermitian: bool = False
    is_imag: bool = False
    is_psd: bool = False
    is_nsd: bool = False
    is_diag: bool = False
    is_integer: bool = False
    is_boolean: bool = False
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    sparsity: np.ndarray | None = None

    @property
    def is_free(self) -> bool:
        """Whether nothing was declared, so every finite value is allowed."""
        return all(
            getattr(self, field.name) is None or getattr(self, field.name) is False
            for field in dataclasses.fields(self)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ParameterSpec:
    """One input of a compiled program.

    Attributes:
        name: as declared in the problem, or one that CVXPY made up.
        shape: without batch dimensions.
        domain: the declared domain.
        is_complex: whether values are complex.
    """

    name: str
    shape: tuple[int, ...]
    domain: ParameterDomain = dataclasses.field(default_factory=ParameterDomain)
    is_complex: bool = False

    @property
    def size(self) -> int:
        """Number of real coordinates: two for each complex entry."""
        return count_coordinates(self)


@dataclasses.dataclass(frozen=True, eq=False)
class OutputSpec:
    """One output of a compiled program: a variable or a dual variable.

    Attributes:
        name: as declared in the problem, or one that CVXPY made up.
        shape: without batch dimensions.
        is_dual: whether it is the dual variable of a constraint.
        is_complex: whether it is complex.
    """

    name: str
    shape: tuple[int, ...]
    is_dual: bool = False
    is_complex: bool = False

    @property
    def size(self) -> int:
        """Number of real coordinates: two for each complex entry."""
        return count_coordinates(self)


def count_coordinates(spec: ParameterSpec | OutputSpec) -> int:
    """Return how many real numbers make one value.

    The engine knows real numbers only. A complex entry is its real part followed by its
    imaginary part, as complex arrays lie in memory, so that no value is copied on the way.
    For cotangents this is the convention ∂L/∂Re + i ∂L/∂Im.
    """
    return math.prod(spec.shape) * (2 if spec.is_complex else 1)


def to_coordinates(spec: ParameterSpec | OutputSpec, array: np.ndarray) -> np.ndarray:
    """Return an array that ends in the shape of a spec as contiguous rows of coordinates.

    Args:
        spec: what the array is a value or a cotangent of.
        array: float64, or complex128 if the spec is complex.
    """
    rows = math.prod(array.shape[: array.ndim - len(spec.shape)])
    dtype = np.complex128 if spec.is_complex else np.float64
    flat = np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.float64)
    return flat.reshape(rows, spec.size)


def from_coordinates(
    spec: ParameterSpec | OutputSpec, rows: np.ndarray, batch_shape: tuple[int, ...]
) -> np.ndarray:
    """Return rows of coordinates as an array of shape batch_shape + spec.shape."""
    if spec.is_complex:
        rows = np.ascontiguousarray(rows).view(np.complex128)
    return rows.reshape(batch_shape + spec.shape)
