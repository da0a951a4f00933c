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
        is_symmetric: the matrix equals its transpose (also set for PSD and NSD).
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
    """

    name: str
    shape: tuple[int, ...]
    domain: ParameterDomain = dataclasses.field(default_factory=ParameterDomain)

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class OutputSpec:
    """One output of a compiled program: a variable or a dual variable.

    Attributes:
        name: as declared in the problem, or one that CVXPY made up.
        shape: without batch dimensions.
        is_dual: whether it is the dual variable of a constraint.
    """

    name: str
    shape: tuple[int, ...]
    is_dual: bool = False

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)
