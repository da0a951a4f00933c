# SPDX-License-Identifier: Apache-2.0
"""Every workload is well posed, and our layer solves and differentiates it."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from tests.benchmarks.catalog import ROBOTS, workloads
from tests.benchmarks.reference import (
    parameter_directions,
    relative_error,
    solve,
)
from tests.benchmarks.verdict import GRADIENT_LIMIT, KKT_LIMIT
from tests.benchmarks.workloads import Workload
from tests.catalog.residuals import kkt_residual

BATCH = 3
#: Solutions of solvers that stop at 1e-8 differ by this much where curvature is small.
SOLUTION_TOLERANCE = 1e-4
WORKLOADS = list(workloads().values())


def _num_inequalities(workload: Workload) -> int:
    return workload.cone_program(_sample(workload)).structure.cones.nonnegative


def _sample(workload: Workload) -> tuple[np.ndarray, ...]:
    return workload.sample(np.random.default_rng(5), BATCH)


#: Not the recorded controllers, which are as they are, nor those whose only inequalities bound
#: sums of exponentials, which are always active.
WITH_CHOICE = [
    w
    for w in WORKLOADS
    if w.name not in ROBOTS and not w.gp and "logistic" not in w.name and _num_inequalities(w)
]


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_the_natural_form_is_solved_and_has_the_optimum_of_the_cvxpy_problem(
    workload: Workload,
) -> None:
    values = _sample(workload)
    program = workload.cone_program(values)
    x, y = solve(program, workload.reference_tolerance)
    assert kkt_residual(program, x, y) < KKT_LIMIT
    problem, parameters, variables = workload.build()
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = value[0]
    problem.solve(solver=cp.CLARABEL, gp=workload.gp)
    truth = workload.output(x)[:1]
    assert relative_error(variables[0].value[None], truth) < SOLUTION_TOLERANCE


@pytest.mark.parametrize("workload", WITH_CHOICE, ids=str)
def test_inequalities_are_active_at_some_instances_and_inactive_at_others(
    workload: Workload,
) -> None:
    program = workload.cone_program(workload.sample(np.random.default_rng(6), 8))
    x, _ = solve(program, workload.reference_tolerance)
    rows = slice(program.structure.cones.zero, program.structure.cones.num_linear)
    slack = np.array([(b - A @ x[i])[rows] for i in range(8) for *_, A, b in [program.instance(i)]])
    is_active = slack < 1e-7 * (1 + np.abs(slack).max())
    assert is_active.any(), "no constraint matters"
    assert not is_active.all()


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_the_layer_solves_the_workload_and_its_gradient_equals_differences(
    workload: Workload,
) -> None:
    torch = pytest.importorskip("torch")
    from cvxlayer.torch import Layer

    values = _sample(workload)
    directions = parameter_directions(workload, values)
    layer = Layer(*workload.build(), gp=workload.gp)
    tensors = [torch.from_numpy(value.copy()).requires_grad_() for value in values]
    (output,) = layer(*tensors)
    program = workload.cone_program(values)
    truth = workload.output(solve(program, workload.reference_tolerance)[0])
    assert relative_error(output.detach().numpy(), truth) < SOLUTION_TOLERANCE
    (output * torch.from_numpy(directions.weights.copy())).sum().backward()
    assert directions.error([tensor.grad.numpy() for tensor in tensors]) < GRADIENT_LIMIT
