# SPDX-License-Identifier: Apache-2.0
"""The implicit function theorem for any residual, in every mode and order.

Where F(z, θ) = 0, with A = ∂F/∂z and B = ∂F/∂θ,

    dz = −A⁻¹ B dθ            θ̄ = −Bᵀ A⁻ᵀ z̄

The rules below are differentiable themselves as long as the framework's `linear_solve` is,
and its rules stand here too: with w = A⁻¹ r,

    dw = A⁻¹ (dr − dA w)      λ = A⁻ᵀ w̄,   r̄ = λ,   (z̄, θ̄) = −∂⟨λ, A(z, θ) w⟩

so that every order follows from two primitives, the root and the linear solve.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cvxlayer.differentiate.array_ops import Array, ArrayOps, Arrays, RowFunction
from cvxlayer.differentiate.backward import AbstractInverse
from cvxlayer.differentiate.linear_operator import LinearOperator, LinearReport, Structure
from cvxlayer.errors import ConvergenceError, DerivativeWarning


class OnFailure(enum.Enum):
    """What becomes of rows without a solution or without a derivative."""

    RAISE = "raise"
    NAN = "nan"


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """F(z, θ) = 0 in rows: instances are independent, so ∂F/∂z is block diagonal.

    Attributes:
        ops: the framework.
        residual: F, of (z, arrays); z and the value are (batch, n).
        inverse: what stands for A⁻¹ in derivatives.
        structure: what is known of A.
        on_failure: what becomes of rows whose linear system was not solved.
        helpers: further functions of (rows, arrays), for whoever solves the equation.
        blocks: how many of the unknowns of a row are of which kind, for the same.
        preconditioner: an approximate A⁻¹ as a function of (right, arrays), or None.
    """

    ops: ArrayOps
    residual: RowFunction
    inverse: AbstractInverse
    structure: Structure = Structure.GENERAL
    on_failure: OnFailure = OnFailure.RAISE
    helpers: Mapping[str, RowFunction] = dataclasses.field(default_factory=dict)
    blocks: tuple[int, ...] = ()
    preconditioner: RowFunction | None = None

    def wrap(self, wrapper: Callable[[RowFunction], RowFunction]) -> Equation:
        """Return the equation with every function wrapped, as a `vmap` rule needs it."""
        return dataclasses.replace(
            self,
            residual=wrapper(self.residual),
            helpers={name: wrapper(function) for name, function in self.helpers.items()},
            preconditioner=None if self.preconditioner is None else wrapper(self.preconditioner),
        )


def push_forward(
    equation: Equation, z: Array, arrays: Arrays, tangents: Sequence[Array | None]
) -> Array:
    """Return dz = −A⁻¹ B dθ; a tangent may be None for zero. The adjoint of `pull_back`."""
    z, arrays = _guard(equation, z, arrays)
    places = [place for place, tangent in enumerate(tangents) if tangent is not None]
    if not places:
        return equation.ops.numpy.zeros_like(z)
    partial = _in_places(equation.residual, z, arrays, places)
    _, push = equation.ops.linearize(partial, *(arrays[place] for place in places))
    right = push(*(tangents[place] for place in places))
    return -equation.ops.linear_solve(equation, False, right, z, arrays)


def pull_back(
    equation: Equation, z: Array, arrays: Arrays, z_bar: Array, needs: Sequence[bool]
) -> list[Array | None]:
    """Return θ̄ = −Bᵀ A⁻ᵀ z̄ for each array that is needed. The adjoint of `push_forward`."""
    cotangents: list[Array | None] = [None] * len(arrays)
    places = [place for place, need in enumerate(needs) if need]
    if not places:
        return cotangents
    z, arrays = _guard(equation, z, arrays)
    u = equation.ops.linear_solve(equation, True, z_bar, z, arrays)
    partial = _in_places(equation.residual, z, arrays, places)
    _, pull = equation.ops.vjp(partial, *(arrays[place] for place in places))
    for place, cotangent in zip(places, pull(-u), strict=True):
        cotangents[place] = cotangent
    return cotangents


def push_forward_solve(
    equation: Equation,
    is_transposed: bool,
    w: Array,
    right_tangent: Array | None,
    primals: tuple[Array, Arrays],
    tangents: Sequence[Array | None],
) -> Array:
    """Return the tangent of w = A⁻¹ r, or of A⁻ᵀ r.

    Args:
        equation: whose linearization A is.
        is_transposed: whether w solves with Aᵀ.
        w: the solutions, (count, batch, n).
        right_tangent: that of r, or None for zero.
        primals: (z, arrays), where A is taken.
        tangents: of z and of each array; None for zero.
    """
    ops = equation.ops
    points: Arrays = (primals[0], *primals[1])
    right = ops.numpy.zeros_like(w) if right_tangent is None else right_tangent
    places = [place for place, tangent in enumerate(tangents) if tangent is not None]
    if places:

        def product(*values: Array) -> Array:
            z, *arrays = _replace(points, places, values)
            return apply_linearization(equation, is_transposed, w, z, tuple(arrays))

        _, push = ops.linearize(product, *(points[place] for place in places))
        right = right - push(*(tangents[place] for place in places))
    return solve_many(equation, is_transposed, right, *primals)


def pull_back_solve(
    equation: Equation,
    is_transposed: bool,
    w: Array,
    w_bar: Array,
    primals: tuple[Array, Arrays],
    needs: Sequence[bool],
) -> tuple[Array, list[Array | None]]:
    """Return the cotangents of r and, where needed, of z and each array; see the tangent."""
    points: Arrays = (primals[0], *primals[1])
    lam = solve_many(equation, not is_transposed, w_bar, *primals)
    cotangents: list[Array | None] = [None] * len(points)
    places = [place for place, need in enumerate(needs) if need]
    if places:
        # ⟨λ, A w⟩ = ⟨w, Aᵀ λ⟩, and Aᵀ takes one reverse pass where A would take two.
        left, right = (w, lam) if not is_transposed else (lam, w)

        def product(*values: Array) -> Array:
            z, *arrays = _replace(points, places, values)
            return apply_linearization(equation, True, right, z, tuple(arrays))

        _, pull = equation.ops.vjp(product, *(points[place] for place in places))
        for place, cotangent in zip(places, pull(-left), strict=True):
            cotangents[place] = cotangent
    return lam, cotangents


def solve_many(
    equation: Equation, is_transposed: bool, right: Array, z: Array, arrays: Arrays
) -> Array:
    """Solve for (count, batch, n) right-hand sides with the framework's own primitive."""
    return equation.ops.linear_solve(equation, is_transposed, right, z, arrays)


