# SPDX-License-Identifier: Apache-2.0
"""Tensors that a function captures, from a closure or a module, made into arguments.

PyTorch differentiates what an autograd function is *given*. A weight that the user's
residual reaches in another way would silently get no gradient. Every operation on tensors
can be watched, though: one evaluation finds the captured tensors, and later evaluations put
others in their place.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from cvxlayer.differentiate.array_ops import Arrays, RowFunction
from cvxlayer.errors import UnsupportedDerivativeError


class _Find(TorchFunctionMode):
    """Lists the tensors that operations take, but that neither were given nor are computed."""

    def __init__(self, given: Sequence[torch.Tensor]) -> None:
        super().__init__()
        # Tensors are held, so that no identity is used twice.
        self._known: dict[int, torch.Tensor] = {id(tensor): tensor for tensor in given}
        self.met: dict[int, torch.Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor) and id(leaf) not in self._known:
                self._known[id(leaf)] = self.met[id(leaf)] = leaf
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._known[id(leaf)] = leaf
        return result


class _Replace(TorchFunctionMode):
    """Puts values in place of captured tensors, in every operation."""

    def __init__(self, values: dict[int, torch.Tensor], given: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._values = values
        self._given = {id(tensor) for tensor in (*given, *values.values())}

    def _look_up(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if (
            isinstance(leaf, torch.nn.Parameter)
            and id(leaf) not in self._values.keys() | self._given
        ):
            raise UnsupportedDerivativeError(
                f"The function uses a parameter of shape {tuple(leaf.shape)} that it did not use "
                "when it was called first, so that its derivative would be lost. Pass it as an "
                "argument."
            )
        return self._values.get(id(leaf), leaf)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = pytree.tree_map(self._look_up, (args, kwargs or {}))
        return func(*args, **kwargs)


# Packages whose functions hold no module of the user's.
_NO_MODULES_IN = ("torch", "numpy", "scipy")
# A module's dictionary of parameters or buffers, a name in it, and the place of its value.
_Slot = tuple[dict[str, Any], str, int]


def lift(
    functions: Sequence[RowFunction], rows: torch.Tensor, arrays: Arrays
) -> tuple[list[RowFunction], Arrays]:
    """Return functions that take what they captured as further arrays, and those tensors.

    Constants are lifted too: they have to be the same in the derivative as in the solve.

    Raises:
        UnsupportedDerivativeError: an operation hides a tensor that requires a gradient.
    """
    captured: dict[int, torch.Tensor] = {}
    for function in functions:
        captured.update(_find(function, rows, arrays))
    places = {key: len(arrays) + place for place, key in enumerate(captured)}
    slots = _find_slots(functions, places) if captured else []
    lifted = [_lifted(function, len(arrays), captured, slots) for function in functions]
    everything = [tensor.detach() for tensor in (rows, *arrays, *captured.values())]
    for function in lifted:
        with torch.enable_grad():
            value = function(everything[0], tuple(everything[1:]))
        if _has_derivative(value):
            raise UnsupportedDerivativeError(
                "The function uses a tensor that requires a gradient inside an operation that "
                "hides it, such as a `torch.jit` module or another `autograd.Function`; its "
                "gradient would be lost. Pass that tensor as an argument."
            )
    return lifted, tuple(captured.values())


def _find(function: RowFunction, rows: torch.Tensor, arrays: Arrays) -> dict[int, torch.Tensor]:
    """Return the tensors that a function captures, by identity.

    What transforms inside of the function return comes from no operation, and is met too. But
    it is new at every evaluation, where captured tensors are the same: hence two.
    """
    given = [tensor.detach() for tensor in (rows, *arrays)]
    met: list[dict[int, torch.Tensor]] = []
    for _ in range(2):
        with _Find(given) as find, torch.no_grad():
            function(given[0], tuple(given[1:]))
        met.append(find.met)
    return {key: tensor for key, tensor in met[0].items() if key in met[1]}


def _lifted(
    function: RowFunction, count: int, captured: dict[int, torch.Tensor], slots: list[_Slot]
) -> RowFunction:
    if not captured:
        return function

    def call(rows: torch.Tensor, arrays: Arrays) -> torch.Tensor:
        values = dict(zip(captured, arrays[count:], strict=True))
        # Between solve and derivative a module may have got other parameters, as after
        # `torch.func.functional_call`. What is in a captured tensor's place stands for it.
        for tensors, name, place in slots:
            values[id(tensors[name])] = arrays[place]
        with _Replace(values, (rows, *arrays)):
            return function(rows, arrays[:count])

    return call


def _find_slots(functions: Sequence[RowFunction], places: dict[int, int]) -> list[_Slot]:
    """Return where modules that the functions can reach hold captured tensors."""
    slots: list[_Slot] = []
    seen: set[int] = set()
    reachable: list[Any] = list(functions)
    while reachable:
        value = reachable.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.nn.Module):
            for tensors in (value._parameters, value._buffers):  # pyright: ignore[reportPrivateUsage]
                slots += [
                    (tensors, k, places[id(t)]) for k, t in tensors.items() if id(t) in places
                ]
        reachable += _neighbors(value)
    return slots


def _neighbors(value: Any) -> list[Any]:
    """Return what a function, an object or a container refers to directly."""
    if isinstance(value, types.FunctionType):
        if value.__module__ and value.__module__.split(".")[0] in _NO_MODULES_IN:
            return []
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        named = [value.__globals__.get(name) for name in value.__code__.co_names]
        return [*cells, *named, value.__defaults__, value.__kwdefaults__]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set):
        return list(value)
    if isinstance(value, torch.Tensor | type | types.ModuleType | str | bytes | int | float):
        return []
    return list(getattr(value, "__dict__", {}).values())


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _has_derivative(tensor: torch.Tensor) -> bool:
    if tensor.requires_grad:
        return True
    return forward_ad.unpack_dual(tensor).tangent is not None
