# SPDX-License-Identifier: Apache-2.0
"""`derivative=Smoothed(…)` in PyTorch: every mode and both orders, as from NumPy and JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cvxlayer  # noqa: E402
from cvxlayer.errors import UnsupportedDerivativeError  # noqa: E402
from cvxlayer.torch import Layer  # noqa: E402
from tests.catalog.smoothed_problems import PROBLEMS, SmoothedProblem  # noqa: E402

MU = 0.05
each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=str)


def layer_of(problem: SmoothedProblem, **options: Any) -> Layer:
    return Layer(*problem.build(), derivative=cvxlayer.Smoothed(mu=MU), **options)


def tensors(problem: SmoothedProblem) -> list[Any]:
    return [torch.tensor(value, dtype=torch.float64) for value in problem.values]


def stacked(layer: Layer, *values: Any) -> Any:
    """All outputs of one instance as a vector."""
    return torch.cat([part.reshape(-1) for part in layer(*values)])


@each_problem
def test_forward_mode_is_the_adjoint_of_reverse_mode(problem: SmoothedProblem) -> None:
    layer, values = layer_of(problem), tensors(problem)
    torch.manual_seed(0)
    tangents = [torch.randn_like(value) for value in values]
    if problem.name == "correlation":
        tangents = [0.5 * (part + part.T) for part in tangents]

    def function(*args: Any) -> Any:
        return stacked(layer, *args)

    answer, moved = torch.func.jvp(function, tuple(values), tuple(tangents))
    weights = torch.randn_like(answer)
    leaves = [value.clone().requires_grad_() for value in values]
    (function(*leaves) * weights).sum().backward()
    expected = sum((leaf.grad * part).sum() for leaf, part in zip(leaves, tangents, strict=True))
    assert float(moved.abs().max()) > 1e-3
    torch.testing.assert_close((moved * weights).sum(), expected, rtol=1e-9, atol=1e-9)


@each_problem
def test_the_second_derivative_is_that_of_the_first(problem: SmoothedProblem) -> None:
    """By differences of the first, of which the other tests tell that it is right."""
    layer = layer_of(problem)
    leaves = [value.requires_grad_() for value in tensors(problem)]

    def function(*args: Any) -> Any:
        if problem.name == "correlation":
            args = (0.5 * (args[0] + args[0].T),)
        return stacked(layer, *args)

    weights = torch.randn(function(*leaves).shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        function, tuple(leaves), (weights,), eps=1e-6, atol=1e-5, rtol=1e-4
    )


def test_the_hessian_of_a_linear_program_is_not_zero() -> None:
    layer, (cost,) = layer_of(PROBLEMS[0]), tensors(PROBLEMS[0])
    found = torch.func.hessian(lambda c: layer(c)[0][0])(cost)
    nested = torch.func.jacrev(torch.func.jacfwd(lambda c: layer(c)[0][0]))(cost)
    assert float(found.abs().max()) > 0.1
    torch.testing.assert_close(found, nested, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found, found.T, rtol=1e-8, atol=1e-8)


def test_a_batch_and_vmap_equal_single_calls() -> None:
    layer, (cost,) = layer_of(PROBLEMS[0]), tensors(PROBLEMS[0])
    costs = torch.stack([cost, cost.flip(0), 2 * cost])

    def loss(c: Any) -> Any:
        return (layer(c)[0] ** 2).sum()

    single = torch.stack([torch.func.grad(loss)(c) for c in costs])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(costs), single)
    leaf = costs.clone().requires_grad_()
    loss(leaf).backward()
    torch.testing.assert_close(leaf.grad, single)


def test_a_third_derivative_is_refused() -> None:
    layer, (cost,) = layer_of(PROBLEMS[0]), tensors(PROBLEMS[0])
    third = torch.func.jacrev(torch.func.hessian(lambda c: layer(c)[0][0]))
    with pytest.raises(UnsupportedDerivativeError, match="smoothed"):
        third(cost)


def test_rows_without_a_solution_are_exactly_zero() -> None:
    import cvxpy as cp

    u, x = cp.Parameter(), cp.Variable()
    problem = cp.Problem(cp.Minimize(cp.square(x)), [x >= 1, x <= u])
    layer = Layer(problem, [u], [x], derivative="smoothed", on_failure="nan")
    values = torch.tensor([2.0, 0.0], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(layer(values)[0].sum(), values, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), values)
    assert first[1].item() == 0.0
    assert second[1].item() == 0.0
    assert bool(torch.isfinite(second).all())


@each_problem
def test_the_gradient_is_that_of_numpy(problem: SmoothedProblem) -> None:
    derivative = cvxlayer.Smoothed(mu=MU)
    evaluator = cvxlayer.Layer(*problem.build(), derivative=derivative)._evaluator
    evaluation = evaluator.evaluate(list(problem.values), [0.0] * len(problem.values))
    reading = evaluation.read_outputs()
    bars = [np.cos(np.arange(part.size)).reshape(part.shape) for part in reading.arrays]
    expected = reading.pull_back(bars, [True] * len(problem.values))
    leaves = [value.requires_grad_() for value in tensors(problem)]
    answers = layer_of(problem)(*leaves)
    loss = sum((a * torch.tensor(bar)).sum() for a, bar in zip(answers, bars, strict=True))
    for ours, right in zip(torch.autograd.grad(loss, leaves), expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), right, rtol=1e-10, atol=1e-12)


def test_the_figures_of_the_documentation() -> None:
    """docs/modes.md, "An example"."""
    found = {}
    for mu in (0.1, 0.01):
        layer = Layer(*PROBLEMS[0].build(), derivative=cvxlayer.Smoothed(mu=mu))
        (values,) = (value.requires_grad_() for value in tensors(PROBLEMS[0]))
        (choice,) = layer(values)
        torch.testing.assert_close(choice, torch.eye(4).double()[0], rtol=0, atol=1e-8)
        (choice[0] - choice[2]).backward()
        found[mu] = values.grad.numpy()
    np.testing.assert_allclose(found[0.1], [-1.13, 0.14, 0.93, 0.05], atol=0.005)
    np.testing.assert_allclose(found[0.01], [-0.52, 0.06, 0.45, 0.02], atol=0.005)
