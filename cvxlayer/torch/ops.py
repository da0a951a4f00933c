# SPDX-License-Identifier: Apache-2.0
"""The layer as a function of tensors: a plain call is one fused function of autograd.

Inside of transforms, and where a gradient is itself to be differentiated, the call is made of
smaller functions instead, in `transforms`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd import Function

from cvxlayer.evaluation import Evaluation, Evaluator
from cvxlayer.plain_call import PlainCall, evaluate_plainly
from cvxlayer.program.solution import Solution
from cvxlayer.reading import PullBack, Reading
from cvxlayer.torch import compiled, tensor_calls, transforms
from cvxlayer.torch.batched_grads import is_batched
from cvxlayer.torch.conversion import (
    as_tensors,
    machine_epsilon,
    to_gradient,
    to_numpy,
    to_tensors,
)
from cvxlayer.torch.tensor_calls import TensorCall
from cvxlayer.tracing import TracedCall


def call(
    evaluator: Evaluator,
    values: Sequence[Any],
    solver_args: Mapping[str, Any] | None,
    warm_start: Any,
) -> tuple[torch.Tensor, ...]:
    """Return the outputs of a layer for one value per parameter, in call order."""
    if torch.compiler.is_compiling():
        is_plain = warm_start is None and not transforms.are_active()
        if is_plain and compiled.can_call(solver_args):
            return compiled.call(evaluator, values, solver_args)
        return _call_uncompiled(evaluator, values, solver_args, warm_start)
    if transforms.are_active():
        tensors, dtype = as_tensors(evaluator, values)
        return transforms.call(evaluator, tensors, dtype, solver_args, warm_start)
    evaluate: Callable[..., Evaluation | PlainCall] = evaluate_plainly
    if warm_start is None:
        begun = tensor_calls.call(evaluator, values, solver_args)
        if begun is not None:
            made, outputs = begun
            if made.run.is_solved:
                return _attach(made, outputs, values)
            evaluate = functools.partial(Evaluator.evaluate, begun=made.cone)
    tensors, dtype = as_tensors(evaluator, values)
    request = _Request(evaluator, solver_args, warm_start, dtype, evaluate)
    made, *outputs = _apply(_Solve, request, *tensors)
    if isinstance(made, Evaluation) and evaluator.must_raise(made):
        raise made.failure(_report(evaluator, made, outputs, dtype, tensors))
    return tuple(outputs)


def solve(
    evaluator: Evaluator,
    values: Sequence[Any],
    solver_args: Mapping[str, Any] | None,
    warm_start: Any,
) -> Solution[torch.Tensor]:
    """Return the whole `Solution` for one value per parameter, in call order."""
    if torch.compiler.is_compiling():
        return _solve_uncompiled(evaluator, values, solver_args, warm_start)
    tensors, dtype = as_tensors(evaluator, values)
    if transforms.are_active():
        return transforms.solve(evaluator, tensors, dtype, solver_args, warm_start)
    request = _Request(evaluator, solver_args, warm_start, dtype, Evaluator.evaluate)
    evaluation, *outputs = _apply(_Solve, request, *tensors)
    solution = _report(evaluator, evaluation, outputs, dtype, tensors)
    if evaluator.must_raise(evaluation):
        raise evaluation.failure(solution)
    return solution


# What one operator cannot do is done outside of the compiled graph.
_call_uncompiled: Any = torch.compiler.disable(call)
_solve_uncompiled: Any = torch.compiler.disable(solve)


def _report(
    evaluator: Evaluator,
    evaluation: Evaluation,
    outputs: Sequence[torch.Tensor],
    dtype: torch.dtype,
    tensors: Sequence[torch.Tensor],
) -> Solution[torch.Tensor]:
    again = functools.partial(transforms.gradients, evaluator, evaluation, dtype)
    (value,) = _apply(
        _Read,
        evaluation.read_value(),
        functools.partial(again, transforms.read_value),
        dtype,
        *tensors,
    )
    find_dual = functools.partial(_find_dual, evaluation, again, dtype, tensors)
    convert = functools.partial(_on_device, value.device)
    return evaluation.report(tuple(outputs), value, find_dual, convert)


def _on_device(device: torch.device, array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


def _find_dual(
    evaluation: Evaluation,
    again: Any,
    dtype: torch.dtype,
    tensors: Sequence[torch.Tensor],
    constraint: Any,
) -> Any:
    places = evaluation.solution.program.recovery.find_duals(constraint)
    reader = functools.partial(TracedCall.duals, places=places)
    reading = evaluation.read_dual(constraint)
    duals = _apply(_Read, reading, functools.partial(again, reader), dtype, *tensors)
    return duals[0] if len(duals) == 1 else duals


def _apply(function: type[Function], *args: Any) -> Any:
    """Apply an autograd function at less than the cost of a small solve.

    `Function.apply` inspects the signature of `forward` at every call, to fill in defaults.
    Ours have none, so outside of transforms and compilers what it does next is enough.
    """
    if (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()  # pyright: ignore[reportPrivateUsage]
    ):
        return function.apply(*args)
    # Past `Function.apply`, to the compiled method it ends in.
    return super(Function, function).apply(*args)  # pyright: ignore[reportAttributeAccessIssue]


def _attach(
    made: TensorCall, outputs: list[torch.Tensor], tensors: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Return the outputs as functions of the values."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _apply(_Attach, made, outputs, *tensors)
    return tuple(outputs)


class _Attach(Function):
    """θ ↦ outputs of a call that was made."""

    @staticmethod
    def forward(
        ctx: Any, made: TensorCall, outputs: list[torch.Tensor], *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        # As in `_Solve`.
        ctx.save_for_backward(*tensors)
        ctx.made = made
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        made, inputs, needs = ctx.made, ctx.saved_tensors, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or transforms.are_active() or is_batched(cotangents):
            at = made.evaluator, made, made.dtype
            found = transforms.gradients(*at, TracedCall.outputs, inputs, needs, cotangents)
        else:
            found = made.pull_back(inputs, cotangents, needs)
        return (None, None, *found)


class _Request(NamedTuple):
    """What is asked for, besides the values.

    Attributes:
        evaluator, solver_args, warm_start: as of the call.
        dtype: of real results.
        evaluate: what does it, with the arguments of `Evaluator.evaluate`.
    """

    evaluator: Evaluator
    solver_args: Mapping[str, Any] | None
    warm_start: Any
    dtype: torch.dtype
    evaluate: Callable[..., Evaluation | PlainCall]


class _Solve(Function):
    """θ ↦ (call, *outputs): solve, and pull cotangents back through the solution."""

    @staticmethod
    def forward(ctx: Any, request: _Request, *tensors: torch.Tensor) -> tuple[Any, ...]:
        epsilons = [machine_epsilon(tensor) for tensor in tensors]
        arrays = [to_numpy(tensor) for tensor in tensors]
        made = request.evaluate(
            request.evaluator, arrays, epsilons, request.solver_args, request.warm_start
        )
        ctx.set_materialize_grads(False)
        # Saved although what was made has its own copy: PyTorch then refuses a backward
        # pass after an input was changed in place.
        ctx.save_for_backward(*tensors)
        ctx.at = request, made
        return (made, *to_tensors(made.read_outputs(), request.dtype, tensors))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        request, made = ctx.at
        needs, inputs = ctx.needs_input_grad[1:], ctx.saved_tensors
        if torch.is_grad_enabled() or transforms.are_active() or is_batched(cotangents[1:]):
            at = request.evaluator, made, request.dtype
            found = transforms.gradients(*at, TracedCall.outputs, inputs, needs, cotangents[1:])
        else:
            found = _gradients(made.pull_back_outputs, needs, inputs, cotangents[1:])
        return (None, *found)


class _Read(Function):
    """θ ↦ arrays read from an evaluation at the same θ."""

    @staticmethod
    def forward(
        ctx: Any, reading: Reading, again: Any, dtype: torch.dtype, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.pull_back, ctx.again = reading.pull_back, again
        return to_tensors(reading, dtype, tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        needs, inputs = ctx.needs_input_grad[3:], ctx.saved_tensors
        if torch.is_grad_enabled() or transforms.are_active() or is_batched(cotangents):
            found = ctx.again(inputs, needs, cotangents)
        else:
            found = _gradients(ctx.pull_back, needs, inputs, cotangents)
        return (None, None, None, *found)


def _gradients(
    pull_back: PullBack,
    needs: Sequence[bool],
    inputs: Sequence[Any],
    cotangents: Sequence[torch.Tensor | None],
) -> list[torch.Tensor | None]:
    arrays = [None if bar is None else to_numpy(bar) for bar in cotangents]
    gradients = pull_back(arrays, needs)
    return [
        None if gradient is None else to_gradient(gradient, tensor)
        for tensor, gradient in zip(inputs, gradients, strict=True)
    ]
