# SPDX-License-Identifier: Apache-2.0
"""The older `vmap` inside of PyTorch, by which `is_grads_batched=True` maps cotangents.

Also in `gradcheck(check_batched_grad=True)` and `torch.autograd.functional` with `vectorize=True`.
It does not ask a function for its `vmap` rule but hands its batched tensors to `forward`, so the
rule is applied there. It may go when PyTorch uses `torch.func.vmap` in these places.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd import Function

_is_legacy = torch._C._functorch.is_legacy_batchedtensor  # pyright: ignore


class MapInfo(NamedTuple):
    """What a `vmap` rule is told, as by `torch.func`."""

    batch_size: int


def is_batched(tensors: Sequence[torch.Tensor | None]) -> bool:
    """Tell whether some tensor is a batch of the older `vmap`."""
    return any(tensor is not None and _is_legacy(tensor) for tensor in tensors)


def apply_rule(
    function: type[Function], engine: Any, tensors: Sequence[torch.Tensor | None]
) -> Any:
    """Apply a function to tensors some of which are batches, by its `vmap` rule."""
    # The level of the innermost map, which is all there is: asking means to enter one and leave.
    level = torch._C._vmapmode_increment_nesting() - 1  # pyright: ignore
    torch._C._vmapmode_decrement_nesting()  # pyright: ignore
    is_mapped = [is_batched([tensor]) for tensor in tensors]
    # The size that is passed is for tensors that are not batches; these are left alone.
    plain = [
        torch._remove_batch_dim(tensor, level, 1, 0) if mapped else tensor  # pyright: ignore
        for tensor, mapped in zip(tensors, is_mapped, strict=True)
    ]
    size = next(t.shape[0] for t in itertools.compress(plain, is_mapped) if t is not None)
    in_dims = (None, *(0 if mapped else None for mapped in is_mapped))
    outputs, out_dims = function.vmap(MapInfo(size), in_dims, engine, *plain)
    if not isinstance(outputs, tuple):
        return torch._add_batch_dim(outputs, out_dims, level)  # pyright: ignore
    return tuple(
        torch._add_batch_dim(output, dim, level)  # pyright: ignore
        for output, dim in zip(outputs, out_dims, strict=True)
    )
