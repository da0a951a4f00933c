# SPDX-License-Identifier: Apache-2.0
"""θ ↦ (P, q, A, b), sparse and affine, with its adjoint beside it.

A batch of θ is held parameter by parameter: one array of B rows, or of a single row that
all instances share. A block that only shared parameters touch is evaluated once, with one
row; the cotangent of a shared parameter is the sum over the batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent, ConeProgramStructure
from cvxlayer.program.infinite import without_infinite_rows
from cvxlayer.program.parameters import ParameterSpec
from cvxlayer.program.sparse_map import SparseMap, Term, apply_adjoints, apply_maps, sum_rows


@dataclasses.dataclass(frozen=True, eq=False)
class AffineMap:
    """θ ↦ Σᵢ matrixᵢ θᵢ + offset, one matrix for each parameter that matters.

    Attributes:
        offset: value at θ = 0, (entries,).
        parts: (index of the parameter, its matrix), for parameters with nonzeros.
    """

    offset: Float[np.ndarray, " entries"]
    parts: tuple[tuple[int, SparseMap], ...]

    @classmethod
    def of(
        cls, matrix: sp.csr_array, offset: np.ndarray, specs: Sequence[ParameterSpec]
    ) -> AffineMap:
        """Split a matrix on the stacked θ by parameter.

        Args:
            matrix: entries × p, p the total size of the parameters.
            offset: (entries,).
            specs: the parameters, in the order of θ.
        """
        columns: Any = sp.csc_array(matrix)
        parts: list[tuple[int, SparseMap]] = []
        start = 0
        for index, spec in enumerate(specs):
            block = columns[:, start : start + spec.size]
            start += spec.size
            if block.nnz:
                is_folded = spec.domain.is_symmetric and not spec.is_complex
                fold = _upper_triangle(spec) if is_folded else None
                parts.append((index, SparseMap.of(block, fold)))
        return cls(np.ascontiguousarray(offset, dtype=np.float64), tuple(parts))

    @property
    def is_constant(self) -> bool:
        """Whether no parameter touches any entry."""
        return not self.parts

    @functools.cached_property
    def parameters(self) -> tuple[int, ...]:
        """Indices of the parameters that touch some entry."""
        return tuple(index for index, _ in self.parts)

    def evaluate(self, values: Sequence[np.ndarray], threads: int = 1) -> np.ndarray:
        """Return the entries, (batch, entries), or (1, entries) if all instances share them.

        Args:
            values: one array for each parameter, (1, size) or (batch, size).
            threads: threads over the batch.

        Notes:
            `AffineAdjoint` is the adjoint of the linear part.
        """
        base = self.offset[None, :]
        shared = [(part, values[i]) for i, part in self.parts if len(values[i]) == 1]
        varying = [(part, values[i]) for i, part in self.parts if len(values[i]) != 1]
        if shared:
            base = apply_maps(shared, base, 1, threads)
        if varying:
            base = apply_maps(varying, base, len(varying[0][1]), threads)
        return base


class AffineAdjoint:
    """Collects what reaches the cotangents of the parameters; then computes each in one pass.

    The adjoint of the linear parts of all affine maps whose cotangents are added. The
    cotangent of a parameter with a single row is the sum over the batch.

    Args:
        values: where the maps were evaluated: the shapes of the cotangents.
        needs: which parameters need one.
        threads: threads over the batch.
    """

    def __init__(self, values: Sequence[np.ndarray], needs: Sequence[bool], threads: int) -> None:
        self._shapes = [value.shape for value in values]
        self._threads = threads
        self._terms: list[list[Term] | None] = [[] if need else None for need in needs]
        self._extra: list[np.ndarray | None] = [None] * len(values)

    @property
    def needs(self) -> tuple[bool, ...]:
        """Which parameters need a cotangent."""
        return tuple(terms is not None for terms in self._terms)

    def add(self, affine: AffineMap, entries_bar: Float[np.ndarray, "batch entries"]) -> None:
        """Add the cotangent of what a map returned."""
        total: np.ndarray | None = None
        for index, part in affine.parts:
            terms = self._terms[index]
            if terms is None:
                continue
            if self._shapes[index][0] == entries_bar.shape[0]:
                terms.append((part, entries_bar))
                continue
            if total is None:
                total = sum_rows(entries_bar, self._threads)
            terms.append((part, total))

    def add_direct(self, index: int, value_bar: Float[np.ndarray, "batch size"]) -> None:
        """Add a cotangent of one parameter itself, with a row for each instance."""
        if self._terms[index] is None:
            return
        if self._shapes[index][0] != value_bar.shape[0]:
            value_bar = sum_rows(np.ascontiguousarray(value_bar), self._threads)
        extra = self._extra[index]
        self._extra[index] = value_bar if extra is None else extra + value_bar

    def total(self) -> tuple[np.ndarray | None, ...]:
        """Return the cotangent of each parameter, shaped like its values; None if not needed."""
        return tuple(
            None if terms is None else self._total_of(index, terms)
            for index, terms in enumerate(self._terms)
        )

    def _total_of(self, index: int, terms: Sequence[Term]) -> np.ndarray:
        shape, extra = self._shapes[index], self._extra[index]
        if not terms:
            return np.zeros(shape) if extra is None else extra
        result = apply_adjoints(terms, shape[0], self._threads)
        return result if extra is None else np.add(result, extra, out=result)


def _upper_triangle(spec: ParameterSpec) -> sp.csr_array:
    """Return the matrix that copies entries above the diagonal to below it."""
    places = np.arange(spec.size).reshape(spec.shape)
    source = np.minimum(places, places.swapaxes(-2, -1)).ravel()
    ones = np.ones(spec.size)
    return sp.csr_array((ones, (np.arange(spec.size), source)), shape=(spec.size, spec.size))


@dataclasses.dataclass(frozen=True, eq=False)
class QuadraticForm:
    """θ ↦ ½ [θ; 1]ᵀ matrix [θ; 1]: the part of the objective without variables.

    Attributes:
        matrix: symmetric, (p + 1) × (p + 1).
    """

    matrix: sp.csr_array

    @property
    def is_constant(self) -> bool:
        """Whether the value does not depend on θ."""
        return self.matrix[:-1].nnz == 0

    def evaluate(self, theta: Float[np.ndarray, "rows p"]) -> Float[np.ndarray, " rows"]:
        """Return the value for each row of the stacked θ."""
        if self.is_constant:
            return np.full(theta.shape[0], 0.5 * self.matrix[-1, -1])
        extended = np.concatenate([theta, np.ones((theta.shape[0], 1))], axis=1)
        return 0.5 * np.einsum("bi,bi->b", extended, (self.matrix @ extended.T).T)

    def gradient(self, theta: Float[np.ndarray, "rows p"]) -> Float[np.ndarray, "rows p"]:
        """Return the gradient in θ for each row of the stacked θ."""
        extended = np.concatenate([theta, np.ones((theta.shape[0], 1))], axis=1)
        return (self.matrix @ extended.T).T[:, :-1]


@dataclasses.dataclass(frozen=True, eq=False)
class ParametricConeProgram:
    """A cone program whose data is affine in the parameters.

    θ stacks the parameters in call order, each flattened in C order (the last index
    fastest), so a batch of values is reshaped and never permuted.

    Attributes:
        structure: sizes, patterns, cones.
        parameter_sizes: length of each parameter; p is their sum.
        P, q, A, b: the four affine maps, entries ordered as in `ConeProgramBatch`.
        objective_constant: added to ½xᵀPx + qᵀx to give the canonical objective.
        infinite_sides: where each entry of θ may be infinite; see `find_infinite_sides`.
    """

    structure: ConeProgramStructure
    parameter_sizes: tuple[int, ...]
    P: AffineMap
    q: AffineMap
    A: AffineMap
    b: AffineMap
    objective_constant: QuadraticForm
    infinite_sides: Int[np.ndarray, " p"]

    @functools.cached_property
    def has_bounds(self) -> bool:
        """Whether some entry of θ may be infinite."""
        return bool(self.infinite_sides.any())

    @property
    def num_parameters(self) -> int:
        """p, the length of θ."""
        return sum(self.parameter_sizes)

    def is_same_as(self, other: ParametricConeProgram) -> bool:
        """Whether two programs are one, or a copy: equal but for what parameters multiply."""
        if self is other:
            return True
        mine, theirs = self.structure, other.structure
        patterns = ("P_indptr", "P_indices", "A_indptr", "A_indices")
        return (
            self.parameter_sizes == other.parameter_sizes
            and mine.cones == theirs.cones
            and all(np.array_equal(getattr(mine, p), getattr(theirs, p)) for p in patterns)
            and all(
                np.array_equal(a.offset, b.offset) and a.parameters == b.parameters
                for a, b in zip(self.blocks, other.blocks, strict=True)
            )
        )

    @property
    def blocks(self) -> tuple[AffineMap, AffineMap, AffineMap, AffineMap]:
        """The maps of P, q, A and b, in this order."""
        return (self.P, self.q, self.A, self.b)

    def evaluate(
        self, values: Sequence[np.ndarray], batch: int, threads: int = 1
    ) -> ConeProgramBatch:
        """Return the batch of cone programs.

        Args:
            values: one array for each parameter, (1, size) or (batch, size), C order.
            batch: number of instances.
            threads: threads over the batch.
        """
        P, q, A, b = (block.evaluate(values, threads) for block in self.blocks)
        cone_programs = ConeProgramBatch(self.structure, batch, P, q, A, b)
        return without_infinite_rows(cone_programs) if self.has_bounds else cone_programs

    def needs(self, wanted: Sequence[bool]) -> tuple[bool, bool, bool, bool]:
        """Return which of P, q, A, b any of the wanted parameters touches."""
        P, q, A, b = (any(wanted[i] for i in block.parameters) for block in self.blocks)
        return P, q, A, b

    def add_adjoint_to(self, adjoint: AffineAdjoint, cotangent: ConeProgramCotangent) -> None:
        """Add the cotangent of the data: the adjoint of `evaluate`.

        Args:
            adjoint: collects the cotangents of the parameters.
            cotangent: of the data; blocks that are None count as zero.
        """
        entries = (cotangent.P, cotangent.q, cotangent.A, cotangent.b)
        for block, entries_bar in zip(self.blocks, entries, strict=True):
            if entries_bar is not None:
                adjoint.add(block, entries_bar)

    def stack(self, values: Sequence[np.ndarray]) -> Float[np.ndarray, "rows p"]:
        """Return θ with one row, or one for each instance if any parameter has several.

        Infinite entries, which touch nothing but b, are left out as zero.
        """
        rows = max((value.shape[0] for value in values), default=1)
        if any(value.shape[0] == 0 for value in values):
            rows = 0
        columns = [np.broadcast_to(value, (rows, value.shape[1])) for value in values]
        theta = np.concatenate([*columns, np.empty((rows, 0))], axis=1)
        return np.where(np.isinf(theta), 0.0, theta) if self.has_bounds else theta
