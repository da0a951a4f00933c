# SPDX-License-Identifier: Apache-2.0
"""Partial minimization inside a problem: the same as minimizing over everything at once."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from cvxpy.transforms.partial_optimize import partial_optimize

from cvxlayer import Layer
from cvxlayer.errors import NotDppError

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


def magnitude(x: cp.Variable) -> tuple[cp.Expression, cp.Expression]:
    """Return |x| as a partial minimum of an affine objective, and −|x| as a maximum."""
    z, w = cp.Variable(), cp.Variable()
    least = partial_optimize(cp.Problem(cp.Minimize(z), [z >= x, z >= -x]), [z], [x])
    largest = partial_optimize(cp.Problem(cp.Maximize(w), [w <= x, w <= -x]), [w], [x])
    return least, largest


def projection(x: cp.Variable, p: cp.Parameter) -> cp.Expression:
    return cp.square(x - p)


WRONG = {
    "minimum, negative": lambda x, p: (projection(x, p) - magnitude(x)[0], []),
    "minimum, from below": lambda x, p: (projection(x, p), [magnitude(x)[0] >= 1]),
    "minimum, equal": lambda x, p: (projection(x, p), [magnitude(x)[0] == 1]),
    "minimum, squared": lambda x, p: (cp.square(magnitude(x)[0] - 1) + p * x, []),
    "maximum, added": lambda x, p: (projection(x, p) + magnitude(x)[1], []),
    "maximum, from above": lambda x, p: (projection(x, p), [magnitude(x)[1] <= -1]),
}


@pytest.mark.parametrize("build", WRONG.values(), ids=WRONG)
def test_an_optimum_of_an_affine_objective_is_not_taken_for_affine(build) -> None:
    x, p = cp.Variable(name="x"), cp.Parameter(name="p")
    objective, constraints = build(x, p)
    problem = cp.Problem(cp.Minimize(objective), constraints)
    assert not problem.is_dcp()
    with pytest.raises(NotDppError, match="the optimal value of a `partial_optimize` stands"):
        Layer(problem, [p], [x])


def test_the_same_holds_within_a_partial_minimum() -> None:
    x, p, z = cp.Variable(name="x"), cp.Parameter(name="p"), cp.Variable(name="z")
    least, _ = magnitude(x)
    inner = cp.Problem(cp.Minimize(z), [z >= -least])
    problem = cp.Problem(cp.Minimize(projection(x, p) + partial_optimize(inner, dont_opt_vars=[x])))
    with pytest.raises(NotDppError, match=r"In constraint 0, .* stands where its curvature"):
        Layer(problem, [p], [x])


def test_partial_optima_may_be_nested_shared_and_maxima(rng: np.random.Generator) -> None:
    """min (x − p)² + 2|x| − (−|x|), with |x| ≤ 0.3 once more: soft thresholding by 3/2."""
    x, p, z = cp.Variable(name="x"), cp.Parameter(name="p"), cp.Variable(name="z")
    least, largest = magnitude(x)
    nested = partial_optimize(cp.Problem(cp.Minimize(z), [z >= least]), dont_opt_vars=[x])
    objective = projection(x, p) + nested + least - largest
    layer = Layer(cp.Problem(cp.Minimize(objective), [least <= 0.3]), [p], [x])
    values = rng.uniform(-3.0, 3.0, size=9)
    (found,) = layer.solve(values).variables
    expected = np.sign(values) * np.clip(np.abs(values) - 1.5, 0.0, 0.3)
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_a_nonnegative_optimum_may_be_squared(rng: np.random.Generator) -> None:
    """min (x − p)² + |x|²: half of p."""
    x, p, z = cp.Variable(name="x"), cp.Parameter(name="p"), cp.Variable(nonneg=True)
    least = partial_optimize(cp.Problem(cp.Minimize(z), [z >= x, z >= -x]), [z], [x])
    layer = Layer(cp.Problem(cp.Minimize(projection(x, p) + cp.square(least))), [p], [x])
    values = rng.normal(size=5)
    np.testing.assert_allclose(layer.solve(values).variables[0], values / 2, atol=ROUNDING)


def test_a_partial_minimum_in_a_geometric_program(rng: np.random.Generator) -> None:
    """min x + p/z + z/x over z: with z = √(p x), x + 2√(p/x), so x = p^⅓."""
    x, p = cp.Variable(pos=True, name="x"), cp.Parameter(pos=True, name="p")
    z = cp.Variable(pos=True)
    least = partial_optimize(cp.Problem(cp.Minimize(p / z + z / x)), [z], [x])
    layer = Layer(cp.Problem(cp.Minimize(x + least)), [p], [x], gp=True)
    values = rng.uniform(0.5, 2.0, size=4)
    np.testing.assert_allclose(layer.solve(values).variables[0], np.cbrt(values), rtol=1e-6)
    lower = cp.Problem(cp.Minimize(p * x), [partial_optimize(
        cp.Problem(cp.Minimize(z), [z >= 1 / x]), [z], [x]) >= 1])  # fmt: skip
    with pytest.raises(NotDppError, match="the optimal value of a `partial_optimize` stands"):
        Layer(lower, [p], [x], gp=True)
