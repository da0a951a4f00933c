# SPDX-License-Identifier: Apache-2.0
"""The whole call of a layer as array operations, for transforms that have to see through it.

Values → θ → (P, q, A, b) → `solve` → variables, duals, value, written once over the functions
that a framework lends. `evaluation` computes the same in the core, faster, for plain calls; the
framework's own transforms (forward mode, vmap, jit, higher derivatives) go through here. All but
the cone primitives is differentiated by the framework itself.
"""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp

from cvxlayer.compiler import CompiledProgram
from cvxlayer.differentiate.cone_pattern import ConePattern
from cvxlayer.differentiate.cone_rules import Array, ConeData, RowOps, Solved
from cvxlayer.errors import Status
from cvxlayer.program.coordinates import Coordinates
from cvxlayer.program.parameters import OutputSpec, ParameterSpec
from cvxlayer.program.parametric import AffineMap, ParametricConeProgram
from cvxlayer.program.recovery import RecoveredOutput
from cvxlayer.program.sparse_map import SparseMap

_LAST_WITH_SOLUTION = int(Status.INACCURATE)


@runtime_checkable
class TraceOps(RowOps, Protocol):
    """What tracing needs of a framework beyond the rules of cone programs."""

    def log(self, rows: Array) -> Array:
        """Return the natural logarithm."""
        ...

    def exp(self, rows: Array) -> Array:
        """Return the exponential."""
        ...

    def isinf(self, rows: Array) -> Array:
        """Tell which entries are infinite."""
        ...

    def constant_of(self, rows: Array) -> Array:
        """Return the same values without derivative."""
        ...

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Join along the last axis."""
        ...

    def to_real(self, values: Array) -> Array:
        """Return (..., 2) real and imaginary parts of complex or real values."""
        ...

    def to_complex(self, parts: Array) -> Array:
        """Return complex values from (..., 2) real and imaginary parts."""
        ...


@runtime_checkable
class TracePrimitives(Protocol):
    """The cone program as the framework differentiates it; see `cone_rules`."""

    def solve(self, problem: ConeData) -> Solved:
        """Solve as many instances as the data has rows."""
        ...

    def value(self, problem: ConeData, x: Array, y: Array) -> Array:
        """Return ½xᵀPx + qᵀx, with the derivative of the envelope theorem."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class GatheredMap:
    """A sparse matrix as `segment_sum(weight * take(rows, column), row)`.

    Attributes:
        size: length of the result.
        row, column: of each entry, by row.
        weight: of each entry; None if all are one.
        is_selection: whether the result is `take` alone.
    """

    size: int
    row: np.ndarray
    column: np.ndarray
    weight: np.ndarray | None
    is_selection: bool

    @classmethod
    def of(cls, sparse_map: SparseMap) -> GatheredMap:
        """Return the map, with entries where its adjoint has them (not folded)."""
        entries: Any = sp.coo_array(sp.csr_array(sparse_map.backward.T))
        row, column = entries.row.astype(np.int64), entries.col.astype(np.int64)
        size = sparse_map.shape[0]
        is_unit = bool(np.all(entries.data == 1.0))
        weight = None if is_unit else np.ascontiguousarray(entries.data, dtype=np.float64)
        each_once = len(row) == size and bool(np.all(row == np.arange(size)))
        return cls(size, row, column, weight, each_once)

    def apply(self, ops: RowOps, rows: Array) -> Array:
        """Return the image of each row."""
        entries = ops.take(rows, self.column)
        if self.weight is not None:
            entries = entries * ops.constant(self.weight)
        return entries if self.is_selection else ops.segment_sum(entries, self.row, self.size)


@dataclasses.dataclass(frozen=True, eq=False)
class GatheredAffine:
    """An `AffineMap` of gathered maps."""

    offset: np.ndarray
    parts: tuple[tuple[int, GatheredMap], ...]

    @classmethod
    def of(cls, affine: AffineMap) -> GatheredAffine:
        """Return the map."""
        parts = tuple((index, GatheredMap.of(part)) for index, part in affine.parts)
        return cls(affine.offset, parts)

    def apply(self, ops: RowOps, theta: Sequence[Array]) -> Array:
        """Return the entries, with one row if no part of θ that matters has more."""
        entries = ops.constant(self.offset)[None]
        for index, part in self.parts:
            entries = entries + part.apply(ops, theta[index])
        return entries


