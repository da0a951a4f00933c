# SPDX-License-Identifier: Apache-2.0
"""What holds at a solution: roots, fixed points and optimality conditions as F(z, θ) = 0."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from cvxlayer.differentiate.array_ops import Array, ArrayOps, Arrays, RowFunction
from cvxlayer.differentiate.linear_operator import Structure
from cvxlayer.errors import ShapeError
from cvxlayer.families.layout import Layout, flatten_batch

# Arrays → the positional arguments that follow the unknown in a user's function.
Rebuild = Callable[[Arrays], tuple[Any, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """An equation in rows, before its captured arrays are lifted.

    Attributes:
        layout: of the user's unknown, which comes first in every row.
        functions: `residual`, and what solvers can use: `objective`, `conditions`.
        structure: of ∂F/∂z.
        num_equalities: multipliers of equalities, next in every row.
        num_inequalities: multipliers of inequalities, last.
    """

    layout: Layout
    functions: Mapping[str, RowFunction]
    structure: Structure = Structure.GENERAL
    num_equalities: int = 0
    num_inequalities: int = 0

    @property
    def num_multipliers(self) -> int:
        """The number of unknowns behind the user's."""
        return self.num_equalities + self.num_inequalities

    @property
    def size(self) -> int:
        """The length of a row."""
        return self.layout.size + self.num_multipliers

    def extend(self, rows: Array) -> Array:
        """Return rows of the user's unknown with zero multipliers behind."""
        if not self.num_multipliers:
            return rows
        numpy = self.layout.ops.numpy
        zeros = numpy.stack([numpy.zeros_like(rows[:, 0])] * self.num_multipliers, 1)
        return numpy.concatenate([rows, zeros], 1)

    def multipliers(self, rows: Array) -> tuple[Array, Array] | None:
        """Return the multipliers in rows, (batch..., count) each; None without constraints."""
        if not self.num_multipliers:
            return None
        middle = self.layout.size + self.num_equalities
        batch = self.layout.batch_shape
        return (
            rows[:, self.layout.size : middle].reshape((*batch, self.num_equalities)),
            rows[:, middle:].reshape((*batch, self.num_inequalities)),
        )


class AbstractCondition(ABC):
    """What a user's function has to do with the solution."""

    function: Callable[..., Any]

    @abstractmethod
    def build(self, layout: Layout, initial: Any, theta: tuple[Any, ...], rebuild: Rebuild) -> Form:
        """Return the equation for an unknown of a layout."""


@dataclasses.dataclass(frozen=True)
class RootCondition(AbstractCondition):
    """F(z, θ) = 0 as the user wrote it."""

    function: Callable[..., Any]

    def build(self, layout: Layout, initial: Any, theta: tuple[Any, ...], rebuild: Rebuild) -> Form:
        """Return the user's residual in rows."""
        del initial, theta

        def residual(rows: Array, arrays: Arrays) -> Array:
            value = self.function(layout.unpack(rows), *rebuild(arrays))
            return layout.pack(value, "The residual")

        return Form(layout, {"residual": residual})


@dataclasses.dataclass(frozen=True)
class FixedPointCondition(AbstractCondition):
    """z − f(z, θ) = 0."""

    function: Callable[..., Any]

    def build(self, layout: Layout, initial: Any, theta: tuple[Any, ...], rebuild: Rebuild) -> Form:
        """Return z − f in rows."""
        del initial, theta

        def residual(rows: Array, arrays: Arrays) -> Array:
            value = self.function(layout.unpack(rows), *rebuild(arrays))
            return rows - layout.pack(value, "The value of the map")

        return Form(layout, {"residual": residual})


