# SPDX-License-Identifier: Apache-2.0
"""N-dimensional power cones as trees of three-dimensional ones, exactly.

∏ wᵢ^αᵢ ≥ |z| holds if and only if some u, v ≥ 0 satisfy u^β v^(1−β) ≥ |z| with β the sum of the
α of one half of the factors, u bounded by the product of that half with its α divided by β, and
v likewise by the other half.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class PowerTree:
    """The three-dimensional cones in place of some N-dimensional ones.

    Attributes:
        constraints: each about all cones at once; their rows follow one another.
        factor_rows: the row of each entry of W, in its shape.
        bound_rows: the row of each entry of z.
    """

    constraints: tuple[Any, ...]
    factor_rows: np.ndarray
    bound_rows: np.ndarray


def power_cone(arguments: Sequence[Any], alpha: np.ndarray) -> Any:
    """Return three-dimensional power cones over three vectors of equal length."""
    x, y, z = arguments
    if x.size == 1:  # CVXPY 1.7 wants a single one without dimensions
        return cp.PowCone3D(cp.sum(x), cp.sum(y), cp.sum(z), float(alpha[0]))
    return cp.PowCone3D(x, y, z, alpha)


def split_power_cones(W: Any, z: Any, exponents: np.ndarray, axis: int) -> PowerTree:
    """Split cones over the factors W with |z| below their product.

    Args:
        W: a vector, or a matrix with a cone for each column (axis 0) or row (axis 1).
        z: a vector with an entry for each cone.
        exponents: α, of the shape of W; they add up to one in each cone.
        axis: the one along which the factors of a cone lie.
    """
    if W.ndim == 2 and axis == 1:
        tree = split_power_cones(W.T, z, exponents.T, 0)
        return PowerTree(tree.constraints, tree.factor_rows.T, tree.bound_rows)
    if W.ndim == 1:
        factors = [cp.reshape(W[i], (1,), order="F") for i in range(W.shape[0])]
    else:
        factors = [W[i, :] for i in range(W.shape[0])]
    alpha = exponents.reshape(len(factors), z.size)
    if len(factors) == 1:  # |z| ≤ w
        cone = cp.SOC(factors[0], cp.reshape(z, (1, z.size), order="F"))
        heads = 2 * np.arange(z.size)
        return PowerTree((cone,), heads.reshape(W.shape), heads + 1)
    cones: list[Any] = []
    rows = np.empty((len(factors), z.size), dtype=np.int64)

    def split(members: list[int], bound: Any) -> None:
        """Bound the weighted mean of some factors from below, here and further down."""
        sides = members[: len(members) // 2], members[len(members) // 2 :]
        start = 3 * z.size * len(cones)
        means = [factors[s[0]] if len(s) == 1 else cp.Variable(z.size) for s in sides]
        weight = alpha[sides[0]].sum(axis=0) / alpha[members].sum(axis=0)
        cones.append(power_cone([*means, bound], weight))
        for place, (side, mean) in enumerate(zip(sides, means, strict=True)):
            if len(side) == 1:
                rows[side[0]] = start + 3 * np.arange(z.size) + place
            else:
                split(side, mean)

    split(list(range(len(factors))), z)
    return PowerTree(tuple(cones), rows.reshape(W.shape), 3 * np.arange(z.size) + 2)
