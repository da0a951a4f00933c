# SPDX-License-Identifier: Apache-2.0
"""Backward alone: cotangent of the natural x in, cotangents of all of P, q, A, b out.

The forward solve that a backward pass needs is done before the clock starts. diffcp is not
here: it differentiates no quadratic objective, so it cannot take the natural form.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.benchmarks.contenders import TOLERANCE, AbstractContender, Answer, DataSet, Job
from tests.benchmarks.engines import moreau_data, moreau_solver, repeat_shared
from tests.benchmarks.forms import UpperTriangles


class NativeAdjoint(AbstractContender):
    """Ours: the exact vjp, polish and classification included."""

    name = "cvxlayer"
    settings = "exact vjp of all data"

    def __init__(self, solver: str | None = None) -> None:
        self._solver = solver

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        # Imported here: peers can be measured where the native core is not built.
        from cvxlayer.differentiate.native import NativeDerivative

        backend, derivative = get_backend(self._solver), NativeDerivative()
        structure = sets[0].cone_program.structure
        prepared, prepared_derivative = backend.setup(structure), derivative.setup(structure)
        settings = Settings(TOLERANCE, TOLERANCE, threads=threads)
        solutions = [backend.solve(prepared, one.cone_program, settings) for one in sets]

        def run(k: int) -> Any:
            one = sets[k]
            return derivative.vjp(
                prepared_derivative, one.cone_program, solutions[k], one.x_bar, None, None,
                needs=(True, True, True, True), threads=threads,
            )  # fmt: skip

        return Job(run, lambda bar, _: Answer(gradients=[bar.P, bar.q, bar.A, bar.b]))


class MoreauAdjoint(AbstractContender):
    """moreau's compiled batch solver, with gradients enabled."""

    def __init__(self, mode: str) -> None:
        self.name = f"moreau {mode}"
        self._mode = mode
        self.settings = f"solver = {mode}, tol_* = primal_tol = {TOLERANCE:g}, diff_method auto"

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        del threads
        forms = [UpperTriangles.of(one.cone_program) for one in sets]
        solver, patterns = moreau_solver(forms[0].batch, self._mode, gradients=True)
        data = [moreau_data(form.batch, patterns) for form in forms]

        def before(k: int) -> None:
            P, A, q, b = data[k]
            solver.setup(*repeat_shared(P, A))
            solver.solve(q, b)

        def read(found: Any, k: int) -> Answer:
            form = forms[k]
            batch = form.batch
            dP = _gather(np.array(found["dP_values"]), patterns["P_source"], batch.P.shape[1])
            dA = _gather(np.array(found["dA_values"]), patterns["A_source"], batch.A.shape[1])
            dA, db = form.restore_entries(dA), form.restore(np.array(found["db"]))
            return Answer(gradients=[dP, np.array(found["dq"]), dA, db])

        return Job(lambda k: solver.backward(sets[k].x_bar), read, before)


def _gather(values: np.ndarray, source: np.ndarray, length: int) -> np.ndarray:
    """Sum the cotangents of entries that stand for the same entry of ours."""
    gathered = np.zeros((len(values), length))
    np.add.at(gathered, (slice(None), source), values)
    return gathered


def backward_contenders(solver: str | None = None) -> list[AbstractContender]:
    """Every engine with a backward pass, ours first."""
    return [
        NativeAdjoint(solver),
        MoreauAdjoint("ipm"),
        MoreauAdjoint("auto"),
    ]
