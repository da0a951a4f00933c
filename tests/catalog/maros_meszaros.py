# SPDX-License-Identifier: Apache-2.0
"""Convex QPs of the Maros–Mészáros test set, where the shared data stands beside the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse as sp

from cvxlayer.cones.product import ConeProduct
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "maros_meszaros"
FILES = sorted(FOLDER.glob("*.mat"))
# The files write 1e20 for no bound, not always to the last digit.
INFINITY = 9e19
# The smallest eigenvalue of its P is −1.3e-5, the largest 11.
NOT_CONVEX = "VALUES"


def at_most(num_variables: int) -> list[Path]:
    """Return the files of the programs with no more variables than this."""
    return [path for path in FILES if _shapes(path)["q"][0] <= num_variables]


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape, _ in scipy.io.whosmat(path)}


def load(path: Path) -> ConeProgramBatch:
    """Return the batch of one program: minimize ½xᵀPx + qᵀx with l ≤ Ax ≤ u."""
    file = scipy.io.loadmat(path)
    P = sp.csc_array(sp.triu(sp.csc_matrix(file["P"])))
    rows = sp.csr_array(sp.csr_matrix(file["A"]))
    q, lower, upper = (file[name].ravel().astype(float) for name in ("q", "l", "u"))
    is_equality = lower == upper
    has_upper = (upper < INFINITY) & ~is_equality
    has_lower = (lower > -INFINITY) & ~is_equality
    A = sp.csc_array(sp.vstack([rows[is_equality], rows[has_upper], -rows[has_lower]]))
    b = np.concatenate([upper[is_equality], upper[has_upper], -lower[has_lower]])
    for matrix in (P, A):
        matrix.sum_duplicates()
        matrix.sort_indices()
    structure = ConeProgramStructure(
        len(q),
        ConeProduct(int(is_equality.sum()), len(b) - int(is_equality.sum())),
        *(part.astype(np.int32) for part in (P.indptr, P.indices, A.indptr, A.indices)),
    )
    return ConeProgramBatch(
        structure, 1, P.data[None].astype(float), q[None], A.data[None].astype(float), b[None]
    )
