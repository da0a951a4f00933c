# SPDX-License-Identifier: Apache-2.0
"""How a pytree of arrays lies in rows (batch, n), one row for each independent instance."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

from cvxlayer.differentiate.array_ops import Array, ArrayOps
from cvxlayer.errors import ParameterValueError, ShapeError


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """The shapes of a pytree of real arrays whose first dimensions are those of a batch.

    Attributes:
        ops: the framework.
        definition: the structure of the pytree.
        shapes: of each leaf, without the batch.
        dtypes: of each leaf.
        batch_shape: the dimensions that all leaves share.
    """

    ops: ArrayOps
    definition: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    batch_shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number n of unknowns of an instance."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def num_rows(self) -> int:
        """The number of instances."""
        return math.prod(self.batch_shape)

    @property
    def dtype(self) -> Any:
        """The dtype of the rows: what those of the leaves promote to."""
        return functools.reduce(self.ops.numpy.promote_types, self.dtypes)

    def pack(self, tree: Any, name: str) -> Array:
        """Return the rows of a pytree of these shapes.

        Raises:
            ShapeError: the structure or a shape is another one; `name` says whose.
        """
        leaves, definition = self.ops.flatten(tree)
        if definition != self.definition:
            raise ShapeError(
                f"{name} has the structure {definition}; it must be that of the initial guess, "
                f"{self.definition}."
            )
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            if not self.ops.is_array(leaf) or tuple(leaf.shape) != self.batch_shape + shape:
                raise ShapeError(
                    f"{name} has a leaf of shape {tuple(getattr(leaf, 'shape', ()))}; it must have "
                    f"that of the initial guess, {self.batch_shape + shape}."
                )
        rows = [self.ops.cast(leaf, self.dtype).reshape(self.num_rows, -1) for leaf in leaves]
        return rows[0] if len(rows) == 1 else self.ops.numpy.concatenate(rows, 1)

    def unpack(self, rows: Array) -> Any:
        """Return the pytree that lies in rows."""
        leaves: list[Array] = []
        start = 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            stop = start + math.prod(shape)
            part = rows[:, start:stop].reshape(self.batch_shape + shape)
            leaves.append(self.ops.cast(part, dtype))
            start = stop
        return self.ops.unflatten(self.definition, leaves)


def describe(ops: ArrayOps, tree: Any, batch_dims: int) -> Layout:
    """Return the layout of an initial guess.

    Raises:
        ParameterValueError: a leaf is no array of real floating-point numbers.
        ShapeError: there is no leaf, or leaves differ in their batch dimensions.
    """
    leaves, definition = ops.flatten(tree)
    if not leaves:
        raise ShapeError("The initial guess has no arrays. Give one of the shape of the solution.")
    for leaf in leaves:
        if not ops.is_array(leaf) or not ops.is_real(leaf):
            kind = f"of dtype {leaf.dtype}" if ops.is_array(leaf) else f"a {type(leaf).__name__}"
            raise ParameterValueError(
                f"A leaf of the initial guess is {kind}; it must be an array of real "
                "floating-point numbers. Convert it, and split complex numbers into two parts."
            )
    batch_shape = tuple(leaves[0].shape[:batch_dims])
    for leaf in leaves:
        if leaf.ndim < batch_dims or tuple(leaf.shape[:batch_dims]) != batch_shape:
            raise ShapeError(
                f"A leaf of the initial guess has shape {tuple(leaf.shape)}; with "
                f"batch_dims={batch_dims} it must begin with the batch, {batch_shape}."
            )
    shapes = tuple(tuple(leaf.shape[batch_dims:]) for leaf in leaves)
    return Layout(ops, definition, shapes, tuple(leaf.dtype for leaf in leaves), batch_shape)


def flatten_batch(ops: ArrayOps, tree: Any, layout: Layout, name: str) -> Array:
    """Return any pytree of arrays with the batch of a layout as rows of their own length.

    Raises:
        ShapeError: an array does not begin with the batch.
    """
    leaves, _ = ops.flatten(tree)
    count = len(layout.batch_shape)
    for leaf in leaves:
        if not ops.is_array(leaf) or tuple(leaf.shape[:count]) != layout.batch_shape:
            raise ShapeError(
                f"{name} has a value of shape {tuple(getattr(leaf, 'shape', ()))}; it must begin "
                f"with the batch, {layout.batch_shape}."
            )
    rows = [ops.cast(leaf, layout.dtype).reshape(layout.num_rows, -1) for leaf in leaves]
    return ops.numpy.concatenate(rows, 1)
