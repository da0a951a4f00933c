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
from cvxlayer.program.sparse_map import SparseMap


@dataclasses.dataclass(frozen=True, eq=False)
class AffineMap:
    """θ ↦ Σᵢ matrixᵢ θᵢ + offset, one matrix for each parameter that matters.

    Attributes:
        offset: value at θ = 0, (entries,).
        parts: (index of the parameter, its matrix), for parameters with nonzeros.
        joint: the matrices of all parts side by side, where there are several.
    """

    offset: Float[np.ndarray, " entries"]
    parts: tuple[tuple[int, SparseMap], ...]
    joint: SparseMap | None

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
        blocks: list[Any] = []
        start = 0
        for index, spec in enumerate(specs):
            block = columns[:, start : start + spec.size]
            start += spec.size
            if block.nnz:
                fold = _upper_triangle(spec) if spec.domain.is_symmetric else None
                parts.append((index, SparseMap.of(block, fold)))
                blocks.append(block if fold is None else block @ fold)
        joint = SparseMap.of(sp.hstack(blocks)) if len(blocks) > 1 else None
        return cls(np.ascontiguousarray(offset, dtype=np.float64), tuple(parts), joint)

    @property
    def is_constant(self) -> bool:
        """Whether no parameter touches any entry."""
        return not self.parts

    @functools.cached_property
    def parameters(self) -> tuple[int, ...]:
        """Indices of the parameters that touch some entry."""
        return tuple(index for index, _ in self.parts)

    def evaluate(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Return the entries, (batch, entries), or (1, entries) if all instances share them.

        Args:
            values: one array for each parameter, (1, size) or (batch, size).

        Notes:
            The adjoint of the linear part is `add_adjoint_to`.
        """
        offset = self.offset[None, :]
        if not self.parts:
            return offset
        shared = [part for part in self.parts if len(values[part[0]]) == 1]
        varying = [part for part in self.parts if len(values[part[0]]) != 1]
        if shared and varying:
            return _evaluate_parts(varying, values, _evaluate_parts(shared, values, offset))
        if self.joint is None:
            index, sparse_map = self.parts[0]
            return sparse_map(values[index], offset)
        stacked = np.concatenate([values[index] for index, _ in self.parts], axis=1)
        return self.joint(stacked, offset)

    def add_adjoint_to(
        self,
        values_bar: Sequence[np.ndarray | None],
        entries_bar: Float[np.ndarray, "batch entries"],
    ) -> None:
        """Add the cotangent of each parameter to `values_bar`, skipping those that are None.

        One with a single row receives the sum over the batch.
        """
        total: np.ndarray | None = None
        for index, sparse_map in self.parts:
            value_bar = values_bar[index]
            if value_bar is None:
                continue
            if value_bar.shape[0] == entries_bar.shape[0]:
                sparse_map.add_adjoint_to(value_bar, entries_bar)
                continue
            if total is None:
                total = np.sum(entries_bar, axis=0, keepdims=True)
            sparse_map.add_adjoint_to(value_bar, np.asarray(total))


def _evaluate_parts(
    parts: Sequence[tuple[int, SparseMap]], values: Sequence[np.ndarray], base: np.ndarray
) -> np.ndarray:
    """Return base plus the images of some parameters, all with equally many rows."""
    (first, first_map), *others = parts
    result = first_map(values[first], base)
    for index, sparse_map in others:
        sparse_map.add_to(result, values[index])
    return result


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

    @property
    def blocks(self) -> tuple[AffineMap, AffineMap, AffineMap, AffineMap]:
        """The maps of P, q, A and b, in this order."""
        return (self.P, self.q, self.A, self.b)

    def evaluate(self, values: Sequence[np.ndarray], batch: int) -> ConeProgramBatch:
        """Return the batch of cone programs.

        Args:
            values: one array for each parameter, (1, size) or (batch, size), C order.
            batch: number of instances.
        """
        P, q, A, b = (block.evaluate(values) for block in self.blocks)
        cone_programs = ConeProgramBatch(self.structure, batch, P, q, A, b)
        return without_infinite_rows(cone_programs) if self.has_bounds else cone_programs

    def needs(self, wanted: Sequence[bool]) -> tuple[bool, bool, bool, bool]:
        """Return which of P, q, A, b any of the wanted parameters touches."""
        P, q, A, b = (any(wanted[i] for i in block.parameters) for block in self.blocks)
        return P, q, A, b

    def add_adjoint_to(
        self, values_bar: Sequence[np.ndarray | None], cotangent: ConeProgramCotangent
    ) -> None:
        """Add the cotangent of each parameter to `values_bar`: the adjoint of `evaluate`.

        Args:
            values_bar: as `values`, to be added to; None for parameters not wanted.
            cotangent: of the data; blocks that are None count as zero.
        """
        entries = (cotangent.P, cotangent.q, cotangent.A, cotangent.b)
        for block, entries_bar in zip(self.blocks, entries, strict=True):
            if entries_bar is not None and block.parts:
                block.add_adjoint_to(values_bar, entries_bar)

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