@dataclasses.dataclass(frozen=True, eq=False)
class GatheredOutput:
    """A `RecoveredOutput` of gathered maps."""

    spec: OutputSpec
    from_x: GatheredMap | None
    from_y: GatheredMap | None
    from_theta: GatheredAffine | None
    is_log: bool

    @classmethod
    def of(cls, output: RecoveredOutput) -> GatheredOutput:
        """Return the output."""
        return cls(
            output.spec,
            None if output.from_x is None else GatheredMap.of(output.from_x),
            None if output.from_y is None else GatheredMap.of(output.from_y),
            None if output.from_theta is None else GatheredAffine.of(output.from_theta),
            output.is_log,
        )

    def read(self, ops: TraceOps, x: Array, y: Array, theta: Sequence[Array]) -> Array:
        """Return the output, one row for each instance or one for all."""
        terms: list[Array] = []
        if self.from_x is not None:
            terms.append(self.from_x.apply(ops, x))
        if self.from_y is not None:
            terms.append(self.from_y.apply(ops, y))
        if self.from_theta is not None:
            terms.append(self.from_theta.apply(ops, theta))
        if not terms:
            terms.append(ops.constant(np.zeros((1, self.spec.size))))
        result = terms[0]
        for term in terms[1:]:
            result = result + term
        return ops.exp(result) if self.is_log else result


@dataclasses.dataclass(frozen=True, eq=False)
class TracedProgram:
    """A compiled program taken apart into arrays of indices and weights.

    Attributes:
        parameters: the inputs.
        coordinates: θ, made of their values.
        program: the cone program, affine in θ.
        pattern: where its stored entries are.
        blocks: the maps of P, q, A and b.
        outputs, duals: as in `Recovery`.
        sign, is_log_objective: as in `Recovery`.
    """

    parameters: tuple[ParameterSpec, ...]
    coordinates: Coordinates
    program: ParametricConeProgram
    pattern: ConePattern
    blocks: tuple[GatheredAffine, ...]
    outputs: tuple[GatheredOutput, ...]
    duals: tuple[GatheredOutput, ...]
    sign: float
    is_log_objective: bool

    @classmethod
    def of(cls, compiled: CompiledProgram) -> TracedProgram:
        """Return the parts of a compiled program, computed once for each."""
        traced = _traced.get(compiled)
        if traced is None:
            recovery = compiled.recovery
            traced = _traced[compiled] = cls(
                compiled.parameters,
                compiled.coordinates,
                compiled.program,
                ConePattern.of(compiled.program.structure),
                tuple(GatheredAffine.of(block) for block in compiled.program.blocks),
                tuple(GatheredOutput.of(output) for output in recovery.outputs),
                tuple(GatheredOutput.of(dual) for dual in recovery.duals),
                recovery.sign,
                recovery.is_log_objective,
            )
        return traced

    def theta(self, ops: TraceOps, rows: Sequence[Array]) -> tuple[Array, ...]:
        """Return the parts of θ from one array of coordinates for each parameter."""
        parts: list[Array] = []
        for part in self.coordinates.parts:
            value = rows[part.parameter]
            if self.program.has_bounds:
                # What is infinite has no derivative; nor may a tangent multiply it.
                value = ops.where(ops.isinf(value), ops.constant_of(value), value)
            parts.append(ops.log(value) if part.is_log else value)
        return tuple(parts)

    def problem(self, ops: TraceOps, theta: Sequence[Array]) -> ConeData:
        """Return the cone programs, those with infinite bounds as `without_infinite_rows`."""
        P, q, A, b = (block.apply(ops, theta) for block in self.blocks)
        if self.program.has_bounds:
            infinite = ops.isinf(b)
            entries = ops.take(infinite, self.pattern.A_row)
            return ConeData(P, q, ops.where(entries, 0.0, A), ops.where(infinite, 1.0, b))
        return ConeData(P, q, A, b)

    def objective_constant(self, ops: TraceOps, theta: Sequence[Array], rows: int) -> Array:
        """Return the part of the canonical objective without variables, (rows,) or (1,)."""
        form = self.program.objective_constant
        if form.is_constant:
            return ops.constant(form.evaluate(np.zeros((1, self.program.num_parameters))))
        finite = theta
        if self.program.has_bounds:
            finite = [ops.where(ops.isinf(part), 0.0, part) for part in theta]
        wide = [ops.broadcast_to(part, (rows, part.shape[1])) for part in finite]
        wide.append(ops.broadcast_to(ops.constant(np.ones((1, 1))), (rows, 1)))
        stacked = ops.concatenate(wide)
        entries: Any = sp.coo_array(form.matrix)
        row, column = entries.row.astype(np.int64), entries.col.astype(np.int64)
        weights = ops.constant(0.5 * np.asarray(entries.data, dtype=np.float64))
        return (weights * ops.take(stacked, row) * ops.take(stacked, column)).sum(-1)


