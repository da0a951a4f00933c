# SPDX-License-Identifier: Apache-2.0
"""Finding the root: by an iterative solver or by the user's own, and judging what was found.

These are what a framework calls without derivative. `fold` serves frameworks whose `vmap`
cannot go through a loop: it says what to call instead, on the rows of all mapped instances.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from cvxlayer.differentiate.array_ops import Array, ArrayOps, Arrays
from cvxlayer.differentiate.implicit import Equation, OnFailure
from cvxlayer.errors import ConvergenceError
from cvxlayer.families.iteration import (
    AbstractSolver,
    BoundEquation,
    Loop,
    measure,
    resolve_tolerance,
)


class AbstractForward(ABC):
    """Maps an equation, initial rows and θ to arrays with one entry for each row."""

    @abstractmethod
    def __call__(self, equation: Equation, start: Array, arrays: Arrays) -> Arrays:
        """Return the arrays, without derivative."""

    @abstractmethod
    def fold(self, size: int, dims: Sequence[int | None]) -> AbstractForward:
        """Return what does the same for `size` mapped instances at once.

        Args:
            size: how many.
            dims: for each array, 0 where its first dimension is mapped, else None. The rows
                are those of the first instance, then those of the second, and so on.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class SolveByLoop(AbstractForward):
    """(z, converged, residual, iterations) of an iterative solver."""

    solver: AbstractSolver

    def __call__(self, equation: Equation, start: Array, arrays: Arrays) -> Arrays:
        """Iterate to the tolerance."""
        loop = Loop(self.solver, BoundEquation(equation, arrays))
        carry = loop.run(loop.start(start))
        return judge(equation, start, carry[0], carry[1], self.solver.tolerance, carry[-1])

    def fold(self, size: int, dims: Sequence[int | None]) -> AbstractForward:
        """Return itself: the folded equation has more rows, and that is all."""
        del size, dims
        return self


@dataclasses.dataclass(frozen=True, eq=False)
class RunUntilLast(AbstractForward):
    """What a loop carries `last` steps before it ends."""

    solver: AbstractSolver
    last: int

    def __call__(self, equation: Equation, start: Array, arrays: Arrays) -> Arrays:
        """Run the loop to count its steps, and once more up to the last ones."""
        loop = Loop(self.solver, BoundEquation(equation, arrays))
        return loop.run_until_last(start, self.last)

    def fold(self, size: int, dims: Sequence[int | None]) -> AbstractForward:
        """Return itself, as `SolveByLoop`."""
        del size, dims
        return self


@dataclasses.dataclass(frozen=True, eq=False)
class SolveByUser(AbstractForward):
    """(z, converged, residual, NaN) of a user's solver, given as a function of rows.

    Attributes:
        ops: the framework.
        solve_rows: (rows, arrays) ↦ rows.
        tolerance: what its answer is held against.
    """

    ops: ArrayOps
    solve_rows: Callable[[Array, Arrays], Array]
    tolerance: float | None

    def __call__(self, equation: Equation, start: Array, arrays: Arrays) -> Arrays:
        """Call the solver and judge its answer by the residual."""
        z = self.solve_rows(start, arrays)
        return self.judge(equation, start, z, arrays)

    def judge(self, equation: Equation, start: Array, z: Array, arrays: Arrays) -> Arrays:
        """Return the answer with its report."""
        iterations = equation.ops.numpy.full_like(z[:, 0], float("nan"))
        residual = equation.residual(z, arrays)
        return judge(equation, start, z, residual, self.tolerance, iterations)

    def fold(self, size: int, dims: Sequence[int | None]) -> AbstractForward:
        """Return a solver that calls the user's once for each mapped instance."""

        def solve_rows(rows: Array, arrays: Arrays) -> Array:
            each = rows.reshape((size, -1, *rows.shape[1:]))
            found = [
                self.solve_rows(
                    each[index],
                    tuple(
                        array if dim is None else array[index]
                        for array, dim in zip(arrays, dims, strict=True)
                    ),
                )
                for index in range(size)
            ]
            return self.ops.numpy.concatenate(found, 0)

        return dataclasses.replace(self, solve_rows=solve_rows)


def judge(
    equation: Equation,
    start: Array,
    z: Array,
    residual: Array,
    tolerance: float | None,
    iterations: Array,
) -> Arrays:
    """Return (z, converged, residual, iterations); rows that failed are back at the start.

    Raises:
        ConvergenceError: a row failed, the values are at hand, and failures raise.

    Notes:
        Failed rows are masked by the caller. Until then they have to be finite: a NaN there
        would spoil the derivative of every array that instances share.
    """
    ops = equation.ops
    error = measure(ops, z, residual)
    goal = resolve_tolerance(ops, tolerance, z.dtype)
    converged = error <= goal
    if equation.on_failure is OnFailure.RAISE and ops.is_concrete(converged):
        _raise_for(ops, converged, error, iterations, goal)
    return ops.numpy.where(converged[:, None], z, start), converged, error, iterations


def _raise_for(
    ops: ArrayOps, converged: Array, error: Array, iterations: Array, goal: float
) -> None:
    failed = np.flatnonzero(~ops.to_numpy(converged))
    if not len(failed):
        return
    rows = [int(row) for row in failed]
    worst = np.max(ops.to_numpy(error)[failed])
    most = np.max(ops.to_numpy(iterations)[failed])
    steps = "" if np.isnan(most) else f" after {int(most)} steps"
    raise ConvergenceError(
        f"{len(rows)} of {len(error)} instance(s) did not converge{steps}, at row(s) {rows[:20]}: "
        f"the residual is {worst:.1e} where {goal:.1e} was asked for. A map that expands has no "
        "fixed point that iterating would find. Start closer, raise `max_iterations` or the "
        '`tolerance`, use another `solver`, or pass `on_failure="nan"` to get NaN in these rows '
        "and zero gradients for their parameters.",
        rows,
    )
