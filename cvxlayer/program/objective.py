# SPDX-License-Identifier: Apache-2.0
"""The optimal value of a cone program and its gradient.

By the envelope theorem the value moves with the data alone: with L = ½xᵀPx + qᵀx + yᵀ(Ax − b)
held at the solution, dV = ½xᵀdP x + dqᵀx + yᵀ(dA x − db).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent
from cvxlayer.program.parametric import AffineAdjoint, ParametricConeProgram
from cvxlayer.program.solution import ConeSolution


def columns_of(indptr: np.ndarray) -> np.ndarray:
    """Return the column of each stored entry of a CSC pattern."""
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def objective_value(
    batch: ConeProgramBatch, x: Float[np.ndarray, "batch n"]
) -> Float[np.ndarray, " batch"]:
    """Return ½xᵀPx + qᵀx of each instance; infinite where it is beyond all numbers."""
    structure = batch.structure
    # Rows without a solution may hold anything, and their values are thrown away.
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.einsum("bi,bi->b", np.broadcast_to(batch.q, x.shape), x)
        if structure.num_P:
            row, column = structure.P_indices, columns_of(structure.P_indptr)
            products = x[:, row] * x[:, column]
            # An entry above the diagonal stands for two of P.
            products *= np.where(row == column, 0.5, 1.0)
            value += np.einsum("bi,bi->b", np.broadcast_to(batch.P, products.shape), products)
    return value


def add_value_cotangent(
    program: ParametricConeProgram,
    adjoint: AffineAdjoint,
    value_bar: Float[np.ndarray, " batch"],
    values: Sequence[np.ndarray],
    solution: ConeSolution,
) -> None:
    """Add the cotangent of the canonical value to that of the parameters.

    Args:
        program: what was solved.
        adjoint: collects the cotangents of the parameters.
        value_bar: zero in rows without a solution.
        values: where it was solved.
        solution: at these values.
    """
    structure, weight = program.structure, value_bar[:, None]
    is_used = weight != 0.0  # rows without a solution may hold anything
    x, y = np.where(is_used, solution.x, 0.0), np.where(is_used, solution.y, 0.0)
    P_bar = A_bar = None
    needs = program.needs(adjoint.needs)
    if needs[0]:
        row, column = structure.P_indices, columns_of(structure.P_indptr)
        P_bar = weight * np.where(row == column, 0.5, 1.0) * x[:, row] * x[:, column]
    if needs[2]:
        A_bar = weight * y[:, structure.A_indices] * x[:, columns_of(structure.A_indptr)]
    cotangent = ConeProgramCotangent(
        P_bar,
        weight * x if needs[1] else None,
        A_bar,
        -weight * y if needs[3] else None,
        np.zeros(len(value_bar)),
    )
    program.add_adjoint_to(adjoint, cotangent)
    if program.objective_constant.is_constant:
        return
    gradient = weight * program.objective_constant.gradient(program.stack(values))
    ends = np.cumsum([0, *program.parameter_sizes])
    for index in range(len(values)):
        adjoint.add_direct(index, gradient[:, ends[index] : ends[index + 1]])
