# SPDX-License-Identifier: Apache-2.0
"""qpth, in a file of its own: it is measured only where it could be installed."""

from __future__ import annotations

import torch
from qpth.qp import QPFunction

from tests.benchmarks.contenders import (
    TOLERANCE,
    AbstractContender,
    DataSet,
    Job,
    needs_quadratic_program,
)
from tests.benchmarks.layers import DenseSolver, dense_job
from tests.benchmarks.tensor_forms import TensorProgram
from tests.benchmarks.workloads import Workload


class QpthLayer(AbstractContender):
    """qpth on the dense natural QP."""

    name = "qpth"
    settings = f"eps = {TOLERANCE:g}, maxIter = 30, check_Q_spd off"

    def refuses(self, workload: Workload) -> str | None:
        return needs_quadratic_program(workload)

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        del threads
        return dense_job(self.solver(), sets)

    def solver(self) -> DenseSolver:
        """The function of the matrices."""
        function = QPFunction(eps=TOLERANCE, verbose=-1, maxIter=30, check_Q_spd=False)

        def solve(form: TensorProgram) -> torch.Tensor:
            return function(form.P, form.q, form.G, form.h, form.A, form.b)

        return solve
