# SPDX-License-Identifier: Apache-2.0
"""Partial minimization inside a problem: the same as minimizing over everything at once."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from cvxpy.transforms.partial_optimize import partial_optimize

from cvxlayer import Layer

ROUNDING = 1e-8
STEP = 1e-5


def parts() -> tuple[cp.Variable, cp.Variable, cp.Parameter, cp.Parameter, cp.Problem]:
    """Return x, the inner z, two parameters and the inner problem in z."""
    x, z = cp.Variable(2, name="x"), cp.Variable(3, name="z")
    target, limit = cp.Parameter(3, name="target"), cp.Parameter(nonneg=True, name="limit")
    A = np.arange(6.0).reshape(3, 2) / 5.0
    inner = cp.Problem(cp.Minimize(cp.sum_squares(A @ x + z - target)), [cp.norm1(z) <= limit])
    return x, z, target, limit, inner


def layers(power: float = 1.0) -> tuple[Layer, Layer]:
    """Return a layer with the partial minimization, and one with its variables beside x."""
    x, z, target, limit, inner = parts()
    outer = 0.1 * cp.sum_squares(x - 1)
    value = partial_optimize(inner, [z], [x])
    partial = cp.Problem(cp.Minimize(outer + power * value), [x >= 0])
    whole = cp.Problem(
        cp.Minimize(outer + power * inner.objective.expr), [x >= 0, *inner.constraints]
    )
    return (
        Layer(partial, [target, limit], [x]),
        Layer(whole, [target, limit], [x]),
    )


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_a_partial_minimum_is_that_over_everything(power: float, rng: np.random.Generator) -> None:
    partial, whole = layers(power)
    target, limit = rng.normal(size=(4, 3)), rng.uniform(0.1, 1.0, size=4)
    ours, expected = partial.solve(target, limit), whole.solve(target, limit)
    np.testing.assert_allclose(ours.variables[0], expected.variables[0], atol=ROUNDING)
    np.testing.assert_allclose(ours.value, expected.value, atol=ROUNDING)


def test_its_parameters_get_the_gradient_of_differences(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    partial, _ = layers()
    target, limit = rng.normal(size=3), np.asarray(0.4)
    tensors = [torch.tensor(value, requires_grad=True) for value in (target, limit)]
    weights = rng.normal(size=2)
    (x,) = partial(*tensors)
    (x * torch.tensor(weights)).sum().backward()
    for k in range(3):
        unit = STEP * np.eye(3)[k]
        ends = [partial(target + sign * unit, limit)[0] @ weights for sign in (1.0, -1.0)]
        expected = (ends[0] - ends[1]) / (2 * STEP)
        assert tensors[0].grad[k].item() == pytest.approx(expected, abs=1e-6)
    ends = [partial(target, limit + sign * STEP)[0] @ weights for sign in (1.0, -1.0)]
    assert tensors[1].grad.item() == pytest.approx((ends[0] - ends[1]) / (2 * STEP), abs=1e-6)


def test_a_partial_minimum_may_be_bounded() -> None:
    """As a constraint it is the existence of inner variables."""
    x, z, target, limit, inner = parts()
    value = partial_optimize(inner, [z], [x])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [value <= 0.5])
    layer = Layer(problem, [target, limit], [x])
    target_value, limit_value = np.array([1.0, 2.0, 3.0]), np.asarray(0.5)
    solution = layer.solve(target_value, limit_value)
    target.value, limit.value = target_value, limit_value
    whole = cp.Problem(
        cp.Minimize(cp.sum_squares(x)), [inner.objective.expr <= 0.5, *inner.constraints]
    )
    whole.solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(solution.variables[0], x.value, atol=1e-5)
