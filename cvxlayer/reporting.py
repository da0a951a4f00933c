# SPDX-License-Identifier: Apache-2.0
"""The derivative report of a call: the verdict on its cone programs, in the user's terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cvxlayer.compiler import CompiledProgram, ProgramSolution
from cvxlayer.differentiate.native import NativeDerivative
from cvxlayer.differentiate.relevance import Relevance
from cvxlayer.differentiate.trial import ExaminingDerivative
from cvxlayer.differentiate.uniqueness import judge
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.derivative_report import DerivativeReport
from cvxlayer.program.solution import ConeSolution

# One for all, so that what it prepares for a program is prepared once.
_NATIVE = NativeDerivative()


def report_derivative(
    solution: ProgramSolution,
    batch_shape: tuple[int, ...],
    convert: Callable[[np.ndarray], Any] = np.asarray,
    primitives: ExaminingDerivative = _NATIVE,
) -> DerivativeReport:
    """Report on the derivative of the outputs of a call in its parameters.

    Args:
        solution: the answers.
        batch_shape: the batch dimensions of the call.
        convert: applied to the arrays of the report.
        primitives: the engine; whatever differentiates the layer, the report is about the exact
            derivative.
    """
    threads = solution.settings.threads
    report = report_cone_programs(
        solution.program, solution.batch, solution.cone, batch_shape, threads, primitives
    )
    return report.converted(convert)


def report_cone_programs(
    program: CompiledProgram,
    batch: ConeProgramBatch,
    cone: ConeSolution,
    batch_shape: tuple[int, ...],
    threads: int | None,
    primitives: ExaminingDerivative = _NATIVE,
) -> DerivativeReport:
    """Report on the derivative at solutions of cone programs; see `report_derivative`."""
    relevance = Relevance(program.program, program.recovery.outputs)
    judgment = judge(
        primitives, program.prepare(primitives), relevance, batch, cone, threads=threads
    )
    rows = program.recovery.constraint_rows
    involved = np.zeros((batch.size, len(rows.names)), bool)
    involved[judgment.instance, rows.of_row[judgment.row]] = True
    return DerivativeReport(
        judgment.margin.reshape(batch_shape),
        judgment.condition.reshape(batch_shape),
        judgment.residual.reshape(batch_shape),
        judgment.failed.reshape(batch_shape),
        involved.reshape(*batch_shape, len(rows.names)),
        rows.names,
    )
