# SPDX-License-Identifier: Apache-2.0
"""Infinite bounds: where they are legal, and that they bound nothing."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxlayer
from cvxlayer.errors import ParameterValueError

SOLVERS = ("native", "clarabel")
INFINITY = np.inf


def box() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    x, point = cp.Variable(3, name="x"), cp.Parameter(3, name="point")
    lower, upper = cp.Parameter(3, name="lower"), cp.Parameter(3, name="upper")
    limit = cp.Parameter(name="limit")
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(x - point)), [x >= lower, x <= upper, cp.sum(x) <= limit]
    )
    return problem, [point, lower, upper, limit], [x]


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_infinite_bound_bounds_nothing(solver, rng):
    layer = cvxlayer.Layer(*box(), solver=solver, solver_args={"eps": 1e-10})
    point = 3 * rng.normal(size=(4, 3))
    lower = np.full((4, 3), -1.0)
    upper = np.full((4, 3), 1.0)
    lower[1, 0], upper[2], lower[3], upper[3] = -INFINITY, INFINITY, -INFINITY, INFINITY
    (answer,) = layer(point, lower, upper, INFINITY)
    np.testing.assert_allclose(answer, np.clip(point, lower, upper), atol=1e-4)
    # All rows at once, so that a shared infinite bound is treated as well.
    (shared,) = layer(point, lower[1], np.ones(3), np.full(4, INFINITY))
    np.testing.assert_allclose(shared, np.clip(point, lower[1], 1.0), atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_value_and_duals_are_those_without_the_bound(solver, rng):
    problem, parameters, variables = box()
    layer = cvxlayer.Layer(problem, parameters, variables, solver=solver)
    point, infinite = 3 * rng.normal(size=3), np.full(3, INFINITY)
    solution = layer.solve(point, -infinite, np.ones(3), INFINITY)
    expected = np.minimum(point, 1.0)
    np.testing.assert_allclose(solution.variables[0], expected, atol=1e-5)
    np.testing.assert_allclose(solution.value, ((expected - point) ** 2).sum(), atol=1e-5)
    np.testing.assert_allclose(solution.dual(problem.constraints[0]), 0.0, atol=1e-5)


def test_gradients_at_an_infinite_bound_are_those_without_it(rng):
    torch = pytest.importorskip("torch")
    from cvxlayer.torch import Layer

    layer = Layer(*box())
    point = torch.from_numpy(3 * rng.normal(size=(2, 3))).requires_grad_()
    lower = torch.tensor([[-1.0, -INFINITY, -1.0], [-INFINITY] * 3], dtype=torch.float64)
    upper = torch.tensor([1.0, 1.0, INFINITY], dtype=torch.float64)
    limit = torch.tensor(INFINITY, dtype=torch.float64)
    for bound in (lower, upper, limit):
        bound.requires_grad_()
    solution = layer.solve(point, lower, upper, limit)
    weight = torch.from_numpy(rng.normal(size=(2, 3)))
    ((weight * solution.variables[0]).sum() + solution.value.sum()).backward()
    free = point.detach().clone().requires_grad_()
    low, high = lower.detach().clone().requires_grad_(), upper.detach().clone().requires_grad_()
    clipped = torch.minimum(torch.maximum(free, low), high)
    ((weight * clipped).sum() + ((clipped - free) ** 2).nan_to_num().sum()).backward()
    for found, wanted in ((point, free), (lower, low), (upper, high)):
        torch.testing.assert_close(found.grad, wanted.grad, atol=1e-5, rtol=1e-5)
    assert limit.grad == 0.0
    assert torch.equal(lower.grad[1], torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "value"), [("lower", INFINITY), ("upper", -INFINITY), ("point", INFINITY)]
)
def test_infinity_elsewhere_is_refused(name, value):
    values = {"point": np.zeros(3), "lower": -np.ones(3), "upper": np.ones(3), "limit": 1.0}
    values[name] = np.array([0.0, value, 0.0])
    with pytest.raises(ParameterValueError, match=f"`{name}` contains an infinite entry"):
        cvxlayer.Layer(*box())(**values)


def test_a_parameter_that_is_more_than_a_bound_must_be_finite():
    x, both = cp.Variable(name="x"), cp.Parameter(name="both")
    cost = cp.Problem(cp.Minimize(cp.square(x) + both * x), [x <= both])
    with pytest.raises(ParameterValueError, match="`both` contains an infinite entry"):
        cvxlayer.Layer(cost, [both], [x])(INFINITY)
    equation = cp.Problem(cp.Minimize(cp.square(x)), [x == both])
    with pytest.raises(ParameterValueError, match="`both` contains an infinite entry"):
        cvxlayer.Layer(equation, [both], [x])(INFINITY)
    interval = cp.Problem(cp.Minimize(cp.square(x - 1)), [x <= both, x >= -2 + both])
    with pytest.raises(ParameterValueError, match="`both` contains an infinite entry"):
        cvxlayer.Layer(interval, [both], [x])(INFINITY)
