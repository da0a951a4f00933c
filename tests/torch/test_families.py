# SPDX-License-Identifier: Apache-2.0
"""Implicit functions under PyTorch's own checks and transforms."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cvxlayer.torch as cvx  # noqa: E402
from cvxlayer.errors import DerivativeCheckError, OptionError, UnsupportedDerivativeError  # noqa: E402


def tensor(values: Any) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


WEIGHT = tensor(0.4 * np.random.default_rng(0).standard_normal((2, 2)))
BIAS = tensor([0.3, -0.8])


def equilibrium(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    solve = cvx.fixed_point(lambda z, w, b: torch.tanh(w @ z + b), tolerance=1e-13)
    return solve(tensor([0.0, 0.0]), weight, bias)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return WEIGHT.clone().requires_grad_(), BIAS.clone().requires_grad_()


def test_gradcheck_passes_in_forward_and_batched_modes() -> None:
    assert torch.autograd.gradcheck(
        equilibrium, inputs(), check_forward_ad=True, check_batched_forward_grad=True
    )


def test_gradgradcheck_passes_in_forward_and_batched_modes() -> None:
    assert torch.autograd.gradgradcheck(
        equilibrium, inputs(), check_fwd_over_rev=True, check_batched_grad=True
    )


def test_functional_and_vectorized_jacobians_agree() -> None:
    function = lambda bias: equilibrium(WEIGHT, bias)  # noqa: E731
    expected = torch.func.jacrev(function)(BIAS)
    for vectorize in (False, True):
        found = torch.autograd.functional.jacobian(function, BIAS, vectorize=vectorize)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_third_derivatives_exist() -> None:
    root = cvx.root(lambda z, theta: z**3 - theta)
    function = lambda theta: root(tensor([1.0]), theta).sum()  # noqa: E731
    third = torch.func.grad(lambda t: torch.func.hessian(function)(t).sum())(tensor([2.0]))
    torch.testing.assert_close(third, tensor([10 / 27 * 2 ** (-8 / 3)]), atol=1e-10, rtol=0)


def test_nested_maps_equal_loops() -> None:
    weights, biases = torch.stack([WEIGHT, 0.5 * WEIGHT]), torch.stack([BIAS, 2 * BIAS, -BIAS])
    nested = torch.vmap(lambda w: torch.vmap(lambda b: equilibrium(w, b))(biases))(weights)
    looped = torch.stack([torch.stack([equilibrium(w, b) for b in biases]) for w in weights])
    torch.testing.assert_close(nested, looped, atol=1e-12, rtol=0)


class Block(torch.nn.Module):
    """A DEQ whose parameters only the module knows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(3, 3, dtype=torch.float64)
        self.norm = torch.nn.LayerNorm(3, dtype=torch.float64)
        self.solve = cvx.fixed_point(self.step, batch_dims=1)

    def step(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.tanh(self.norm(self.linear(z) + x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.solve(torch.zeros_like(x), x)


def test_parameters_of_a_module_get_their_gradients() -> None:
    block = Block()
    x = tensor(np.random.default_rng(1).standard_normal((4, 3)))
    block(x).sum().backward()
    z = torch.zeros_like(x)
    for _ in range(200):
        z = block.step(z, x)
    expected = torch.autograd.grad(z.sum(), list(block.parameters()))
    for parameter, gradient in zip(block.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-9, rtol=0)


def test_parameters_of_a_module_can_be_swapped_by_functional_call() -> None:
    block, x = Block(), tensor(np.random.default_rng(1).standard_normal((4, 3)))
    parameters = dict(block.named_parameters())

    def loss(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(block, values, (x,)).sum()

    found = torch.func.grad(loss)(parameters)
    block(x).sum().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-10, rtol=0)


def test_a_copied_module_differentiates_its_own_parameters() -> None:
    block = copy.deepcopy(Block())
    block(tensor(np.ones((1, 3)))).sum().backward()
    assert float(block.linear.weight.grad.abs().max()) > 0


class Hidden(torch.autograd.Function):
    """z · w, out of sight of whoever watches operations."""

    @staticmethod
    def forward(z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return z * w

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, bar: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z, w = ctx.saved_tensors
        return bar * w, bar * z


def test_a_hidden_captured_tensor_is_refused() -> None:
    weight = tensor([0.5]).requires_grad_()
    solve = cvx.fixed_point(lambda z: Hidden.apply(z, weight) + 1.0)
    with pytest.raises(UnsupportedDerivativeError, match="an operation that hides it"):
        solve(tensor([0.0]))


def test_an_argument_that_is_also_captured_counts_once() -> None:
    theta = tensor([8.0]).requires_grad_()
    solve = cvx.root(lambda z, given: z**3 - 0.5 * given - 0.5 * theta)
    (gradient,) = torch.autograd.grad(solve(tensor([1.0]), theta).sum(), theta)
    torch.testing.assert_close(gradient, tensor([1 / 12]), atol=1e-10, rtol=0)


def test_check_passes_where_the_derivative_is_right() -> None:
    solve = cvx.argmin(lambda x, theta: torch.sum(0.5 * x**2 - theta * x + 0.1 * x**4), check=True)
    solve(tensor([0.0, 0.0]), tensor([1.0, -2.0]))


@pytest.mark.parametrize("backward", [cvx.Exact(), cvx.Neumann(3)], ids=["exact", "neumann"])
def test_check_finds_a_detached_parameter(backward: Any) -> None:
    solve = cvx.fixed_point(
        lambda z, theta: 0.3 * torch.sin(z) + theta.detach() + 0.0 * theta,
        backward=backward,
        check=True,
    )
    if isinstance(backward, cvx.Neumann):
        # An approximation need not equal finite differences: only its adjoint is checked.
        solve(tensor([0.0]), tensor([1.0]))
        return
    with pytest.raises(DerivativeCheckError, match="by finite differences it is"):
        solve(tensor([0.0]), tensor([1.0]))


def test_check_needs_something_to_differentiate() -> None:
    with pytest.raises(OptionError, match="needs real arrays"):
        cvx.root(lambda z: z - 1.0, check=True)(tensor([0.0]))


def test_single_precision_stays_single() -> None:
    theta = torch.tensor([2.0], requires_grad=True)
    z = cvx.root(lambda z, theta: z**3 - theta)(torch.ones(1), theta)
    assert z.dtype is torch.float32
    z.sum().backward()
    torch.testing.assert_close(theta.grad, torch.tensor([2.0 ** (-2 / 3) / 3]))


def test_unrolling_everything_is_refused_under_vmap() -> None:
    solve = cvx.fixed_point(lambda z, b: 0.5 * z + b, solver=cvx.Picard(), backward=cvx.Unroll())
    with pytest.raises(UnsupportedDerivativeError, match=r"Use `Unroll\(last=k\)`"):
        torch.vmap(lambda b: solve(tensor([0.0]), b))(tensor([[1.0], [2.0]]))


def test_the_last_steps_unroll_under_vmap() -> None:
    solve = cvx.fixed_point(
        lambda z, b: 0.5 * z + b, solver=cvx.Picard(), backward=cvx.Unroll(last=3)
    )
    slopes = torch.vmap(torch.func.grad(lambda b: solve(tensor([0.0]), b).sum()))
    torch.testing.assert_close(slopes(tensor([[1.0], [2.0]])), tensor([[1.75], [1.75]]))


def test_a_derivative_uses_the_values_of_the_forward_pass() -> None:
    # After `functional_call` the module holds its own parameters again.
    block, x = Block(), tensor(np.random.default_rng(1).standard_normal((2, 3))).requires_grad_()
    other = {name: 0.5 * value.detach() for name, value in block.named_parameters()}
    (found,) = torch.autograd.grad(torch.func.functional_call(block, other, (x,)).sum(), x)
    block.load_state_dict(other)
    (expected,) = torch.autograd.grad(block(x).sum(), x)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_a_parameter_changed_before_backward_is_noticed() -> None:
    block = Block()
    loss = block(tensor(np.ones((1, 3)))).sum()
    with torch.no_grad():
        block.linear.weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_of_each_sample_go_through_functional_call() -> None:
    block, x = Block(), tensor(np.random.default_rng(1).standard_normal((3, 3)))
    parameters = {name: value.detach() for name, value in block.named_parameters()}

    def loss(values: dict[str, torch.Tensor], one: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(block, values, (one[None],)).sum()

    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    block(x).sum().backward()
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(each[name].sum(0), parameter.grad, atol=1e-10, rtol=0)
