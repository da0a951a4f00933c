# SPDX-License-Identifier: Apache-2.0
"""A linear map that can be applied, transposed and made dense; and what a solver reports."""

from __future__ import annotations

import dataclasses
import enum
from abc import ABC, abstractmethod
from collections.abc import Callable

from cvxlayer.differentiate.array_ops import Array, ArrayOps


class Structure(enum.Enum):
    """What is known of a matrix, from which a solver is chosen."""

    GENERAL = "general"
    SYMMETRIC = "symmetric"
    POSITIVE_DEFINITE = "positive definite"


@dataclasses.dataclass(frozen=True, eq=False)
class LinearReport:
    """How well linear systems were solved.

    Attributes:
        residual: ‖r − A w‖ / ‖r‖ of each system, (count, batch); zero where r is.
        iterations: products with A that a system took; zero for a dense solver.
    """

    residual: Array
    iterations: Array


@dataclasses.dataclass(frozen=True, eq=False)
class LinearOperator:
    """One square matrix for each row of a batch, known by its products.

    Attributes:
        ops: the framework.
        like: an array of the shape, dtype and device of a vector, (batch, n).
        apply_rows: v ↦ A v for vectors (batch, n).
        apply_transposed_rows: v ↦ Aᵀ v.
        structure: what is known of A.
        precondition: v ↦ M⁻¹ v with M ≈ A, or None.
        prefers_transposed: whether products with Aᵀ are the cheaper ones.
    """

    ops: ArrayOps
    like: Array
    apply_rows: Callable[[Array], Array]
    apply_transposed_rows: Callable[[Array], Array]
    structure: Structure = Structure.GENERAL
    precondition: Callable[[Array], Array] | None = None
    prefers_transposed: bool = False

    @property
    def size(self) -> int:
        """The order n of each matrix."""
        return self.like.shape[-1]

    def apply(self, vectors: Array) -> Array:
        """Return A v for each of (count, batch, n) vectors."""
        return self._for_each(self.apply_rows, vectors)

    def apply_transposed(self, vectors: Array) -> Array:
        """Return Aᵀ v for each of (count, batch, n) vectors."""
        return self._for_each(self.apply_transposed_rows, vectors)

    def apply_preconditioner(self, vectors: Array) -> Array:
        """Return M⁻¹ v for each of (count, batch, n) vectors; v where there is no M."""
        return vectors if self.precondition is None else self._for_each(self.precondition, vectors)

    def apply_preconditioner_transposed(self, vectors: Array) -> Array:
        """Return M⁻ᵀ v for each of (count, batch, n) vectors; v where there is no M."""
        transposed = self.transposed()
        return transposed.apply_preconditioner(vectors)

    def transposed(self) -> LinearOperator:
        """Return Aᵀ."""
        precondition = self.precondition
        if precondition is not None:
            _, pull = self.ops.vjp(precondition, self.ops.numpy.zeros_like(self.like))
            precondition = lambda vector: pull(vector)[0]  # noqa: E731
        return dataclasses.replace(
            self,
            apply_rows=self.apply_transposed_rows,
            apply_transposed_rows=self.apply_rows,
            precondition=precondition,
            prefers_transposed=not self.prefers_transposed,
        )

    def dense(self) -> Array:
        """Return the matrices, (batch, n, n), by n products made at once."""
        numpy = self.ops.numpy
        identity = self.ops.eye(self.size, self.like)
        basis = identity[:, None, :] + numpy.zeros_like(self.like)
        if self.prefers_transposed:
            rows = self.ops.vmap(self.apply_transposed_rows)(basis)
            return numpy.moveaxis(rows, 0, 1)
        columns = self.ops.vmap(self.apply_rows)(basis)
        return numpy.moveaxis(columns, 0, 2)

    def _for_each(self, function: Callable[[Array], Array], vectors: Array) -> Array:
        if vectors.shape[0] == 1:
            return function(vectors[0])[None]
        return self.ops.vmap(function)(vectors)


class AbstractLinearSolver(ABC):
    """Solves A w = r for (count, batch, n) right-hand sides, one matrix for each row."""

    @abstractmethod
    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Return w and how well it solves each system; it may hold NaN, and never raises."""


def norm(ops: ArrayOps, vectors: Array) -> Array:
    """Return the Euclidean length over the last dimension."""
    return ops.numpy.sqrt(ops.numpy.sum(vectors * vectors, -1))


def report_residual(
    operator: LinearOperator, right: Array, solution: Array, iterations: Array | None = None
) -> LinearReport:
    """Return the report of a solution, by one more product."""
    ops = operator.ops
    size = norm(ops, right)
    error = norm(ops, right - operator.apply(solution))
    is_zero = size == 0
    relative = error / ops.numpy.where(is_zero, ops.numpy.ones_like(size), size)
    count = ops.numpy.zeros_like(size) if iterations is None else iterations
    return LinearReport(relative, count)
