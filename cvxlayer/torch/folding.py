# SPDX-License-Identifier: Apache-2.0
"""How `vmap` maps the cone primitives: a mapped dimension becomes part of the native batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import Function

# What comes before the right-hand sides: the engine, (P, q, A, b) and the six of a point.
_FIRST_RIGHT = 11


def fold(
    function: type[Function],
    extent: Any,
    in_dims: Sequence[int | None],
    engine: Any,
    tensors: Sequence[torch.Tensor | None],
) -> tuple[Any, Any]:
    """Apply to a mapped dimension: as right-hand sides if nothing else is mapped, else as rows."""
    if any(dim is not None for dim in in_dims[1:_FIRST_RIGHT]):
        return fold_rows(function, extent, in_dims, engine, tensors)
    size = extent.batch_size
    right: list[torch.Tensor | None] = []
    for tensor, dim in zip(tensors[_FIRST_RIGHT - 1 :], in_dims[_FIRST_RIGHT:], strict=True):
        if tensor is None:
            right.append(None)
            continue
        apart = tensor[:, None] if dim is None else tensor.movedim(dim, 1)
        apart = apart.expand(-1, size, -1, -1)
        right.append(apart.reshape(apart.shape[0], size * apart.shape[2], apart.shape[3]))
    outputs = function.apply(engine, *tensors[: _FIRST_RIGHT - 1], *right)

    def unfold(output: torch.Tensor) -> torch.Tensor:
        rows, count, length = output.shape
        return output.reshape(rows, size, count // size, length)

    return _unfolded(outputs, unfold, 1)


def fold_rows(
    function: type[Function],
    extent: Any,
    in_dims: Sequence[int | None],
    engine: Any,
    tensors: Sequence[torch.Tensor | None],
) -> tuple[Any, Any]:
    """Apply with the mapped dimension folded into the rows; what all rows share stays one row."""
    size = extent.batch_size
    fronted = [
        tensor if tensor is None or dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims[1:], strict=True)
    ]
    is_mapped = [dim is not None for dim in in_dims[1:]]
    counts = {
        tensor.shape[int(mapped)]
        for tensor, mapped in zip(fronted, is_mapped, strict=True)
        if tensor is not None
    } - {1}
    rows = counts.pop() if counts else 1

    def widen(tensor: torch.Tensor | None, mapped: bool) -> torch.Tensor | None:
        if tensor is None or (not mapped and tensor.shape[0] == 1):
            return tensor
        apart = tensor if mapped else tensor[None]
        apart = apart.expand(size, rows, *apart.shape[2:])
        return apart.reshape(size * rows, *apart.shape[2:])

    folded = [widen(tensor, mapped) for tensor, mapped in zip(fronted, is_mapped, strict=True)]
    outputs = function.apply(engine, *folded)
    return _unfolded(outputs, lambda out: out.reshape(size, rows, *out.shape[1:]), 0)


def _unfolded(
    outputs: Any, unfold: Callable[[torch.Tensor], torch.Tensor], dim: int
) -> tuple[Any, Any]:
    if isinstance(outputs, tuple):
        return tuple(unfold(output) for output in outputs), (dim,) * len(outputs)
    return unfold(outputs), dim
