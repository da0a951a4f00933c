# SPDX-License-Identifier: Apache-2.0
"""Dense linear solvers, and the choice of a solver by structure and size."""

from __future__ import annotations

import dataclasses

from cvxlayer.differentiate.array_ops import Array
from cvxlayer.differentiate.krylov import CG, GMRES
from cvxlayer.differentiate.linear_operator import (
    AbstractLinearSolver,
    LinearOperator,
    LinearReport,
    Structure,
    norm,
    report_residual,
)

# Up to this order a dense factorization is cheaper than iterations, and always certain.
LARGEST_DENSE = 512


@dataclasses.dataclass(frozen=True)
class LU(AbstractLinearSolver):
    """Dense LU factorization with partial pivoting; one for all right-hand sides.

    Notes:
        n products with the Jacobian make the matrix. Where it is singular to working
        precision the solution is NaN.
    """

    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Return the solution of each system and its residual."""
        matrix = operator.dense()
        solution = _from_columns(operator.ops.solve(matrix, _to_columns(operator, right)), operator)
        return _reject_singular(operator, matrix, right, solution)


@dataclasses.dataclass(frozen=True)
class Cholesky(AbstractLinearSolver):
    """Dense Cholesky factorization, for symmetric positive definite Jacobians.

    Notes:
        Where the matrix is not positive definite the solution is NaN: a stationary point
        that is not a strict minimum is found out here.
    """

    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Return the solution of each system and its residual."""
        matrix = operator.dense()
        columns = operator.ops.solve_positive(matrix, _to_columns(operator, right))
        return _reject_singular(operator, matrix, right, _from_columns(columns, operator))


def choose_linear_solver(structure: Structure, size: int) -> AbstractLinearSolver:
    """Return the solver for matrices of a structure and order."""
    is_definite = structure is Structure.POSITIVE_DEFINITE
    if size <= LARGEST_DENSE:
        return Cholesky() if is_definite else LU()
    return CG() if is_definite else GMRES()


def _to_columns(operator: LinearOperator, right: Array) -> Array:
    """(count, batch, n) → (batch, n, count)."""
    return operator.ops.numpy.moveaxis(right, 0, -1)


def _from_columns(columns: Array, operator: LinearOperator) -> Array:
    return operator.ops.numpy.moveaxis(columns, -1, 0)


def _reject_singular(
    operator: LinearOperator, matrix: Array, right: Array, solution: Array
) -> tuple[Array, LinearReport]:
    """Turn solutions into NaN that only a singular matrix can have.

    ‖A‖ ‖w‖ / ‖r‖ bounds the condition number from below. Rounding leaves a pivot near
    epsilon where elimination should have ended in zero, and this ratio shows it.
    """
    numpy = operator.ops.numpy
    most = 0.1 / numpy.finfo(right.dtype).eps
    length = numpy.sqrt(numpy.sum(matrix * matrix, (-2, -1)))
    is_singular = length * norm(operator.ops, solution) > most * norm(operator.ops, right)
    nan = numpy.full_like(solution, float("nan"))
    solution = numpy.where(is_singular[..., None], nan, solution)
    return solution, report_residual(operator, right, solution)
