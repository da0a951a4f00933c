# SPDX-License-Identifier: Apache-2.0
"""The derivative of the solution map of cone programs, in NumPy: the specification.

Comes in: a `ConeProgramBatch` and its `ConeSolution`. Goes out: cotangents of the data
(`vjp`) or tangents of the solution (`jvp`), both made of `primitives.py`: to be read and to
be tested against. `differentiate/native.py` does the same, fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cvxlayer.differentiate.primitives import apply, refine
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent, ConeProgramStructure
from cvxlayer.program.solution import ConeSolution, ConeSolutionTangent, LinearizationPoint


def vjp(
    batch: ConeProgramBatch,
    solution: ConeSolution,
    x_bar: Float[np.ndarray, "batch n"] | None = None,
    y_bar: Float[np.ndarray, "batch m"] | None = None,
    s_bar: Float[np.ndarray, "batch m"] | None = None,
    needs: Sequence[bool] = (True, True, True, True),
    *,
    reduces: bool = True,
) -> ConeProgramCotangent:
    """Map cotangents of the solution to cotangents of the data.

    With (λ, ν) = `apply`(x̄, ȳ, s̄),

        q̄ = −λ,   b̄ = ν,   Ā = −(y λᵀ + ν xᵀ),   P̄ = −½ (λ xᵀ + x λᵀ)

    The adjoint of `jvp`.

    Args:
        batch: the programs, canonical scaling.
        solution: what a backend found for them.
        x_bar: cotangent of x; None for zero.
        y_bar: cotangent of y.
        s_bar: cotangent of s.
        needs: which of (P, q, A, b) to return.
        reduces: whether dependent rows are dropped; else the answer is the shortest.

    Returns:
        One row for each instance. Rows without a solution are exactly zero.

    Notes:
        Where strict complementarity fails, the derivative is that of an adjacent smooth
        piece; where x or y is not unique, that of the shortest change.

    Source:
        `docs/derivations/derivative.md`, "The symmetric system".
    """
    point = refine(batch, solution, reduces=reduces)
    if x_bar is None and y_bar is None and s_bar is None:
        x_bar = np.zeros_like(point.x)
    lam, nu, residual = (
        part[:, 0]
        for part in apply(
            batch, point, *(None if bar is None else bar[:, None] for bar in (x_bar, y_bar, s_bar))
        )
    )
    bars = data_cotangents(batch.structure, point.x, point.y, lam, nu)
    P, q, A, b = (bar if need else None for bar, need in zip(bars, needs, strict=True))
    return ConeProgramCotangent(P=P, q=q, A=A, b=b, residual=residual)


def jvp(
    batch: ConeProgramBatch,
    solution: ConeSolution,
    dP: Float[np.ndarray, "batch nnz_P"] | None = None,
    dq: Float[np.ndarray, "batch n"] | None = None,
    dA: Float[np.ndarray, "batch nnz_A"] | None = None,
    db: Float[np.ndarray, "batch m"] | None = None,
) -> ConeSolutionTangent:
    """Map tangents of the data to tangents of the solution.

    With r₁ = −(dP x + dAᵀy + dq) and r₂ = db − dA x,

        (dx, dy) = `apply`(r₁, r₂, 0),   ds = r₂ − A dx

    The adjoint of `vjp`.

    Args:
        batch: the programs, canonical scaling.
        solution: what a backend found for them.
        dP: tangent of the stored (upper) entries of P; None for zero.
        dq: tangent of q.
        dA: tangent of the stored entries of A.
        db: tangent of b.

    Returns:
        One row for each instance. Rows without a solution are exactly zero.
    """
    structure = batch.structure
    direction = ConeProgramBatch(
        structure,
        batch.size,
        np.zeros((1, structure.num_P)) if dP is None else dP,
        np.zeros((1, structure.num_variables)) if dq is None else dq,
        np.zeros((1, structure.num_A)) if dA is None else dA,
        np.zeros((1, structure.num_rows)) if db is None else db,
    )
    point = refine(batch, solution)
    upper, lower = _change_of_residual(direction, point)
    dx, dy, residual = (part[:, 0] for part in apply(batch, point, upper[:, None], lower[:, None]))
    ds = lower.copy()
    for row in np.flatnonzero(point.has_solution).tolist():
        ds[row] -= batch.instance(row)[2] @ dx[row]
    # Nothing is said of the slack of an infinite bound.
    ds[np.isinf(point.v)] = 0.0
    return ConeSolutionTangent(x=dx, y=dy, s=ds, residual=residual)


def _change_of_residual(
    direction: ConeProgramBatch, point: LinearizationPoint
) -> tuple[Float[np.ndarray, "batch n"], Float[np.ndarray, "batch m"]]:
    """Return −(dP x + dAᵀy + dq) and db − dA x; zero for instances without a solution."""
    upper, lower = np.zeros_like(point.x), np.zeros_like(point.y)
    for row in np.flatnonzero(point.has_solution).tolist():
        dP, dq, dA, db = direction.instance(row)
        x, y = point.x[row], point.y[row]
        both_triangles = dP @ x + dP.T @ x - dP.diagonal() * x
        upper[row] = -(both_triangles + dA.T @ y + dq)
        lower[row] = db - dA @ x
    return upper, lower


def data_cotangents(
    structure: ConeProgramStructure,
    x: Float[np.ndarray, "batch n"],
    y: Float[np.ndarray, "batch m"],
    lam: Float[np.ndarray, "batch n"],
    nu: Float[np.ndarray, "batch m"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return P̄ = −½ (λ xᵀ + x λᵀ), q̄ = −λ, Ā = −(y λᵀ + ν xᵀ) and b̄ = ν, the stored entries."""
    i, j = structure.P_indices, _column_indices(structure.P_indptr)
    # An off-diagonal entry stands for two of the symmetric matrix.
    P_bar = np.where(i == j, -0.5, -1.0) * (lam[:, i] * x[:, j] + x[:, i] * lam[:, j])
    i, j = structure.A_indices, _column_indices(structure.A_indptr)
    return P_bar, -lam, -(y[:, i] * lam[:, j] + nu[:, i] * x[:, j]), nu


def _column_indices(indptr: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
