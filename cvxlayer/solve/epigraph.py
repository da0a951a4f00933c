# SPDX-License-Identifier: Apache-2.0
"""A quadratic objective as a linear one, for solvers that have only those.

With P = FᵀF, ½ xᵀP x ≤ t is a second-order cone, since (t + 1)² − (t − 1)² = 4t:

    minimize qᵀx + t   subject to   A x + s = b,   (t + 1, t − 1, √2 F x) ∈ Q,   s ∈ K

At its solution the rows of A have the same s and y as before, and q has the same cotangent.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float
from scipy.sparse.csgraph import connected_components

from cvxlayer.cones.product import ConeProduct

# Eigenvalues below this share of the largest are zeros that were rounded.
_RANK_TOLERANCE = 1e-15


@dataclasses.dataclass(frozen=True)
class LinearProgram:
    """A cone program with a linear objective: minimize qᵀx subject to A x + s = b, s ∈ K.

    Attributes:
        q, A, b, cones: the program.
        is_original: which rows stem from the program it was made from; the new cone is the
            last of the second-order ones.
        num_variables: how many of its variables stem from there; they come first.
    """

    q: Float[np.ndarray, " n"]
    A: sp.csc_matrix
    b: Float[np.ndarray, " m"]
    cones: ConeProduct
    is_original: Bool[np.ndarray, " m"]
    num_variables: int


def linearize_objective(
    P: sp.csc_matrix,
    q: Float[np.ndarray, " n"],
    A: sp.csc_matrix,
    b: Float[np.ndarray, " m"],
    cones: ConeProduct,
) -> LinearProgram:
    """Return an equivalent program with a linear objective.

    Args:
        P: upper triangle of a positive semidefinite matrix.
        q: linear cost.
        A: constraint matrix.
        b: right-hand side.
        cones: K.

    Returns:
        The same program if P is zero; else one more variable, and a cone of dimension
        2 + rank P.
    """
    factor, rank, n = *factorize(P), len(q)
    if rank == 0:
        return LinearProgram(q, A, b, cones, np.ones(len(b), dtype=bool), n)
    place = cones.num_linear + sum(cones.second_order)
    on_t = sp.csc_matrix(([-1.0, -1.0], ([0, 1], [0, 0])), shape=(2 + rank, 1))
    on_x = sp.vstack([sp.csc_matrix((2, n)), -np.sqrt(2.0) * factor])
    widened = sp.csc_matrix(
        sp.vstack(
            [
                sp.hstack([A[:place], sp.csc_matrix((place, 1))]),
                sp.hstack([on_x, on_t]),
                sp.hstack([A[place:], sp.csc_matrix((len(b) - place, 1))]),
            ]
        )
    )
    right = np.concatenate([b[:place], [1.0, -1.0], np.zeros(rank), b[place:]])
    is_original = np.ones(len(right), dtype=bool)
    is_original[place : place + 2 + rank] = False
    wider = dataclasses.replace(cones, second_order=(*cones.second_order, 2 + rank))
    return LinearProgram(np.append(q, 1.0), widened, right, wider, is_original, n)


def keep_feasibility(
    A: sp.csc_matrix, b: Float[np.ndarray, " m"], cones: ConeProduct
) -> LinearProgram:
    """Return the program without an objective: it is infeasible if and only if any other is."""
    num_rows, n = len(b), A.indptr.size - 1
    return LinearProgram(np.zeros(n), A, b, cones, np.ones(num_rows, dtype=bool), n)


def keep_flat_directions(
    P: sp.csc_matrix,
    q: Float[np.ndarray, " n"],
    A: sp.csc_matrix,
    b: Float[np.ndarray, " m"],
    cones: ConeProduct,
) -> LinearProgram:
    """Return the program on {x : P x = 0}, on which every ray of unboundedness lies."""
    factor, rank = factorize(P)
    wider = cones.with_linear(cones.zero + rank, cones.nonnegative)
    is_original = np.arange(rank + len(b)) >= rank
    rows, right = sp.csc_matrix(sp.vstack([factor, A])), np.concatenate([np.zeros(rank), b])
    return LinearProgram(q, rows, right, wider, is_original, len(q))


def factorize(P: sp.csc_matrix) -> tuple[sp.csc_matrix, int]:
    """Return F, with as many rows as P has rank, such that P = FᵀF; and how many these are.

    Block by block of the pattern of P, by its eigenvalues: exact for singular blocks.

    Args:
        P: upper triangle, positive semidefinite up to rounding.
    """
    whole = sp.csr_matrix(P + sp.triu(P, 1).T)
    whole.eliminate_zeros()
    count, label = connected_components(whole, directed=False)
    order = np.argsort(label, kind="stable")
    values: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    rank = 0
    for members in np.split(order, np.cumsum(np.bincount(label, minlength=count))[:-1]):
        eigenvalues, vectors = np.linalg.eigh(whole[members][:, members].toarray())
        kept = eigenvalues > _RANK_TOLERANCE * len(members) * np.max(np.abs(eigenvalues))
        block = vectors[:, kept].T * np.sqrt(eigenvalues[kept])[:, None]
        values.append(block.ravel())
        rows.append(rank + np.repeat(np.arange(len(block)), len(members)))
        columns.append(np.tile(members, len(block)))
        rank += len(block)
    places = (np.concatenate(rows), np.concatenate(columns))
    return sp.csc_matrix((np.concatenate(values), places), shape=(rank, len(label))), rank