# Values hold no reference to their key, so a program that is gone takes its parts along.
_traced: weakref.WeakKeyDictionary[CompiledProgram, TracedProgram] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True, eq=False)
class TracedCall:
    """One call: what was solved, and how the answers are read.

    Attributes:
        traced: the program.
        ops: what the framework lends.
        primitives: the cone program in the framework.
        batch_shape: the batch dimensions of the values, broadcast.
        theta: parts of θ, one row for each instance or one for all.
        problem: the cone programs.
        solved: their solutions; x and y zero in rows without one.
        has_solution: which rows have one, (rows, 1).
    """

    traced: TracedProgram
    ops: TraceOps
    primitives: TracePrimitives
    batch_shape: tuple[int, ...]
    theta: tuple[Array, ...]
    problem: ConeData
    solved: Solved
    has_solution: Array

    @classmethod
    def of(
        cls,
        traced: TracedProgram,
        ops: TraceOps,
        primitives: TracePrimitives,
        values: Sequence[Array],
    ) -> TracedCall:
        """Solve at one value for each parameter, real or complex, any batch dimensions.

        Values are not checked here.
        """
        rows, batch_shape = _to_rows(ops, traced.parameters, values)
        theta = traced.theta(ops, rows)
        problem = traced.problem(ops, theta)
        solved = primitives.solve(problem)
        has_solution = (solved.status <= _LAST_WITH_SOLUTION)[:, None]
        # Rows without a solution may hold anything. Masked before any arithmetic, so that a
        # cotangent of zero never meets an infinite derivative.
        x = ops.where(has_solution, solved.x, 0.0)
        y = ops.where(has_solution, solved.y, 0.0)
        solved = solved._replace(x=x, y=y)
        return cls(traced, ops, primitives, batch_shape, theta, problem, solved, has_solution)

    def outputs(self) -> tuple[Array, ...]:
        """Return the requested variables and duals; NaN in rows without a solution."""
        return tuple(self._read(output) for output in self.traced.outputs)

    def duals(self, places: Sequence[int]) -> tuple[Array, ...]:
        """Return the duals at some places of `Recovery.duals`."""
        return tuple(self._read(self.traced.duals[place]) for place in places)

    def value(self) -> Array:
        """Return the optimal objective in the user's sense; see `ProgramSolution.value`."""
        ops, solved, traced = self.ops, self.solved, self.traced
        has_solution = self.has_solution[:, 0]
        counts = [part.shape[0] for part in self.theta]
        rows = max(counts, default=1) if all(counts) else 0
        value = self.primitives.value(self.problem, solved.x, solved.y)
        value = value + traced.objective_constant(ops, self.theta, rows)
        value = traced.sign * ops.where(has_solution, value, 0.0)
        without = traced.sign * np.array([np.nan, np.inf, -np.inf])
        if traced.is_log_objective:
            value, without = ops.exp(value), np.exp(without)
        failed, infeasible, unbounded = (ops.constant(entry[None]) for entry in without)
        failed = ops.where(solved.status == int(Status.INFEASIBLE), infeasible, failed)
        failed = ops.where(solved.status == int(Status.UNBOUNDED), unbounded, failed)
        value = ops.where(has_solution, value, failed)
        return ops.broadcast_to(value, (math.prod(self.batch_shape),)).reshape(self.batch_shape)

    def _read(self, output: GatheredOutput) -> Array:
        ops, spec = self.ops, output.spec
        rows = output.read(ops, self.solved.x, self.solved.y, self.theta)
        rows = ops.where(self.has_solution, rows, ops.constant(np.full((1, 1), np.nan)))
        rows = ops.broadcast_to(rows, (math.prod(self.batch_shape), spec.size))
        if spec.is_complex:
            return ops.to_complex(rows.reshape((*self.batch_shape, *spec.shape, 2)))
        return rows.reshape(self.batch_shape + spec.shape)


def _to_rows(
    ops: TraceOps, parameters: Sequence[ParameterSpec], values: Sequence[Array]
) -> tuple[list[Array], tuple[int, ...]]:
    """Return each value as rows of coordinates, one where all instances share it."""
    shapes: list[tuple[int, ...]] = []
    parts: list[Array] = []
    for spec, value in zip(parameters, values, strict=True):
        own = tuple(value.shape[: len(value.shape) - len(spec.shape)])
        part = ops.to_real(value) if spec.is_complex else value
        shapes.append(own)
        parts.append(part.reshape((*own, spec.size)))
    full = np.broadcast_shapes(*shapes)
    rows: list[Array] = []
    for spec, own, part in zip(parameters, shapes, parts, strict=True):
        if own != full and math.prod(own) != 1:
            own, part = full, ops.broadcast_to(part, (*full, spec.size))
        rows.append(part.reshape((math.prod(own), spec.size)))
    return rows, full
