# SPDX-License-Identifier: Apache-2.0
"""Matrix-free linear solvers: CG, BiCGStab, GMRES and LSMR over `ArrayOps`.

Every row of a batch, and every right-hand side, is a system of its own with its own inner
products; one that is done keeps its values while the others go on. Scalars of a system are
held as (count, batch, 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from cvxlayer.differentiate.array_ops import Array, ArrayOps, Arrays
from cvxlayer.differentiate.linear_operator import (
    AbstractLinearSolver,
    LinearOperator,
    LinearReport,
    report_residual,
)


@dataclasses.dataclass(frozen=True)
class CG(AbstractLinearSolver):
    """Conjugate gradients, for symmetric positive definite Jacobians.

    Args:
        tolerance: relative residual to reach; None for about 1e-13 in float64.
        max_iterations: None for ten times the order.
        preconditioner: `(r, *theta) ↦ M⁻¹ r` with M ≈ A, linear in r, over pytrees like the
            unknown; or None.

    Source:
        Saad, Iterative Methods for Sparse Linear Systems (2003), algorithm 9.1.
    """

    tolerance: float | None = None
    max_iterations: int | None = None
    preconditioner: Callable[..., object] | None = None

    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Return the solution of each system and its residual."""
        ops, zero = operator.ops, operator.ops.numpy.zeros_like(right)
        goal = _goal(operator, right, self.tolerance)
        z = operator.apply_preconditioner(right)

        def step(state: Arrays) -> Arrays:
            x, r, p, rho = state
            product = operator.apply(p)
            alpha = _divide(ops, rho, _dot(ops, p, product))
            x, r = x + alpha * p, r - alpha * product
            z = operator.apply_preconditioner(r)
            new_rho = _dot(ops, r, z)
            return x, r, z + _divide(ops, new_rho, rho) * p, new_rho

        start = (zero, right, z, _dot(ops, right, z))
        state, count = _iterate(operator, goal, step, start, self.max_iterations)
        return state[0], report_residual(operator, right, state[0], count)