@dataclasses.dataclass(frozen=True)
class MinimumCondition(AbstractCondition):
    """The KKT conditions of: minimize f(x, θ) subject to h(x, θ) = 0, g(x, θ) ≤ 0.

    The unknown is (x, ν, λ) and the residual

        (∇f + Dhᵀ ν + Dgᵀ λ,   h,   g where λ + g > 0, else −λ)

    The last block is Π(λ + g) − λ with the projection onto λ ≥ 0. Unlike the product λ g
    it leaves the Jacobian regular at every nondegenerate solution, and does not scale the
    rows of active constraints by their multipliers.
    """

    function: Callable[..., Any]
    equality: Callable[..., Any] | None = None
    inequality: Callable[..., Any] | None = None

    def build(self, layout: Layout, initial: Any, theta: tuple[Any, ...], rebuild: Rebuild) -> Form:
        """Return the conditions in rows; constraints are called once to count them."""
        parts = _Parts(self, layout, rebuild)
        if self.equality is None and self.inequality is None:
            functions = {"residual": parts.gradient, "objective": parts.objective}
            return Form(layout, functions, Structure.POSITIVE_DEFINITE)
        counts = [
            0 if constraint is None else count_rows(layout, constraint, initial, theta)
            for constraint in (self.equality, self.inequality)
        ]
        structure = Structure.GENERAL if counts[1] else Structure.SYMMETRIC

        def conditions(rows: Array, arrays: Arrays) -> Array:
            return parts.conditions(rows, arrays)

        def residual(rows: Array, arrays: Arrays) -> Array:
            values = parts.conditions(rows, arrays)
            if not counts[1]:
                return values
            numpy = layout.ops.numpy
            slope, lam = values[:, -counts[1] :], rows[:, -counts[1] :]
            last = numpy.where(lam + slope > 0, slope, -lam)
            return numpy.concatenate([values[:, : -counts[1]], last], 1)

        functions = {"residual": residual, "conditions": conditions}
        return Form(layout, functions, structure, *counts)


def count_rows(
    layout: Layout, constraint: Callable[..., Any], initial: Any, theta: tuple[Any, ...]
) -> int:
    """Return how many numbers a constraint has for each instance."""
    return flatten_batch(layout.ops, constraint(initial, *theta), layout, "A constraint").shape[1]


@dataclasses.dataclass(frozen=True, eq=False)
class _Parts:
    """Objective, gradient and constraints of a program in rows."""

    condition: MinimumCondition
    layout: Layout
    rebuild: Rebuild

    @property
    def ops(self) -> ArrayOps:
        return self.layout.ops

    def objective(self, rows: Array, arrays: Arrays) -> Array:
        value = self.condition.function(self.layout.unpack(rows), *self.rebuild(arrays))
        batch = self.layout.batch_shape
        if not self.ops.is_array(value) or tuple(value.shape) != batch:
            raise ShapeError(
                f"The objective has a value of shape {tuple(getattr(value, 'shape', ()))}; it must "
                f"have one number for each instance of the batch, {batch}."
            )
        return self.ops.cast(value, self.layout.dtype).reshape(self.layout.num_rows)

    def gradient(self, rows: Array, arrays: Arrays) -> Array:
        value, pull = self.ops.vjp(lambda point: self.objective(point, arrays), rows)
        return pull(self.ops.numpy.ones_like(value))[0]

    def conditions(self, rows: Array, arrays: Arrays) -> Array:
        """Return (∇L, h, g), each row in this order."""
        size = self.layout.size
        x, multipliers = rows[:, :size], rows[:, size:]

        def evaluate(x: Array) -> Array:
            blocks = [self.objective(x, arrays)[:, None]]
            for constraint in (self.condition.equality, self.condition.inequality):
                if constraint is not None:
                    value = constraint(self.layout.unpack(x), *self.rebuild(arrays))
                    blocks.append(flatten_batch(self.ops, value, self.layout, "A constraint"))
            return self.ops.numpy.concatenate(blocks, 1)

        numpy = self.ops.numpy
        values, pull = self.ops.vjp(evaluate, x)
        weights = numpy.concatenate([numpy.ones_like(values[:, :1]), multipliers], 1)
        return numpy.concatenate([pull(weights)[0], values[:, 1:]], 1)
