# SPDX-License-Identifier: Apache-2.0
"""Tensors to NumPy and back: dtypes, devices, and what a value of a parameter may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cvxlayer.errors import ParameterValueError
from cvxlayer.evaluation import Evaluator
from cvxlayer.program.parameters import ParameterSpec
from cvxlayer.reading import Reading

_REALS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
_CPU = torch.device("cpu")
_INTEGERS = frozenset((torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))
# Complex dtypes, with the real one of their parts; and back, where there is one.
_REAL_OF = {torch.complex64: torch.float32, torch.complex128: torch.float64}
_COMPLEX_OF = {real: number for number, real in _REAL_OF.items()}
_EPSILON = {dtype: torch.finfo(dtype).eps for dtype in (*_REALS, *_REAL_OF)}
_FLOAT64_EPSILON = _EPSILON[torch.float64]


def to_gradient(array: np.ndarray, tensor: torch.Tensor) -> torch.Tensor:
    """Return a gradient for an input; a real value of a complex parameter has a real one."""
    if array.dtype.kind == "c" and not tensor.is_complex():
        array = np.ascontiguousarray(np.real(array))
    return to_tensor(array, tensor.dtype, tensor.device)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return the values as float64 or complex128 in host memory, without a copy where they are."""
    if tensor.dtype is not torch.float64:
        tensor = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return tensor.numpy(force=True)


def to_tensors(
    reading: Reading, dtype: torch.dtype, inputs: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Return the arrays of a reading as tensors on the device of the inputs."""
    device = inputs[0].device if inputs else torch.get_default_device()
    return tuple([to_tensor(array, dtype, device) for array in reading.arrays])


def to_tensor(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an array as a tensor of a dtype; a complex one becomes complex all the same."""
    tensor = torch.from_numpy(array)
    # Asked first, because a `.to` that has nothing to do costs as much as `from_numpy`.
    if dtype is tensor.dtype and device == _CPU:
        return tensor
    if tensor.is_complex() and not dtype.is_complex:
        dtype = _COMPLEX_OF.get(dtype, torch.complex64)
    return tensor.to(device=device, dtype=dtype)


def as_tensors(
    evaluator: Evaluator, values: Sequence[Any]
) -> tuple[Sequence[torch.Tensor], torch.dtype]:
    """Return the values as tensors on one device, and the dtype of real results.

    Python numbers are allowed and, as elsewhere in PyTorch, do not take part in promotion.
    """
    if values and all(map(_is_ordinary, values)):
        return values, torch.float64
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


def _is_ordinary(value: Any) -> bool:
    """Tell whether a value is what most calls bring, and any parameter takes."""
    return (
        isinstance(value, torch.Tensor)
        and value.dtype is torch.float64
        and value.is_cpu
        and value.layout is torch.strided
    )


def _check_tensor(spec: ParameterSpec, tensor: torch.Tensor, first: torch.Tensor | None) -> None:
    name = spec.name
    if first is not None and tensor.device != first.device:
        raise ParameterValueError(
            f"The value of `{name}` is on the device {tensor.device}, an earlier one on "
            f"{first.device}. Move all values to one device."
        )
    is_complex = spec.is_complex and tensor.dtype in _REAL_OF
    if not is_complex and tensor.dtype not in _REALS and tensor.dtype not in _INTEGERS:
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


def machine_epsilon(tensor: torch.Tensor) -> float:
    """Return the machine epsilon of a value: what counts as rounding in it."""
    return _EPSILON.get(tensor.dtype, _FLOAT64_EPSILON)


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Return a value in the dtype that the engine computes in; differentiable."""
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def result_dtype(is_complex: bool, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of a result: a complex one is complex all the same."""
    return _COMPLEX_OF.get(dtype, torch.complex64) if is_complex else dtype
