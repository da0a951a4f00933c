# SPDX-License-Identifier: Apache-2.0
"""The derivative report as arrays of JAX, also inside of compiled code."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from cvxlayer.compiler import CompiledProgram
from cvxlayer.jax import cone
from cvxlayer.jax.plan import Plan
from cvxlayer.program.derivative_report import DerivativeReport
from cvxlayer.program.solution import ConeSolution
from cvxlayer.reporting import report_cone_programs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class DerivativeJudge:
    """Reports on the derivative at an answer.

    Attributes:
        theta: the parts of θ.
        point: the solutions.
        plan: the layer.
        batch_shape: the batch dimensions of the call.
        threads: threads over the batch; None for all cores.
    """

    theta: tuple[Any, ...]
    point: cone.ConePoint
    plan: Plan = dataclasses.field(metadata={"static": True})
    batch_shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    threads: int | None = dataclasses.field(metadata={"static": True})

    def __call__(self) -> DerivativeReport:
        """Return the report, computed on the host; no derivative flows through it."""
        program, point = self.plan.program, self.point
        names = program.recovery.constraint_rows.names
        rows = point.status.shape[0]
        real = jax.dtypes.canonicalize_dtype(np.float64)
        kinds = [((), real)] * 3 + [((), np.int32), ((len(names),), np.bool_)]
        shapes = [jax.ShapeDtypeStruct((rows, *shape), dtype) for shape, dtype in kinds]
        arguments = jax.lax.stop_gradient(
            (self.theta, point.exact_x, point.exact_y, point.exact_s, point.status, point.is_active)
        )
        found = jax.pure_callback(
            functools.partial(_report, program, self.threads, real),
            shapes,
            *arguments,
            vmap_method="sequential",
        )
        arrays = [
            array.reshape(*self.batch_shape, *shape)
            for array, (shape, _) in zip(found, kinds, strict=True)
        ]
        margin, condition, residual, failed, involved = arrays
        return DerivativeReport(margin, condition, residual, failed, involved, names)


def _report(
    program: CompiledProgram,
    threads: int | None,
    real: np.dtype,
    theta: tuple[Any, ...],
    x: Any,
    y: Any,
    s: Any,
    status: Any,
    is_active: Any,
) -> list[np.ndarray]:
    """Return margin, condition, residual, flags and constraints of each row."""
    status = np.array(status)
    size = len(status)
    values = [np.array(part, np.float64) for part in theta]
    batch = program.program.evaluate(values, size)
    nothing, none = np.zeros(size), np.zeros(size, np.int64)
    solution = ConeSolution(
        _exact(x),
        _exact(y),
        _exact(s),
        status,
        none,
        nothing,
        nothing,
        nothing,
        none,
        np.array(is_active),
        0.0,
    )
    found = report_cone_programs(program, batch, solution, (size,), threads)
    figures = [figure.astype(real) for figure in (found.margin, found.condition, found.residual)]
    return [*figures, found.failed.astype(np.int32), found.involved]


def _exact(numbers: Any) -> np.ndarray:
    """Return exact numbers as doubles; see `handlers.exact_shape`."""
    return np.ascontiguousarray(numbers).view(np.float64)
