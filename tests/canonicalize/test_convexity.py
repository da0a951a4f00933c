# SPDX-License-Identifier: Apache-2.0
"""Which problems are known to be convex when they are compiled, and what becomes of the others."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import Layer
from cvxlayer.compiler import compile_problem
from cvxlayer.errors import NotDppError, SolverError, Status
from cvxlayer.solve.registry import get_backend

SADDLE = np.diag([1.0, -1.0])


def box(x: cp.Variable) -> list[cp.Constraint]:
    return [x <= 1, x >= -1]


def test_a_constant_matrix_is_never_tested_again():
    x, c = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + c @ x), box(x))
    assert compile_problem(problem, [c], [x]).program.structure.is_convex


def test_a_problem_without_a_quadratic_part_is_convex():
    x, c = cp.Variable(3), cp.Parameter(3)
    assert compile_problem(
        cp.Problem(cp.Minimize(c @ x), box(x)), [c], [x]
    ).program.structure.is_convex


def test_a_matrix_with_parameters_is_tested():
    x, P = cp.Variable(2), cp.Parameter((2, 2), PSD=True)
    program = compile_problem(cp.Problem(cp.Minimize(cp.quad_form(x, P)), box(x)), [P], [x])
    assert not program.program.structure.is_convex
    solution = program.solve([SADDLE.reshape(1, 4)], backend=get_backend())
    assert solution.cone.status[0] == Status.NOT_CONVEX
    assert np.isnan(solution.outputs[0]).all()


def test_a_constant_matrix_that_is_wrongly_called_convex_is_refused():
    x = cp.Variable(2)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, cp.psd_wrap(SADDLE))), box(x))
    with pytest.raises(NotDppError, match="negative eigenvalue"):
        compile_problem(problem, [], [x])


def _wrapped() -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    x, P = cp.Variable(2), cp.Parameter((2, 2), symmetric=True)
    objective = cp.quad_form(x, cp.psd_wrap(P)) + 0.1 * cp.sum(x)
    return cp.Problem(cp.Minimize(objective), box(x)), P, x


def test_the_error_names_the_matrix():
    problem, P, x = _wrapped()
    layer = Layer(problem, parameters=[P], variables=[x])
    with pytest.raises(SolverError, match="not positive semidefinite") as caught:
        layer(np.stack([np.eye(2), SADDLE]))
    assert caught.value.indices == [1]
    assert caught.value.statuses == [Status.NOT_CONVEX]


def test_a_row_that_is_not_convex_has_no_gradient():
    torch = pytest.importorskip("torch")
    from cvxlayer.torch import Layer as TorchLayer

    problem, P, x = _wrapped()
    layer = TorchLayer(problem, parameters=[P], variables=[x], on_failure="nan")
    values = torch.tensor(np.stack([np.eye(2), SADDLE]), requires_grad=True)
    (found,) = layer(values)
    assert torch.isnan(found[1]).all()
    assert torch.isfinite(found[0]).all()
    found[0].sum().backward()
    assert (values.grad[1] == 0.0).all()
    assert (values.grad[0] != 0.0).any()
