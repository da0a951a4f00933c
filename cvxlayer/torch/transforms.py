# SPDX-License-Identifier: Apache-2.0
"""The layer as PyTorch's transforms see it: `torch.func`, forward mode, higher derivatives.

A plain call is one fused function (`ops`). Here the same call is made of tensor operations and of
the cone primitives, each of which every transform understands; `tracing` has the formulas.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch.autograd import Function, forward_ad

from cvxlayer.cone_calls import ConeCalls
from cvxlayer.errors import UnsupportedDerivativeError
from cvxlayer.evaluation import Evaluation, Evaluator
from cvxlayer.inputs import check_shapes, check_value
from cvxlayer.plain_call import PlainCall
from cvxlayer.program.engine import count_threads
from cvxlayer.program.solution import Residuals, Solution
from cvxlayer.torch.conversion import machine_epsilon, result_dtype, to_numpy, widened
from cvxlayer.torch.primitives import TorchPrimitives
from cvxlayer.torch.tensor_calls import TensorCall
from cvxlayer.torch.trace_ops import TorchOps
from cvxlayer.tracing import TracedCall, TracedProgram

Reader = Callable[[TracedCall], Sequence[torch.Tensor]]
"""What is read from a call: its outputs, its value, or some of its duals."""


def are_active() -> bool:
    """Tell whether the code runs inside of a transform that has to see through a call."""
    return (
        torch._C._are_functorch_transforms_active()  # pyright: ignore[reportPrivateUsage]
        or forward_ad._current_level >= 0  # pyright: ignore[reportPrivateUsage]
    )


def call(
    evaluator: Evaluator,
    tensors: Sequence[torch.Tensor],
    dtype: torch.dtype,
    solver_args: Mapping[str, Any] | None,
    warm_start: Any,
) -> tuple[torch.Tensor, ...]:
    """Return the outputs of a layer."""
    traced = _checked_call(evaluator, tensors, solver_args, warm_start)
    return _results(TracedCall.outputs, traced, dtype)


def solve(
    evaluator: Evaluator,
    tensors: Sequence[torch.Tensor],
    dtype: torch.dtype,
    solver_args: Mapping[str, Any] | None,
    warm_start: Any,
) -> Solution[torch.Tensor]:
    """Return the whole answer; its statistics are tensors, and its time is not known."""
    traced = _checked_call(evaluator, tensors, solver_args, warm_start)
    shape, statistics = traced.batch_shape, traced.solved.statistics
    assert statistics is not None

    def by_row(numbers: torch.Tensor) -> Any:
        return numbers.broadcast_to((math.prod(shape),)).reshape(shape)

    (value,) = _results(read_value, traced, dtype)
    return Solution(
        _results(TracedCall.outputs, traced, dtype),
        value,
        by_row(traced.solved.status),
        by_row(statistics.iterations),
        Residuals(
            by_row(statistics.primal_residual),
            by_row(statistics.dual_residual),
            by_row(statistics.gap),
        ),
        by_row(statistics.solved_by),
        math.nan,
        functools.partial(_find_dual, evaluator, traced, dtype),
        None,
        _refuse_report,
    )


def _refuse_report() -> NoReturn:
    raise UnsupportedDerivativeError(
        "`solution.derivative` looks at numbers, which there are none of inside of a transform "
        "such as `torch.func.vmap`; ask for it outside, of a plain call at the same values."
    )


def gradients(
    evaluator: Evaluator,
    made: Evaluation | PlainCall | TensorCall,
    dtype: torch.dtype,
    reader: Reader,
    inputs: Sequence[torch.Tensor],
    needs: Sequence[bool],
    cotangents: Sequence[torch.Tensor | None],
) -> tuple[torch.Tensor | None, ...]:
    """Return the gradients of a call that was already made, themselves differentiable.

    The call is repeated as the transforms see it, its solution being known, and differentiated.
    """
    is_recorded = torch.is_grad_enabled()
    calls = ConeCalls(evaluator, made.settings, made.cone)
    with torch.enable_grad():
        # Views, so that a tensor that was passed for two parameters has one gradient for each.
        views = [tensor.view_as(tensor) for tensor in inputs]
        results = _results(reader, _trace(calls, views), dtype)
        pairs = [
            (result, bar)
            for result, bar in zip(results, cotangents, strict=True)
            if bar is not None and result.requires_grad
        ]
        wanted = [view for view, need in zip(views, needs, strict=True) if need]
        found = iter(_pull_back(pairs, wanted, is_recorded))
    return tuple(next(found) if need else None for need in needs)


def _pull_back(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
    wanted: Sequence[torch.Tensor],
    is_recorded: bool,
) -> Sequence[torch.Tensor]:
    if not pairs:
        return [torch.zeros_like(view) for view in wanted]
    results, bars = zip(*pairs, strict=True)
    return torch.autograd.grad(
        results, wanted, bars, create_graph=is_recorded, materialize_grads=True
    )


def read_value(traced: TracedCall) -> tuple[torch.Tensor]:
    """Return the optimal value, as the only result."""
    return (traced.value(),)


def _find_dual(
    evaluator: Evaluator, traced: TracedCall, dtype: torch.dtype, constraint: Any
) -> Any:
    places = evaluator.program.recovery.find_duals(constraint)
    duals = _results(functools.partial(TracedCall.duals, places=places), traced, dtype)
    return duals[0] if len(duals) == 1 else duals


def _results(reader: Reader, traced: TracedCall, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    return tuple(result.to(result_dtype(result.is_complex(), dtype)) for result in reader(traced))


def _checked_call(
    evaluator: Evaluator,
    tensors: Sequence[torch.Tensor],
    solver_args: Mapping[str, Any] | None,
    warm_start: Any,
) -> TracedCall:
    batch_shape = check_shapes(evaluator.rules, [tuple(tensor.shape) for tensor in tensors])
    settings = evaluator.settings_of(solver_args, warm_start, batch_shape)
    if tensors:
        epsilons = [machine_epsilon(tensor) for tensor in tensors]
        _Check.apply(evaluator, count_threads(settings.threads), epsilons, *tensors)
    return _trace(ConeCalls(evaluator, settings), tensors)


def _trace(calls: ConeCalls, tensors: Sequence[torch.Tensor]) -> TracedCall:
    traced = TracedProgram.of(calls.evaluator.program)
    device = tensors[0].device if tensors else torch.get_default_device()
    ops = TorchOps(device)
    is_smoothed = calls.evaluator.options.smoothing > 0.0
    pattern = traced.pattern.smoothed() if is_smoothed else traced.pattern
    primitives = TorchPrimitives(calls, pattern, ops)
    return TracedCall.of(traced, ops, primitives, [widened(tensor) for tensor in tensors])


class _Check(Function):
    """Refuses values that are not legal, whatever transforms they are in; returns nothing."""

    @staticmethod
    def forward(
        evaluator: Evaluator, threads: int, epsilons: Sequence[float], *tensors: torch.Tensor
    ) -> torch.Tensor:
        for rule, tensor, epsilon in zip(evaluator.rules, tensors, epsilons, strict=True):
            check_value(rule, to_numpy(tensor), epsilon, threads)
        return torch.empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *bars: torch.Tensor) -> tuple[None, ...]:
        return (None,) * len(ctx.needs_input_grad)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[torch.Tensor, None]:
        # One more batch dimension; values are checked one by one, so they need not be aligned.
        tensors = (
            tensor if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(args[3:], in_dims[3:], strict=True)
        )
        return _Check.apply(*args[:3], *tensors), None
