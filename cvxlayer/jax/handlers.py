# SPDX-License-Identifier: Apache-2.0
"""What all primitives share: a handler of XLA, rows that lead, and batching by more rows.

An operand or result has the shape (rows, …, length), with one row for each instance. Operands
may have a single row that all instances share. `jax.vmap` multiplies the number of rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from cvxlayer.errors import MissingDependencyError, UnsupportedProblemError
from cvxlayer.program.registered import RegisteredProgram, xla_handlers

Shape = tuple[tuple[int, ...], Any]
"""(shape, dtype) of a result."""
Params = dict[str, Any]


@functools.cache
def register_handlers() -> None:
    """Make the handlers of the core known to XLA, once.

    Raises:
        MissingDependencyError: the core was built where JAX could not be imported.
    """
    handlers = xla_handlers()
    if not handlers:
        raise MissingDependencyError(
            "`cvxlayer.jax` needs the handlers that the compiled core has only if JAX was there "
            "when it was built. Build it again beside JAX: `pip install jax`, then "
            "`pip install --no-build-isolation --force-reinstall --no-deps cvxlayer` (from the "
            "sources: `pip install --no-build-isolation .`), with scikit-build-core, nanobind, "
            "cmeel-eigen, cmake and ninja installed."
        )
    for name, handler in handlers.items():
        jax.ffi.register_ffi_target(_target(name), handler, platform="cpu")


def define(name: str, shapes: Callable[..., Sequence[Shape]]) -> Primitive:
    """Return a new primitive that the handler of its name computes.

    Args:
        name: of the handler.
        shapes: the abstract operands and the parameters ↦ shapes of the results.
    """
    primitive = Primitive(f"cvxlayer_{name}")
    primitive.multiple_results = True

    def abstract(*operands: Any, **params: Any) -> list[Any]:
        return [_abstract_array(*shape, operands) for shape in shapes(*operands, **params)]

    def evaluate(*operands: Any, **params: Any) -> Any:
        return _compiled(primitive, tuple(sorted(params.items())))(*operands)

    primitive.def_abstract_eval(abstract)
    primitive.def_impl(evaluate)
    mlir.register_lowering(primitive, functools.partial(_lower, name), platform="cpu")
    mlir.register_lowering(primitive, _refuse)
    batching.primitive_batchers[primitive] = functools.partial(batch_by_rows, primitive)
    return primitive


def bind(primitive: Primitive, *operands: Any, **params: Any) -> list[Any]:
    """Bind a primitive; inside `jax.shard_map` all operands vary over the axes that any does."""
    varying = frozenset[Any]().union(*map(_varying, operands))
    if varying:
        operands = tuple(
            jax.lax.pcast(operand, tuple(missing), to="varying") if missing else operand
            for operand in operands
            for missing in [varying - _varying(operand)]
        )
    return primitive.bind(*operands, **params)


def is_zero(tangent: Any) -> bool:
    """Whether a tangent or cotangent is one of JAX's symbolic zeros."""
    return type(tangent) is ad.Zero


def zero_like(value: Any) -> Any:
    """Return the symbolic zero tangent of a value."""
    return ad.Zero(jax.typeof(value).to_tangent_aval())


def count_rows(operands: Sequence[Any]) -> int:
    """Return the number of instances that operands with rows are about."""
    rows = {operand.shape[0] for operand in operands}
    return min(rows) if 0 in rows else max(rows, default=1)


def batch_by_rows(
    primitive: Primitive, operands: Sequence[Any], axes: Sequence[int | None], **params: Any
) -> tuple[list[Any], list[int]]:
    """Batch a primitive whose results all have one row per instance: more instances."""
    # The parts of θ come first.
    size, rows, folded = fold_rows(operands, axes, len(params.get("parts", ())))
    results = bind(primitive, *folded, **params)
    return [unfold_rows(result, size, rows) for result in results], [0] * len(results)


def fold_rows(
    operands: Sequence[Any], axes: Sequence[int | None], num_shared: int
) -> tuple[int, int, list[jax.Array]]:
    """Return the batch size, the rows without it, and operands with the product as rows.

    Args:
        operands: of a primitive.
        axes: of the batch in each; None where it has none.
        num_shared: how many of them, from the first, may keep a row that all instances share.
    """
    (size,) = {
        operand.shape[axis]
        for operand, axis in zip(operands, axes, strict=True)
        if axis is not None
    }
    moved = [
        operand if axis is None else jax.numpy.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    ]
    bare = [
        operand.shape if axis is None else operand.shape[1:]
        for operand, axis in zip(moved, axes, strict=True)
    ]
    rows = {shape[0] for shape in bare}
    count = min(rows) if 0 in rows else max(rows)
    folded = []
    for place, (operand, shape) in enumerate(zip(moved, bare, strict=True)):
        is_shared = place < num_shared and axes[place] is None and shape[0] == 1
        if is_shared:
            folded.append(operand)
            continue
        full = jax.numpy.broadcast_to(operand, (size, count, *shape[1:]))
        folded.append(full.reshape(size * count, *shape[1:]))
    return size, count, folded


def unfold_rows(result: Any, size: int, rows: int) -> Any:
    """Return a result of `size · rows` rows with the batch axis back in front."""
    return result.reshape(size, rows, *result.shape[1:])


def exact_shape(rows: int, length: int, dtype: Any) -> Shape:
    """Return the shape of numbers that must survive as doubles.

    Where JAX has no float64 they travel as pairs of uint32, the same bits.
    """
    if np.dtype(dtype) == np.float64:
        return (rows, length), np.float64
    return (rows, 2 * length), np.uint32


def _target(name: str) -> str:
    return f"cvxlayer_{name}"


def _lower(name: str, context: Any, *operands: Any, **params: Any) -> Any:
    attributes = {key: _attribute(value) for key, value in params.items()}
    return jax.ffi.ffi_lowering(_target(name))(context, *operands, **attributes)


def _attribute(value: Any) -> Any:
    if isinstance(value, RegisteredProgram):
        return np.int64(value.number)
    if isinstance(value, tuple):
        return np.array(value, np.int64)
    return np.float64(value) if isinstance(value, float) else np.int64(value)


def _refuse(context: Any, *operands: Any, **params: Any) -> Any:
    del operands, params
    raise UnsupportedProblemError(
        "A `cvxlayer.jax.Layer` was compiled for the platform "
        f"{', '.join(context.module_context.platforms)}; it runs on the CPU. Put the values "
        'there with `jax.device_put(value, jax.devices("cpu")[0])`, or run the function under '
        '`jax.default_device(jax.devices("cpu")[0])`.'
    )


@functools.cache
def _compiled(primitive: Primitive, params: tuple[tuple[str, Any], ...]) -> Any:
    return jax.jit(functools.partial(primitive.bind, **dict(params)))


def _varying(operand: Any) -> frozenset[Any]:
    return jax.typeof(operand).manual_axis_type.varying


def _abstract_array(shape: tuple[int, ...], dtype: Any, operands: Sequence[Any]) -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not operands:
        return ShapedArray(shape, np.dtype(dtype))
    spec = jax.sharding.PartitionSpec(*[None] * len(shape))
    sharding = jax.sharding.NamedSharding(mesh, spec)
    return ShapedArray(
        shape,
        np.dtype(dtype),
        sharding=sharding,
        manual_axis_type=operands[0].manual_axis_type,
    )
