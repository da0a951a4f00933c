# SPDX-License-Identifier: Apache-2.0
"""Tensors to NumPy and back, and the derivative as PyTorch's autograd sees it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd import Function

from cvxlayer.errors import ParameterValueError, UnsupportedDerivativeError
from cvxlayer.evaluation import Evaluation, Evaluator, PullBack, Reading
from cvxlayer.program.parameters import ParameterSpec
from cvxlayer.program.solution import Solution

_EPSILON = {
    dtype: torch.finfo(dtype).eps
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}
_INTEGERS = frozenset((torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))
_FLOAT64_EPSILON = _EPSILON[torch.float64]
# Complex dtypes, with the real one of their parts; and back, where there is one.
_REAL_OF = {torch.complex64: torch.float32, torch.complex128: torch.float64}
_COMPLEX_OF = {real: number for number, real in _REAL_OF.items()}


def call(
    evaluator: Evaluator,
    values: Sequence[Any],
    solver_args: Mapping[str, Any] | None,
    warm_start: Any,
) -> tuple[torch.Tensor, ...]:
    """Return the outputs of a layer for one value per parameter, in call order."""
    tensors, dtype = _as_tensors(evaluator, values)
    evaluation, *outputs = _apply(_Solve, evaluator, solver_args, warm_start, dtype, *tensors)
    if evaluator.must_raise(evaluation):
        raise evaluation.failure(_report(evaluation, outputs, dtype, tensors))
    return tuple(outputs)


def solve(
    evaluator: Evaluator,
    values: Sequence[Any],
    solver_args: Mapping[str, Any] | None,
    warm_start: Any,
) -> Solution[torch.Tensor]:
    """Return the whole `Solution` for one value per parameter, in call order."""
    tensors, dtype = _as_tensors(evaluator, values)
    evaluation, *outputs = _apply(_Solve, evaluator, solver_args, warm_start, dtype, *tensors)
    solution = _report(evaluation, outputs, dtype, tensors)
    if evaluator.must_raise(evaluation):
        raise evaluation.failure(solution)
    return solution


def _report(
    evaluation: Evaluation,
    outputs: Sequence[torch.Tensor],
    dtype: torch.dtype,
    tensors: Sequence[torch.Tensor],
) -> Solution[torch.Tensor]:
    (value,) = _apply(_Read, evaluation.read_value(), dtype, *tensors)
    find_dual = functools.partial(_find_dual, evaluation, dtype, tensors)
    return evaluation.report(tuple(outputs), value, find_dual)


def _find_dual(
    evaluation: Evaluation, dtype: torch.dtype, tensors: Sequence[torch.Tensor], constraint: Any
) -> Any:
    duals = _apply(_Read, evaluation.read_dual(constraint), dtype, *tensors)
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


class _Solve(Function):
    """θ ↦ (evaluation, *outputs): solve, and pull cotangents back through the solution."""

    @staticmethod
    def forward(
        evaluator: Evaluator,
        solver_args: Mapping[str, Any] | None,
        warm_start: Any,
        dtype: torch.dtype,
        *tensors: torch.Tensor,
    ) -> tuple[Any, ...]:
        epsilons = [
            _EPSILON.get(_REAL_OF.get(tensor.dtype, tensor.dtype), _FLOAT64_EPSILON)
            for tensor in tensors
        ]
        arrays = [_to_numpy(tensor) for tensor in tensors]
        evaluation = evaluator.evaluate(arrays, epsilons, solver_args, warm_start)
        return (evaluation, *_to_tensors(evaluation.read_outputs(), dtype, tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.set_materialize_grads(False)
        # Saved although the evaluation has its own copy: PyTorch then refuses a backward
        # pass after an input was changed in place.
        ctx.save_for_backward(*inputs[4:])
        ctx.pull_back = output[0].pull_back_outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        return (None, None, None, None, *_backward(ctx, ctx.needs_input_grad[4:], cotangents[1:]))


class _Read(Function):
    """θ ↦ arrays read from an evaluation at the same θ."""

    @staticmethod
    def forward(
        reading: Reading, dtype: torch.dtype, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        return _to_tensors(reading, dtype, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        del output
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[2:])
        ctx.pull_back = inputs[0].pull_back

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        return (None, None, *_backward(ctx, ctx.needs_input_grad[2:], cotangents))


class _Adjoint(Function):
    """(θ, cotangents) ↦ gradients, for a backward pass that is itself recorded.

    Its own derivative is refused. PyTorch's `once_differentiable` would not do: it cuts the
    graph silently when the cotangents are constants, though the gradients depend on θ.
    """

    @staticmethod
    def forward(
        pull_back: PullBack, needs: Sequence[bool], *tensors: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        return _gradients(pull_back, needs, tensors[: len(needs)], tensors[len(needs) :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Keep nothing: there is no derivative to compute."""

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> None:
        raise UnsupportedDerivativeError(
            "A gradient of a layer was differentiated again; this version has first "
            "derivatives only. Call `backward` or `grad` without `create_graph=True`, or "
            "detach the gradient."
        )


