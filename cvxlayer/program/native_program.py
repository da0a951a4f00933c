# SPDX-License-Identifier: Apache-2.0
"""A compiled program in the core, affine maps, engine and recovery in one object; and its runs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from cvxlayer import _native
from cvxlayer.program.engine import prepare_engine
from cvxlayer.program.parametric import AffineMap, ParametricConeProgram
from cvxlayer.program.recovery import RecoveredOutput, Recovery
from cvxlayer.program.solution import ConeSolution
from cvxlayer.program.sparse_map import SparseMap


def build_native_program(
    program: ParametricConeProgram, recovery: Recovery
) -> _native.LayerProgram:
    """Return a program in the core; it counts the outputs first, then the duals."""
    constant: Any = sp.coo_array(program.objective_constant.matrix)
    return _native.LayerProgram(
        prepare_engine(program.structure),
        list(program.parameter_sizes),
        [_parts(block) for block in program.blocks],
        program.has_bounds,
        constant.row.astype(np.int64),
        constant.col.astype(np.int64),
        constant.data.astype(np.float64),
        [_output(output) for output in (*recovery.outputs, *recovery.duals)],
    )


def build_tensor_program(
    native: _native.LayerProgram,
    exchange: Any,
    types: Sequence[type],
    is_lazy: str,
    input_shapes: Sequence[tuple[int, ...]],
    domains: Sequence[int],
    output_shapes: Sequence[tuple[int, ...]],
) -> _native.TensorProgram | None:
    """Return a program of the core as a function of one framework's tensors.

    Args:
        native: of `build_native_program`.
        exchange: the capsule `__dlpack_c_exchange_api__` of the tensors.
        types: what they are; other types, also those derived from these, are not plain.
        is_lazy: their method that tells whether what lies in memory is still to be changed.
        input_shapes: of one instance, one for each part of θ.
        domains: what each part must be, by `inspection.find_bits`.
        output_shapes: of one instance.

    Returns:
        None if the exchange is of a version that the core does not know.
    """
    if not _native.can_exchange(exchange):
        return None
    return _native.TensorProgram(
        native,
        exchange,
        list(types),
        is_lazy,
        list(input_shapes),
        list(domains),
        list(output_shapes),
    )


def _output(output: RecoveredOutput) -> tuple[Any, ...]:
    size, from_x, from_y = output.spec.size, output.from_x, output.from_y
    nothing = AffineMap(np.zeros(size), ())
    return (
        size,
        None if from_x is None else from_x.native_forward,
        None if from_y is None else from_y.native_forward,
        None if from_x is None else from_x.native_backward,
        None if from_y is None else from_y.native_backward,
        _parts(output.from_theta or nothing),
        output.is_log,
    )


def _parts(block: AffineMap) -> tuple[np.ndarray, list[Any]]:
    return block.offset, [
        (index, part.native_forward, _unfolded(part), part.native_backward)
        for index, part in block.parts
    ]


def _unfolded(part: SparseMap) -> _native.SparseMap:
    """Return the matrix itself where the forward direction relies on points being symmetric."""
    transposed = sp.csr_array(part.backward.T)
    if (transposed - part.forward).nnz == 0:
        return part.native_forward
    return SparseMap.of(transposed).native_forward


CoreSettings = tuple[float, float, int, bool, int, int]
"""Both tolerances, the limit of iterations or 0 for ours, whether to polish, threads, lanes."""


def cone_of(run: _native.LayerRun) -> ConeSolution:
    """Return the solutions of a run, in memory of the core that may be written to."""
    x, y, s, status, iterations, primal, dual, gap, is_active, scale, cost = run.results()
    solved_by = np.zeros(len(status), np.int8)
    return ConeSolution(
        x, y, s, status, iterations, primal, dual, gap, solved_by, is_active,
        run.seconds, (scale, cost),
    )  # fmt: skip


# Not frozen: that would take as long as a small solve's iteration.
@dataclasses.dataclass(eq=False)
class NativeRun:
    """A batch solved in the core, all the way from values to outputs.

    Attributes:
        outputs: one array per output; written only if every row is SOLVED.
        size: number of instances.
        run: what the core keeps of it.
    """

    outputs: tuple[Float[np.ndarray, "..."], ...]
    size: int
    run: _native.LayerRun

    @classmethod
    def of(
        cls,
        native: _native.LayerProgram,
        values: Sequence[Float[np.ndarray, "..."]],
        outputs: tuple[Float[np.ndarray, "..."], ...],
        size: int,
        settings: CoreSettings,
    ) -> NativeRun | None:
        """Solve a batch.

        Args:
            native: of `build_native_program`.
            values: one C-contiguous array per part of θ, with or without the batch in front.
            outputs: memory for the outputs, likewise with the batch in front.
            size: number of instances, at least one.
            settings: of the solve.

        Returns:
            None if a value is not finite.
        """
        # The generated stub does not know of None.
        run: _native.LayerRun | None = cast(Any, native.run(values, size, *settings, outputs))
        return None if run is None else cls(outputs, size, run)

    @property
    def is_solved(self) -> bool:
        """Whether every row is SOLVED."""
        return self.run.is_solved

    @functools.cached_property
    def cone(self) -> ConeSolution:
        """The solutions, in memory of the core that may be written to."""
        return cone_of(self.run)

    def pull_back(
        self,
        outputs_bar: Sequence[Float[np.ndarray, "..."] | None],
        values_bar: Sequence[Float[np.ndarray, "..."] | None],
        largest_residual: float,
    ) -> Float[np.ndarray, " batch"] | None:
        """Write the cotangents of the values.

        Args:
            outputs_bar: cotangent of each output, in its shape; None for zero.
            values_bar: memory for the cotangent of each value, in its shape; None where it is
                not wanted. Where the instances share a value it receives the sum.
            largest_residual: see below.

        Returns:
            The relative residual of each row's adjoint system, if one is above `largest_residual`.
        """
        residual = np.empty(self.size)
        is_small = self.run.pull_back(outputs_bar, values_bar, residual, largest_residual)
        return None if is_small else residual
