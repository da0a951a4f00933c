# SPDX-License-Identifier: Apache-2.0
"""Semidefinite programs of SDPLIB, where the shared data stands beside the repository."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from cvxlayer.cones.product import ConeProduct
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "sdplib"
FILES = sorted(FOLDER.glob("*.dat-s"))


def published_optima() -> dict[str, float]:
    """Return the optimal values that were published, by the name of the problem."""
    with (FOLDER / "optimal_values.csv").open() as file:
        return {row["name"]: float(row["optimal_value"]) for row in csv.DictReader(file)}


def load(path: Path) -> ConeProgramBatch:
    """Return the batch of one program: minimize cᵀx with Σᵢ Fᵢxᵢ − F₀ ⪰ 0, block by block.

    A block of negative size is diagonal: its rows are linear inequalities. The published optimum
    is that of this problem, up to the sign that some of the files have.
    """
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in '"*']
    num_variables = int(lines[0].split()[0])
    num_blocks = int(lines[1].split()[0])
    sizes = [int(size) for size in _numbers(lines[2])[:num_blocks]]
    q = np.array(_numbers(lines[3])[:num_variables])
    matrix, block, row, column, value = np.array([_numbers(line)[:5] for line in lines[4:]]).T
    where, scale, nonnegative = _places(
        sizes, block.astype(int) - 1, row.astype(int) - 1, column.astype(int) - 1
    )
    num_rows = nonnegative + sum(k * (k + 1) // 2 for k in sizes if k > 0)
    entries = sp.coo_array(
        (value * scale, (where, matrix.astype(int))), shape=(num_rows, num_variables + 1)
    ).tocsc()
    A, b = sp.csc_array(-entries[:, 1:]), -entries[:, [0]].toarray().ravel()
    A.sum_duplicates()
    A.sort_indices()
    structure = ConeProgramStructure(
        num_variables,
        ConeProduct(nonnegative=nonnegative, semidefinite=tuple(k for k in sizes if k > 0)),
        np.zeros(num_variables + 1, np.int32),
        np.zeros(0, np.int32),
        A.indptr.astype(np.int32),
        A.indices.astype(np.int32),
    )
    return ConeProgramBatch(structure, 1, np.zeros((1, 0)), q[None], A.data[None], b[None])


def _numbers(line: str) -> list[float]:
    return [float(word) for word in re.split(r"[\s,(){}]+", line) if word]


def _places(
    sizes: list[int], block: np.ndarray, row: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """(row of the cone program, factor) of each entry, and how many linear rows there are.

    Linear rows come first; semidefinite blocks follow as svec: lower triangle, column by
    column, off-diagonals × √2.
    """
    nonnegative = sum(-size for size in sizes if size < 0)
    linear, curved, starts = 0, nonnegative, []
    for size in sizes:
        starts.append(linear if size < 0 else curved)
        if size < 0:
            linear -= size
        else:
            curved += size * (size + 1) // 2
    order, start = np.array(sizes)[block], np.array(starts)[block]
    low, high = np.maximum(row, column), np.minimum(row, column)
    inside = high * order - high * (high - 1) // 2 + low - high
    is_diagonal = order < 0
    scale = np.where(is_diagonal | (low == high), 1.0, math.sqrt(2.0))
    return start + np.where(is_diagonal, row, inside), scale, nonnegative