def _backward(
    ctx: Any, needs: Sequence[bool], cotangents: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor | None, ...]:
    inputs = ctx.saved_tensors
    if torch.is_grad_enabled():
        return _apply(_Adjoint, ctx.pull_back, needs, *inputs, *cotangents)
    return _gradients(ctx.pull_back, needs, inputs, cotangents)


def _gradients(
    pull_back: PullBack,
    needs: Sequence[bool],
    inputs: Sequence[Any],
    cotangents: Sequence[torch.Tensor | None],
) -> tuple[torch.Tensor | None, ...]:
    arrays = [None if bar is None else _to_numpy(bar) for bar in cotangents]
    return tuple(
        None if gradient is None else _to_gradient(gradient, tensor)
        for tensor, gradient in zip(inputs, pull_back(arrays, needs), strict=True)
    )


def _to_gradient(array: np.ndarray, tensor: torch.Tensor) -> torch.Tensor:
    """Return a gradient for an input; a real value of a complex parameter has a real one."""
    if array.dtype.kind == "c" and not tensor.dtype.is_complex:
        array = np.ascontiguousarray(np.real(array))
    return _to_tensor(array, tensor.dtype, tensor.device)


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return the values as float64 or complex128 in host memory, without a copy where they are."""
    if tensor.dtype is not torch.float64:
        tensor = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return tensor.numpy(force=True)


def _to_tensors(
    reading: Reading, dtype: torch.dtype, inputs: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    device = inputs[0].device if inputs else torch.get_default_device()
    return tuple(_to_tensor(array, dtype, device) for array in reading.arrays)


def _to_tensor(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an array as a tensor of a dtype; a complex one becomes complex all the same."""
    tensor = torch.from_numpy(array)
    if array.dtype.kind == "c" and not dtype.is_complex:
        dtype = _COMPLEX_OF.get(dtype, torch.complex64)
    # Asked first, because a `.to` that has nothing to do costs as much as `from_numpy`.
    if dtype is tensor.dtype and device == tensor.device:
        return tensor
    return tensor.to(device=device, dtype=dtype)


def _as_tensors(
    evaluator: Evaluator, values: Sequence[Any]
) -> tuple[list[torch.Tensor], torch.dtype]:
    """Return the values as tensors on one device, and the dtype of real results.

    Python numbers are allowed and, as elsewhere in PyTorch, do not take part in promotion.
    """
    dtype: torch.dtype | None = None
    first: torch.Tensor | None = None
    for rule, value in zip(evaluator.rules, values, strict=True):
        if isinstance(value, torch.Tensor):
            _check_tensor(rule.spec, value, first)
            if first is None:
                first, dtype = value, value.dtype
            elif value.dtype is not dtype:
                dtype = value.dtype if dtype is None else torch.promote_types(dtype, value.dtype)
        elif not isinstance(value, int | float | complex):
            raise ParameterValueError(
                f"The value of `{rule.spec.name}` is a {type(value).__name__}; this layer "
                "takes torch tensors and Python numbers. Convert it with `torch.as_tensor`."
            )
    if dtype is None or dtype in _INTEGERS:
        dtype = torch.get_default_dtype()
    dtype = _REAL_OF.get(dtype, dtype)
    device = torch.get_default_device() if first is None else first.device
    tensors = [
        value
        if isinstance(value, torch.Tensor)
        else torch.as_tensor(
            value,
            dtype=torch.complex128 if isinstance(value, complex) else torch.float64,
            device=device,
        )
        for value in values
    ]
    return tensors, dtype


def _check_tensor(spec: ParameterSpec, tensor: torch.Tensor, first: torch.Tensor | None) -> None:
    name = spec.name
    if first is not None and tensor.device != first.device:
        raise ParameterValueError(
            f"The value of `{name}` is on the device {tensor.device}, an earlier one on "
            f"{first.device}. Move all values to one device."
        )
    is_complex = spec.is_complex and tensor.dtype in _REAL_OF
    if not is_complex and tensor.dtype not in _EPSILON and tensor.dtype not in _INTEGERS:
        allowed = "complex64, complex128 or real" if spec.is_complex else "real"
        raise ParameterValueError(
            f"The value of `{name}` has the dtype {tensor.dtype}; it must be {allowed}: float16, "
            "bfloat16, float32, float64 or an integer. Convert it with "
            f"`.to(torch.{'complex128' if spec.is_complex else 'float64'})`."
        )
    if tensor.layout is not torch.strided or tensor.is_meta:
        kind = "on the meta device" if tensor.is_meta else f"of the layout {tensor.layout}"
        raise ParameterValueError(
            f"The value of `{name}` is {kind}; it must be a dense tensor with values. "
            "Convert it with `.to_dense()`, or move it to a device."
        )
