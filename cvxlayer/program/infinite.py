# SPDX-License-Identifier: Apache-2.0
"""Infinite bounds: which parameters may be infinite, and rows that then bound nothing.

A row aᵀx + s = b, s ≥ 0, with b = +∞ holds for every x. It is replaced by 0ᵀx + s = 1,
which keeps the structure and is never active: its multiplier and its derivative vanish.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from cvxlayer.cones.product import ConeProduct
from cvxlayer.program.batch import ConeProgramBatch


def find_infinite_sides(
    b: Any, others: Sequence[Any], objective_constant: Any, cones: ConeProduct
) -> Int[np.ndarray, " p"]:
    """Return where each entry of θ may be infinite: +1 above, −1 below, 0 nowhere.

    An entry may be infinite if it touches nothing but b, there only rows of the nonnegative
    cone, and moves all of them in the same direction.

    Args:
        b: linear part of θ ↦ b, (m × p).
        others: linear parts of θ ↦ P, q, A, each with p columns.
        objective_constant: the matrix of the quadratic form in [θ; 1].
        cones: K.
    """
    columns: Any = sp.coo_array(b)
    num_parameters = columns.shape[1]
    inequality = (columns.row >= cones.zero) & (columns.row < cones.num_linear)
    rises = np.zeros(num_parameters, dtype=bool)
    falls = np.zeros(num_parameters, dtype=bool)
    barred = np.zeros(num_parameters, dtype=bool)
    rises[columns.col[(columns.data > 0) & inequality]] = True
    falls[columns.col[(columns.data < 0) & inequality]] = True
    barred[columns.col[(columns.data != 0) & ~inequality]] = True
    for matrix in others:
        barred[_columns_touched(matrix, num_parameters)] = True
    barred[_columns_touched(objective_constant, num_parameters)] = True
    sides = rises.astype(np.int8) - falls.astype(np.int8)
    return np.where(barred, 0, sides).astype(np.int8)


def _columns_touched(matrix: Any, num_parameters: int) -> np.ndarray:
    entries: Any = sp.coo_array(matrix)
    columns = entries.col[entries.data != 0]
    return columns[columns < num_parameters]


def without_infinite_rows(batch: ConeProgramBatch) -> ConeProgramBatch:
    """Replace rows that an infinite b makes empty; the batch itself if there are none."""
    infinite = batch.b == np.inf
    if not infinite.any():
        return batch
    b = np.where(infinite, 1.0, batch.b)
    A = np.where(infinite[:, batch.structure.A_indices], 0.0, batch.A)
    return dataclasses.replace(batch, A=A, b=b)
