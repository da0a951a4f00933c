# SPDX-License-Identifier: Apache-2.0
"""A `Solution` as a pytree, so that it may leave compiled code and enter it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax

from cvxlayer.program.derivative_report import DerivativeReport
from cvxlayer.program.solution import ConeSolution, Residuals, Solution, StartingPoint

T = TypeVar("T")


def assemble(kind: type[T], fields: Mapping[str, Any]) -> T:
    """Return a data class of these fields.

    Past its constructor, whose annotations are those of NumPy: here fields are arrays of JAX,
    and what JAX puts in their place while it takes trees apart.
    """
    instance = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(instance, name, value)
    return instance


def _register(kind: Any, constants: Sequence[str] = ()) -> None:
    names = [field.name for field in dataclasses.fields(kind) if field.name not in constants]

    def flatten(instance: Any) -> tuple[list[Any], tuple[Any, ...]]:
        values = [getattr(instance, name) for name in names]
        return values, tuple(getattr(instance, name) for name in constants)

    def unflatten(kept: tuple[Any, ...], values: Any) -> Any:
        fields = dict(zip(constants, kept, strict=True))
        return assemble(kind, {**fields, **dict(zip(names, values, strict=True))})

    jax.tree_util.register_pytree_node(kind, flatten, unflatten)


_register(Solution)
_register(DerivativeReport, ("names",))
_register(Residuals)
_register(StartingPoint, ("program", "batch_shape"))
_register(ConeSolution)
