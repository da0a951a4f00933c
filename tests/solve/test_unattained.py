# SPDX-License-Identifier: Apache-2.0
"""Programs whose optimum is not attained: a logarithm that tends to −∞."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer.compiler import compile_problem
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.native import NativeBackend
from tests.catalog.atoms import ATOM_CASES

TIGHT = 1e-12
#: What rounding leaves of a residual whose terms are of the size of 20, with numbers up to 1e9
#: in the scaling. CVXPY 1.7 writes the rows in another order, which leaves up to 1.9e-9.
IS_OLD = tuple(map(int, cp.__version__.split(".")[:2])) < (1, 8)
REACHED = 3e-9 if IS_OLD else 8e-10


def solve(seed: int, eps: float) -> ConeSolution:
    case = next(case for case in ATOM_CASES if case.name == "resolvent")
    problem, parameters, variables = case.build()
    program = compile_problem(problem, parameters, variables, gp=True)
    values = case.draw(np.random.default_rng(seed))
    rows = [value.reshape(1, -1, order="F") for value in values]
    settings = Settings(eps, eps, threads=1, extra={"fallback": False})
    return program.solve(rows, backend=NativeBackend(), settings=settings).cone


@pytest.mark.parametrize("seed", range(4))
def test_residuals_go_on_falling_where_the_scaling_is_large(seed: int) -> None:
    found = solve(seed, TIGHT)
    for residual in (found.primal_residual, found.dual_residual, found.gap):
        assert residual[0] <= REACHED
