# SPDX-License-Identifier: Apache-2.0
"""Roots and their linear systems as autograd functions, of any order and under any transform.

Each hands its derivative to the rules in `differentiate.implicit`, which call `LinearSolve`
again: that is where the higher orders come from. `vmap` folds mapped instances into rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import Function

from cvxlayer.differentiate import implicit
from cvxlayer.differentiate.array_ops import Arrays, RowFunction
from cvxlayer.differentiate.implicit import Equation
from cvxlayer.errors import UnsupportedDerivativeError
from cvxlayer.torch import batched_grads

Dims = tuple[Any, ...]


class _Constant(Function):
    """(equation, function, start, *θ) ↦ arrays with rows first, without derivative."""

    @staticmethod
    def forward(
        equation: Equation, function: Any, start: torch.Tensor, *arrays: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        return function(equation, start, arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *inputs: Any) -> tuple[Any, Any]:
        return _fold(_Constant, info.batch_size, in_dims, inputs)


class _Root(Function):
    """(equation, function, start, *θ) ↦ (z, *statistics): z is a root of the equation."""

    @staticmethod
    def forward(
        equation: Equation, function: Any, start: torch.Tensor, *arrays: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        return function(equation, start, arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.equation = inputs[0]
        ctx.num_statistics = len(output) - 1
        ctx.save_for_backward(output[0], *inputs[3:])
        ctx.save_for_forward(output[0], *inputs[3:])

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[Any, ...]:
        z_bar, needs = cotangents[0], ctx.needs_input_grad[3:]
        if z_bar is None:
            return (None, None, None, *(None for _ in needs))
        z, *arrays = ctx.saved_tensors
        return (
            None,
            None,
            None,
            *implicit.pull_back(ctx.equation, z, tuple(arrays), z_bar, needs),
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        z, *arrays = ctx.saved_tensors
        dz = implicit.push_forward(ctx.equation, z, tuple(arrays), tangents[3:])
        return (dz, *(None for _ in range(ctx.num_statistics)))

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *inputs: Any) -> tuple[Any, Any]:
        return _fold(_Root, info.batch_size, in_dims, inputs)


@dataclasses.dataclass(frozen=True, eq=False)
class _System:
    """Which linear system: with A = ∂F/∂z of an equation, or with Aᵀ."""

    equation: Equation
    is_transposed: bool


class _LinearSolve(Function):
    """(system, right, z, *θ) ↦ A⁻¹ right, or A⁻ᵀ right; right is 3-D."""

    @staticmethod
    def forward(
        system: _System, right: torch.Tensor, z: torch.Tensor, *arrays: torch.Tensor
    ) -> torch.Tensor:
        operator = implicit.linear_operator(system.equation, system.is_transposed, z, arrays)
        return implicit.invert(system.equation, operator, right)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.system = inputs[0]
        ctx.save_for_backward(output, *inputs[2:])
        ctx.save_for_forward(output, *inputs[2:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad[2:]
        if cotangents[0] is None:
            return (None, None, *(None for _ in needs))
        w, z, *arrays = ctx.saved_tensors
        right_bar, others = implicit.pull_back_solve(
            ctx.system.equation,
            ctx.system.is_transposed,
            w,
            cotangents[0],
            (z, tuple(arrays)),
            needs,
        )
        return (None, right_bar, *others)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> torch.Tensor:
        w, z, *arrays = ctx.saved_tensors
        equation, is_transposed = ctx.system.equation, ctx.system.is_transposed
        return implicit.push_forward_solve(
            equation, is_transposed, w, tangents[1], (z, tuple(arrays)), tangents[2:]
        )

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *inputs: Any) -> tuple[torch.Tensor, int]:
        system, right, z, *arrays = inputs
        size = info.batch_size
        right = _to_front(right, in_dims[1], size)
        if all(dim is None for dim in in_dims[2:]):
            # One matrix, more right-hand sides: they share its factorization.
            many = right.reshape(-1, *right.shape[2:])
            return _LinearSolve.apply(system, many, z, *arrays).reshape(right.shape), 0
        z = _to_front(z, in_dims[2], size)
        arrays, dims = _front_arrays(arrays, in_dims[3:])
        equation = system.equation.wrap(_folder(size, dims))
        many = right.transpose(0, 1).reshape(right.shape[1], -1, right.shape[3])
        folded = _System(equation, system.is_transposed)
        solution = _LinearSolve.apply(folded, many, _rows(z), *arrays)
        shape = (right.shape[1], size, *right.shape[2:])
        return solution.reshape(shape).transpose(0, 1), 0


class _Refuse(Function):
    """(message, *tensors) ↦ the tensors; differentiating them raises."""

    @staticmethod
    def forward(message: str, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.message = inputs[0]

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[Any, ...]:
        raise UnsupportedDerivativeError(ctx.message)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor) -> tuple[Any, ...]:
        raise UnsupportedDerivativeError(ctx.message)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *inputs: Any) -> tuple[Any, Any]:
        return _Refuse.apply(*inputs), tuple(in_dims[1:])


def call_constant(
    equation: Equation, function: Any, start: torch.Tensor, arrays: Arrays
) -> tuple[torch.Tensor, ...]:
    """Call `function(equation, start, arrays)` without derivative; also under `vmap`."""
    constants = [array.detach() for array in arrays]
    return _Constant.apply(equation, function, start.detach(), *constants)


def root(
    equation: Equation, function: Any, start: torch.Tensor, arrays: Arrays
) -> tuple[torch.Tensor, ...]:
    """Return (z, *statistics) of `function(equation, start, arrays)`; z is differentiable."""
    return _Root.apply(equation, function, start.detach(), *arrays)


def linear_solve(
    equation: Equation,
    is_transposed: bool,
    right: torch.Tensor,
    z: torch.Tensor,
    arrays: Arrays,
) -> torch.Tensor:
    """Solve with ∂F/∂z, or its transpose, for right-hand sides (count, batch, n)."""
    system = _System(equation, is_transposed)
    if batched_grads.is_batched([right, z, *arrays]):
        return batched_grads.apply_rule(_LinearSolve, system, [right, z, *arrays])
    return _LinearSolve.apply(system, right, z, *arrays)


def refuse(arrays: Arrays, message: str) -> Arrays:
    """Return the tensors; whoever differentiates them gets UnsupportedDerivativeError."""
    return _Refuse.apply(message, *arrays)


def _fold(
    function: type[Function], size: int, in_dims: Dims, inputs: tuple[Any, ...]
) -> tuple[Any, Any]:
    """Call a function once on the rows of all mapped instances."""
    equation, forward, start, *arrays = inputs
    start = _to_front(start, in_dims[2], size)
    arrays, dims = _front_arrays(arrays, in_dims[3:])
    folded = equation.wrap(_folder(size, dims))
    outputs = function.apply(folded, forward.fold(size, dims), _rows(start), *arrays)
    return tuple(out.reshape(size, -1, *out.shape[1:]) for out in outputs), (0,) * len(outputs)


def _folder(size: int, dims: Dims) -> Callable[[RowFunction], RowFunction]:
    """Return what makes of a function of (rows, arrays) one of the rows of all instances."""

    def wrap(function: RowFunction) -> RowFunction:
        mapped = torch.func.vmap(function, in_dims=(0, dims))

        def call(rows: torch.Tensor, arrays: Arrays) -> torch.Tensor:
            value = mapped(rows.reshape(size, -1, *rows.shape[1:]), tuple(arrays))
            return value.reshape(-1, *value.shape[2:])

        return call

    return wrap


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1, *tensor.shape[2:])


def _front_arrays(arrays: Sequence[torch.Tensor], dims: Dims) -> tuple[Arrays, Dims]:
    moved = tuple(
        tensor if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(arrays, dims, strict=True)
    )
    return moved, tuple(None if dim is None else 0 for dim in dims)


def _to_front(tensor: torch.Tensor, dim: int | None, size: int) -> torch.Tensor:
    """Return the tensor with its mapped dimension first, repeated where it has none."""
    if dim is None:
        return tensor.expand(size, *tensor.shape)
    return tensor.movedim(dim, 0)