def apply_linearization(
    equation: Equation, is_transposed: bool, vectors: Array, z: Array, arrays: Arrays
) -> Array:
    """Return A v or Aᵀ v for each of (count, batch, n) vectors, differentiable in z and arrays."""
    operator = linear_operator(equation, is_transposed, z, arrays)
    return operator.apply(vectors)


def linear_operator(
    equation: Equation, is_transposed: bool, z: Array, arrays: Arrays
) -> LinearOperator:
    """Return A or Aᵀ at (z, θ) as what can be applied, transposed and made dense."""
    ops = equation.ops

    def at(values: Array) -> Array:
        return equation.residual(values, arrays)

    _, pull = ops.vjp(at, z)

    def apply_transposed(v: Array) -> Array:
        return pull(v)[0]

    def apply(v: Array) -> Array:
        return ops.linearize(at, z)[1](v)

    precondition = None
    if equation.preconditioner is not None:
        precondition = functools.partial(_apply_with, equation.preconditioner, arrays)
    operator = LinearOperator(
        ops, z, apply, apply_transposed, equation.structure, precondition, prefers_transposed=True
    )
    return operator.transposed() if is_transposed else operator


def _apply_with(function: RowFunction, arrays: Arrays, rows: Array) -> Array:
    return function(rows, arrays)


def invert(equation: Equation, operator: LinearOperator, right: Array) -> Array:
    """Apply `equation.inverse` to (count, batch, n) vectors; rows it fails on are NaN.

    Raises:
        ConvergenceError: a system was not solved, its values are at hand, and the
            equation's failures raise.

    Notes:
        A row that is zero on the right is zero in the solution, whatever the matrix: rows
        that the caller has masked stay out of everything.
    """
    numpy = equation.ops.numpy
    solution, report = equation.inverse.solve(operator, right)
    is_zero = numpy.all(right == 0, -1)
    is_accepted = equation.inverse.accepts(operator, report) | is_zero
    solution = numpy.where(is_zero[..., None], numpy.zeros_like(solution), solution)
    if equation.ops.is_concrete(is_accepted):
        _complain(equation, report, ~is_accepted)
    listener = equation.inverse.listener
    if listener is not None:
        equation.ops.tell(listener, report.residual, report.iterations)
    return numpy.where(is_accepted[..., None], solution, numpy.full_like(solution, float("nan")))


def _complain(equation: Equation, report: LinearReport, is_failed: Array) -> None:
    if not bool(equation.ops.numpy.any(is_failed)):
        return
    failed = equation.ops.to_numpy(is_failed)
    rows = [int(row) for row in np.flatnonzero(failed.any(0))]
    worst = np.max(equation.ops.to_numpy(report.residual)[failed])
    message = (
        f"The linear system of a derivative was not solved for row(s) {rows[:20]}: its relative "
        f"residual is {worst:.1e}. {equation.inverse.remedy}"
    )
    if equation.on_failure is OnFailure.RAISE:
        raise ConvergenceError(message, rows)
    warnings.warn(f"{message} The derivative is NaN there.", DerivativeWarning, stacklevel=2)


def _guard(equation: Equation, z: Array, arrays: Arrays) -> tuple[Array, Arrays]:
    """Refuse the second derivative where the first is an approximation.

    The derivative of an approximate gradient is not an approximation of the Hessian: it
    misses that the solution moves.
    """
    if equation.inverse.is_exact:
        return z, arrays
    message = (
        f"`{equation.inverse}` approximates first derivatives and was differentiated again, "
        "which gives no second derivative. Use `backward=Exact()`, or detach the gradient."
    )
    guarded = equation.ops.refuse_derivative((z, *arrays), message)
    return guarded[0], guarded[1:]


def _in_places(
    function: RowFunction, z: Array, arrays: Arrays, places: Sequence[int]
) -> Callable[..., Array]:
    """Return θ ↦ F(z, θ) as a function of the arrays in some places alone."""

    def partial(*values: Array) -> Array:
        return function(z, _replace(arrays, places, values))

    return partial


def _replace(arrays: Arrays, places: Sequence[int], values: Sequence[Array]) -> Arrays:
    replaced = list(arrays)
    for place, value in zip(places, values, strict=True):
        replaced[place] = value
    return tuple(replaced)