@dataclasses.dataclass(frozen=True)
class BiCGStab(AbstractLinearSolver):
    """Stabilized biconjugate gradients, for general Jacobians, in little memory.

    Args:
        tolerance: relative residual to reach; None for about 1e-13 in float64.
        max_iterations: None for ten times the order.
        preconditioner: `(r, *theta) ↦ M⁻¹ r`, as of `CG`.

    Source:
        Saad (2003), algorithm 7.7, preconditioned from the right.
    """

    tolerance: float | None = None
    max_iterations: int | None = None
    preconditioner: Callable[..., object] | None = None

    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Return the solution of each system and its residual."""
        ops, zero = operator.ops, operator.ops.numpy.zeros_like(right)
        goal = _goal(operator, right, self.tolerance)
        shadow = right

        def step(state: Arrays) -> Arrays:
            x, r, p, rho = state
            y = operator.apply_preconditioner(p)
            v = operator.apply(y)
            alpha = _divide(ops, rho, _dot(ops, shadow, v))
            s = r - alpha * v
            z = operator.apply_preconditioner(s)
            t = operator.apply(z)
            omega = _divide(ops, _dot(ops, t, s), _dot(ops, t, t))
            r = s - omega * t
            new_rho = _dot(ops, shadow, r)
            beta = _divide(ops, new_rho, rho) * _divide(ops, alpha, omega)
            return x + alpha * y + omega * z, r, r + beta * (p - omega * v), new_rho

        start = (zero, right, right, _dot(ops, right, right))
        state, count = _iterate(operator, goal, step, start, self.max_iterations)
        return state[0], report_residual(operator, right, state[0], 2 * count)


@dataclasses.dataclass(frozen=True)
class GMRES(AbstractLinearSolver):
    """Generalized minimal residuals with restarts, for general Jacobians.

    Args:
        tolerance: relative residual to reach; None for about 1e-13 in float64.
        max_iterations: of restarts; None for ten times what the order would take.
        restart: products between restarts, and basis vectors kept.
        preconditioner: `(r, *theta) ↦ M⁻¹ r`, as of `CG`.

    Source:
        Saad (2003), algorithm 9.5; the small least-squares problem by pseudo-inverse, which
        needs no case for a basis that ends early.
    """

    tolerance: float | None = None
    max_iterations: int | None = None
    restart: int = 20
    preconditioner: Callable[..., object] | None = None

    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Return the solution of each system and its residual."""
        zero = operator.ops.numpy.zeros_like(right)
        goal = _goal(operator, right, self.tolerance)
        length = min(self.restart, operator.size)

        def step(state: Arrays) -> Arrays:
            x, r = state
            update = _minimal_residual_update(operator, r, length)
            x = x + operator.apply_preconditioner(update)
            return x, right - operator.apply(x)

        most = self.max_iterations or 10 * -(-operator.size // length)
        state, count = _iterate(operator, goal, step, (zero, right), most)
        return state[0], report_residual(operator, right, state[0], (length + 1) * count)


def _minimal_residual_update(operator: LinearOperator, r: Array, length: int) -> Array:
    """Return u in the Krylov space of A M⁻¹ and r for which ‖r − A M⁻¹ u‖ is least."""
    ops, numpy = operator.ops, operator.ops.numpy
    beta = _length(ops, r)
    steps = ops.eye(length + 1, r)
    # Basis vectors and columns of the Hessenberg matrix are put in place by one-hot masks:
    # frameworks agree on products, not on how to assign to a part of an array.
    basis = steps[0][:, None] * _divide(ops, r, beta)[..., None, :]
    columns = numpy.zeros_like(r[..., :1, None]) * steps[:, :length]

    def arnoldi(state: Arrays) -> Arrays:
        basis, columns, mask = state
        current = numpy.einsum("...kn,k->...n", basis, mask)
        w = operator.apply(operator.apply_preconditioner(current))
        # Orthogonalized twice: once loses digits that the residual needs.
        first = numpy.einsum("...kn,...n->...k", basis, w)
        w = w - numpy.einsum("...kn,...k->...n", basis, first)
        again = numpy.einsum("...kn,...n->...k", basis, w)
        w = w - numpy.einsum("...kn,...k->...n", basis, again)
        height = _length(ops, w)
        floor = numpy.finfo(r.dtype).eps * _length(ops, first)
        height = numpy.where(height > floor, height, numpy.zeros_like(height))
        following = numpy.roll(mask, 1)
        column = first + again + height * following
        basis = basis + following[:, None] * _divide(ops, w, height)[..., None, :]
        return basis, columns + column[..., :, None] * mask[:length], following

    state = ops.while_loop(lambda state: state[2][length] == 0, arnoldi, (basis, columns, steps[0]))
    basis, columns, _ = state
    coefficients = numpy.linalg.pinv(columns)[..., 0] * beta
    return numpy.einsum("...kn,...k->...n", basis[..., :length, :], coefficients)


@dataclasses.dataclass(frozen=True)
class LSMR(AbstractLinearSolver):
    """Least squares by Golub–Kahan bidiagonalization: general Jacobians, also singular ones.

    Args:
        tolerance: ‖Aᵀ r‖ to reach relative to ‖Aᵀ b‖; None for about 1e-13 in float64.
        max_iterations: None for ten times the order.
        preconditioner: `(r, *theta) ↦ M⁻¹ r`, as of `CG`.

    Notes:
        Of a singular consistent system this is the shortest solution. Conditioning enters
        squared, as in the normal equations.

    Source:
        Fong & Saunders, SIAM J. Sci. Comput. 33 (2011), section 2.
    """

    tolerance: float | None = None
    max_iterations: int | None = None
    preconditioner: Callable[..., object] | None = None

    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Return the solution of each system and its residual."""
        ops = operator.ops
        adjoint = operator.transposed()

        def product(v: Array) -> Array:
            return operator.apply(operator.apply_preconditioner(v))

        def product_transposed(u: Array) -> Array:
            return adjoint.apply_preconditioner(adjoint.apply(u))

        step = _bidiagonalization_step(ops, product, product_transposed)
        start = _bidiagonalization_start(ops, right, product_transposed)
        goal = _goal(operator, start[1], self.tolerance)
        state, count = _iterate(operator, goal, step, start, self.max_iterations)
        solution = operator.apply_preconditioner(state[0])
        return solution, report_residual(operator, right, solution, 2 * count)


def _bidiagonalization_start(
    ops: ArrayOps, right: Array, product_transposed: Callable[[Array], Array]
) -> Arrays:
    zero = ops.numpy.zeros_like(right)
    beta = _length(ops, right)
    u = _divide(ops, right, beta)
    v = product_transposed(u)
    alpha = _length(ops, v)
    v = _divide(ops, v, alpha)
    one = ops.numpy.ones_like(alpha)
    # The second entry is what `_iterate` watches: its length is ‖Aᵀ r‖.
    return zero, alpha * beta, u, v, alpha, alpha, one, one, one, 0 * one, v, zero


def _bidiagonalization_step(
    ops: ArrayOps,
    product: Callable[[Array], Array],
    product_transposed: Callable[[Array], Array],
) -> Callable[[Arrays], Arrays]:
    """Return one step of LSMR, in the letters of the paper."""

    def hypot(a: Array, b: Array) -> Array:
        return ops.numpy.sqrt(a * a + b * b)

    def step(state: Arrays) -> Arrays:
        x, zeta_bar, u, v, alpha, alpha_bar, rho, rho_bar, c_bar, s_bar, h, h_bar = state
        u = product(v) - alpha * u
        beta = _length(ops, u)
        u = _divide(ops, u, beta)
        v = product_transposed(u) - beta * v
        alpha = _length(ops, v)
        v = _divide(ops, v, alpha)

        old_rho, rho = rho, hypot(alpha_bar, beta)
        c, s = _divide(ops, alpha_bar, rho), _divide(ops, beta, rho)
        theta, alpha_bar = s * alpha, c * alpha
        theta_bar, old_rho_bar = s_bar * rho, rho_bar
        rho_bar = hypot(c_bar * rho, theta)
        c_bar, s_bar = _divide(ops, c_bar * rho, rho_bar), _divide(ops, theta, rho_bar)
        zeta, zeta_bar = c_bar * zeta_bar, -s_bar * zeta_bar

        h_bar = h - _divide(ops, theta_bar * rho, old_rho * old_rho_bar) * h_bar
        x = x + _divide(ops, zeta, rho * rho_bar) * h_bar
        h = v - _divide(ops, theta, rho) * h
        return x, zeta_bar, u, v, alpha, alpha_bar, rho, rho_bar, c_bar, s_bar, h, h_bar

    return step


def default_tolerance(ops: ArrayOps, dtype: object) -> float:
    """Return the relative residual that iterations are asked for: 1e-13 in float64."""
    return float(ops.numpy.finfo(dtype).eps) ** 0.83


def _goal(operator: LinearOperator, right: Array, tolerance: float | None) -> Array:
    if tolerance is None:
        tolerance = default_tolerance(operator.ops, right.dtype)
    return tolerance * _length(operator.ops, right)


def _iterate(
    operator: LinearOperator,
    goal: Array,
    step: Callable[[Arrays], Arrays],
    start: Arrays,
    most: int | None,
) -> tuple[Arrays, Array]:
    """Step until the second array of the state is no longer than `goal`, system by system.

    Returns:
        The state, and the number of steps of each system, (count, batch).
    """
    ops, numpy = operator.ops, operator.ops.numpy
    most = 10 * operator.size if most is None else most
    count = numpy.zeros_like(goal)

    def is_running(state: Arrays) -> Array:
        return (_length(ops, state[1]) > goal) & (state[-1] < most)

    def body(state: Arrays) -> Arrays:
        running = is_running(state)
        new = (*step(state[:-1]), state[-1] + 1)
        return tuple(numpy.where(running, n, o) for n, o in zip(new, state, strict=True))

    *state, count = ops.while_loop(
        lambda state: numpy.any(is_running(state)), body, (*start, count)
    )
    return tuple(state), count[..., 0]


def _dot(ops: ArrayOps, left: Array, right: Array) -> Array:
    return ops.numpy.sum(left * right, -1)[..., None]


def _length(ops: ArrayOps, vectors: Array) -> Array:
    return ops.numpy.sqrt(_dot(ops, vectors, vectors))


def _divide(ops: ArrayOps, numerator: Array, denominator: Array) -> Array:
    """Return the quotient, and zero where a system has broken down."""
    is_zero = denominator == 0
    safe = ops.numpy.where(is_zero, ops.numpy.ones_like(denominator), denominator)
    quotient = numerator / safe
    return ops.numpy.where(is_zero, ops.numpy.zeros_like(quotient), quotient)
