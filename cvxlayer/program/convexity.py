# SPDX-License-Identifier: Apache-2.0
"""Is P positive semidefinite? The readable specification of `native/hsde/convexity.hpp`.

Where it is not, a point that meets the optimality conditions may be a saddle, and solvers that look
for nothing else call it solved.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool
from scipy.sparse.linalg import splu

from cvxlayer.program.batch import ConeProgramBatch

# What is added to the diagonal before all pivots have to be positive: a share of the largest entry,
# as in the check of values that are declared PSD, and one of each entry of the diagonal times the
# norm of the matrix with a diagonal of ones, for matrices computed in single precision.
_ROUNDING = 1e-8
_SHARE = 1e-6


def is_positive_semidefinite(upper: sp.csc_array) -> bool:
    """Tell whether a symmetric matrix has no negative eigenvalue beyond rounding.

    Args:
        upper: its upper triangle, n × n.

    Returns:
        Whether P + shift is positive definite, the shift being small against ‖P‖. Scaling of
        variables, P ↦ DPD, changes little. A matrix with a number that is not finite passes: it
        is for others to refuse.

    Notes:
        Costs a sparse factorization without pivoting, whose pivots have the signs of the
        eigenvalues (Sylvester's law of inertia).
    """
    largest = float(np.max(np.abs(upper.data), initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return True
    scaled = sp.csc_array(upper / largest)
    matrix = sp.csc_array(scaled + sp.triu(scaled, 1).T)
    diagonal = matrix.diagonal()
    shift = _ROUNDING + _SHARE * _norm(matrix, diagonal) * np.abs(diagonal)
    if matrix.nnz == np.count_nonzero(diagonal):
        return bool((diagonal + shift > 0.0).all())
    return _has_positive_pivots(sp.csc_matrix(matrix + sp.diags_array(shift)))


def _norm(matrix: sp.csc_array, diagonal: np.ndarray) -> float:
    """Return the largest row sum of the matrix scaled to a diagonal of ones.

    No entry of a positive semidefinite matrix is above √(Pᵢᵢ Pⱼⱼ); larger ones count as if equal.
    """
    root = np.sqrt(np.abs(diagonal))
    entries = sp.coo_array(matrix)
    bound = root[entries.row] * root[entries.col]
    share = np.minimum(np.abs(entries.data), bound) / np.where(bound > 0.0, bound, 1.0)
    return float(np.bincount(entries.row, share, len(diagonal)).max(initial=0.0))


def _has_positive_pivots(matrix: sp.csc_matrix) -> bool:
    try:
        factors = splu(
            matrix,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True, "Equil": False},
        )
    except RuntimeError:  # a pivot is exactly zero
        return False
    # Off the diagonal it only pivots where a pivot on it is zero.
    is_symmetric = np.array_equal(factors.perm_r, factors.perm_c)
    return is_symmetric and bool((factors.U.diagonal() > 0.0).all())


def find_indefinite(batch: ConeProgramBatch) -> Bool[np.ndarray, " batch"]:
    """Return the instances whose P has a negative eigenvalue.

    Args:
        batch: the programs; where their structure says that P is positive semidefinite, nothing
            is looked at.
    """
    if batch.structure.is_convex or batch.structure.num_P == 0 or batch.size == 0:
        return np.zeros(batch.size, dtype=bool)
    found = [not is_positive_semidefinite(batch.instance(i)[0]) for i in range(len(batch.P))]
    return np.broadcast_to(np.array(found), (batch.size,))
