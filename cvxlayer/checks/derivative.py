# SPDX-License-Identifier: Apache-2.0
"""Sums up the derivative report of a batch."""

from __future__ import annotations

import numpy as np

from cvxlayer.checks.report import DerivativeCheck
from cvxlayer.checks.sampling import Values
from cvxlayer.compiler import CompiledProgram
from cvxlayer.program.derivative_report import DerivativeTest
from cvxlayer.reporting import report_derivative
from cvxlayer.solve.backend import AbstractBackend


def check_derivative(
    program: CompiledProgram, values: Values, backend: AbstractBackend
) -> DerivativeCheck | None:
    """Find out at how many instances the derivative exists and is unique.

    Args:
        program: the compiled problem.
        values: where.
        backend: the solver.

    Returns:
        None if no instance has a solution or there is no parameter.
    """
    solution = program.solve(values.rows, backend=backend, batch=values.batch)
    solved = solution.has_solution
    if not solved.any() or not program.parameters:
        return None
    report = report_derivative(solution, (values.batch,))
    failed = report.failed[solved]
    counts = {test: int(np.count_nonzero(failed & int(test))) for test in DerivativeTest}
    involved = report.involved[solved].any(axis=0)
    return DerivativeCheck(
        len(failed),
        int(np.count_nonzero(failed == 0)),
        {str(test.name): count for test, count in counts.items() if count},
        tuple(name for name, is_in in zip(report.names, involved, strict=True) if is_in),
        float(report.margin[solved].min()),
        float(report.condition[solved].max()),
        float(report.residual[solved].max()),
    )
