# SPDX-License-Identifier: Apache-2.0
"""Tensors that a function captures, from a closure or a module, made into arguments.

PyTorch differentiates what an autograd function is *given*. A weight that the user's
residual reaches in another way would silently get no gradient. Every operation on tensors
can be watched, though: one evaluation finds the captured tensors, and later evaluations put
others in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from cvxlayer.differentiate.array_ops import Arrays, RowFunction
from cvxlayer.errors import UnsupportedDerivativeError


class _Watch(TorchFunctionMode):
    """Collects tensors that operations take, but that neither were given nor computed."""

    def __init__(self, given: Sequence[torch.Tensor]) -> None:
        super().__init__()
        # Tensors are held, so that no identity is used twice.
        self._known: dict[int, Any] = {id(tensor): tensor for tensor in given}
        self.captured: dict[int, torch.Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor) and id(leaf) not in self._known:
                self.captured[id(leaf)] = self._known[id(leaf)] = leaf
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._known.setdefault(id(leaf), leaf)
        return result


class _Replace(TorchFunctionMode):
    """Puts other tensors in place of captured ones, in every operation."""

    def __init__(self, captured: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._values = {
            id(tensor): value for tensor, value in zip(captured, values, strict=True)
        }

    def _replace(self, leaf: Any) -> Any:
        return self._values.get(id(leaf), leaf) if isinstance(leaf, torch.Tensor) else leaf

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = pytree.tree_map(self._replace, (args, kwargs or {}))
        return func(*args, **kwargs)


def lift(
    functions: Sequence[RowFunction], rows: torch.Tensor, arrays: Arrays
) -> tuple[list[RowFunction], Arrays]:
    """Return functions that take what they captured as further arrays, and those tensors.

    Only tensors with a derivative or under a transform are lifted; constants stay.

    Raises:
        UnsupportedDerivativeError: an operation hides a tensor that requires a gradient.
    """
    arrays = tuple(arrays)
    given = [_detach(tensor) for tensor in (rows, *arrays)]
    watch = _Watch(given)
    with watch, torch.no_grad():
        for function in functions:
            function(given[0], tuple(given[1:]))
    captured = tuple(tensor for tensor in watch.captured.values() if _is_live(tensor))
    lifted = [_lifted(function, len(arrays), captured) for function in functions]
    constants = tuple(_detach(tensor) for tensor in captured)
    for function in lifted:
        with torch.enable_grad():
            value = function(given[0], (*given[1:], *constants))
        if _has_derivative(value):
            raise UnsupportedDerivativeError(
                "The function uses a tensor that requires a gradient inside an operation that "
                "hides it, such as a `torch.jit` module or another `autograd.Function`; its "
                "gradient would be lost. Pass that tensor as an argument."
            )
    return lifted, captured


def _lifted(function: RowFunction, count: int, captured: Arrays) -> RowFunction:
    if not captured:
        return function

    def call(rows: torch.Tensor, arrays: Arrays) -> torch.Tensor:
        with _Replace(captured, arrays[count:]):
            return function(rows, arrays[:count])

    return call


def _detach(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach()


def _is_live(tensor: torch.Tensor) -> bool:
    functorch: Any = torch._C._functorch  # pyright: ignore[reportPrivateUsage]
    if functorch.is_functorch_wrapped_tensor(tensor):
        # Deeper levels were those of transforms inside of the function: they ended with it.
        current = functorch.maybe_current_level() or 0
        return 1 <= functorch.maybe_get_level(tensor) <= current
    return _has_derivative(tensor)


def _has_derivative(tensor: torch.Tensor) -> bool:
    if tensor.requires_grad:
        return True
    return forward_ad.unpack_dual(tensor).tangent is not None


