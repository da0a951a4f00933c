# SPDX-License-Identifier: Apache-2.0
"""The choices of `backward=`: what stands for the inverse Jacobian in a derivative.

Every one is a choice in z ← z − M F(z, θ), applied from the detached solution: M = A⁻¹ is
exact, M = I once is one-step (JFB), k times the Neumann series of k terms, M = τ I the
phantom gradient. `Unroll` differentiates the solver's own steps instead.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from cvxlayer.differentiate.array_ops import Array
from cvxlayer.differentiate.krylov import CG, GMRES, LSMR, BiCGStab
from cvxlayer.differentiate.linear_operator import (
    AbstractLinearSolver,
    LinearOperator,
    LinearReport,
    report_residual,
)
from cvxlayer.differentiate.linear_solvers import choose_linear_solver
from cvxlayer.errors import OptionError

# Called with (relative residual, iterations) of every linear system of a derivative.
Listener = Callable[[object, object], None]


class AbstractInverse(ABC):
    """What stands for A⁻¹: a linear map of right-hand sides, and when to trust it."""

    remedy: str
    is_exact: bool
    listener: Listener | None

    @abstractmethod
    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Map (count, batch, n) vectors, and say how well they solve A w = r."""

    @abstractmethod
    def accepts(self, operator: LinearOperator, report: LinearReport) -> Array:
        """Return for each system whether its solution may be used."""


@dataclasses.dataclass(frozen=True)
class Exact(AbstractInverse):
    """The implicit function theorem itself: correct to the accuracy of the linear solve.

    Args:
        solver: `LU()`, `Cholesky()`, `CG()`, `GMRES()`, `BiCGStab()` or `LSMR()`; None
            chooses by structure and size: a dense factorization up to order 512 (Cholesky
            for unconstrained `argmin`), CG or GMRES beyond.
        listener: called with the relative residual and the number of products of every
            linear system that a derivative solves, as arrays; under `jax.jit` too.

    Notes:
        Derivatives of any order. A system with a relative residual above 1.5e-8 (float64)
        counts as not solved.
    """

    solver: Any = None
    listener: Listener | None = None
    is_exact = True
    remedy = (
        "The Jacobian is singular or badly conditioned at the solution, so that the "
        "derivative does not exist or cannot be computed: regularize the problem, or give "
        "another `Exact(solver=...)`, a preconditioner or more iterations."
    )

    def __post_init__(self) -> None:
        if self.solver is not None and not isinstance(self.solver, AbstractLinearSolver):
            raise OptionError(
                f"`Exact(solver=)` got {self.solver!r}; it must be a linear solver, such as "
                "`LU()`, `Cholesky()`, `CG()`, `GMRES()`, `BiCGStab()` or `LSMR()`."
            )

    @property
    def preconditioner(self) -> Callable[..., object] | None:
        """The user's preconditioner, over pytrees."""
        if isinstance(self.solver, CG | GMRES | BiCGStab | LSMR):
            return self.solver.preconditioner
        return None

    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Solve A w = r."""
        solver = self.solver or choose_linear_solver(operator.structure, operator.size)
        return solver.solve(operator, right)

    def accepts(self, operator: LinearOperator, report: LinearReport) -> Array:
        """Return whether the residual is small; NaN is not."""
        asked = 0.0
        if isinstance(self.solver, CG | GMRES | BiCGStab):
            asked = self.solver.tolerance or 0.0
        epsilon = float(operator.ops.numpy.finfo(operator.like.dtype).eps)
        return report.residual <= max(epsilon**0.5, 10.0 * asked)


@dataclasses.dataclass(frozen=True)
class Neumann(AbstractInverse):
    """The first k terms of the Neumann series, A⁻¹ ≈ Σ_{i<k} (I − A)^i.

    Args:
        k: how many terms; k − 1 products with the Jacobian.
        listener: as of `Exact`; the residual is ‖(I − A)^k r‖ / ‖r‖.

    Notes:
        For `fixed_point`, I − A is the Jacobian of the map. Where the residual exceeds one
        the series diverges, the gradient is worse than none, and the row counts as failed.
        First derivatives only.
    """

    k: int
    listener: Listener | None = None
    is_exact = False
    remedy = (
        "The Neumann series diverges: the map is not a contraction at the solution. Use "
        "`backward=Exact()`, or `Phantom(tau, k)` with a small `tau`."
    )

    def __post_init__(self) -> None:
        _check_count("Neumann(k)", self.k)

    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Sum the series."""
        return _sum_series(operator, right, 1.0, self.k)

    def accepts(self, operator: LinearOperator, report: LinearReport) -> Array:
        """Return whether the terms have not grown."""
        del operator
        return report.residual <= 1.0


@dataclasses.dataclass(frozen=True)
class Phantom(AbstractInverse):
    """The damped series τ Σ_{i<k} (I − τ A)^i: the phantom gradient.

    Args:
        tau: the damping, 0 < τ ≤ 1.
        k: how many terms.
        listener: as of `Neumann`.

    Source:
        Geng et al., On Training Implicit Models (NeurIPS 2021), equation 9.
    """

    tau: float
    k: int
    listener: Listener | None = None
    is_exact = False
    remedy = "The damped series diverges: use a smaller `tau`, or `backward=Exact()`."

    def __post_init__(self) -> None:
        _check_count("Phantom(tau, k)", self.k)
        if not 0.0 < self.tau <= 1.0:
            raise OptionError(f"`Phantom(tau, k)` got tau={self.tau!r}; it must be in (0, 1].")

    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Sum the series."""
        return _sum_series(operator, right, self.tau, self.k)

    def accepts(self, operator: LinearOperator, report: LinearReport) -> Array:
        """Return whether the terms have not grown."""
        del operator
        return report.residual <= 1.0


@dataclasses.dataclass(frozen=True)
class OneStep(AbstractInverse):
    """A⁻¹ ≈ I: differentiate one step of z ← z − F(z, θ) from the detached solution (JFB).

    Notes:
        No product with the Jacobian at all, and therefore no residual: a listener is told
        NaN. First derivatives only.

    Source:
        Fung et al., JFB: Jacobian-Free Backpropagation for Implicit Networks (AAAI 2022).
    """

    listener: Listener | None = None
    is_exact = False
    remedy = "The cotangent is not finite."

    def solve(self, operator: LinearOperator, right: Array) -> tuple[Array, LinearReport]:
        """Return the right-hand side."""
        numpy = operator.ops.numpy
        unknown = numpy.full_like(right[..., 0], float("nan"))
        return right, LinearReport(unknown, numpy.zeros_like(unknown))

    def accepts(self, operator: LinearOperator, report: LinearReport) -> Array:
        """Return True: there is nothing to judge by."""
        return operator.ops.numpy.ones_like(report.residual) > 0


@dataclasses.dataclass(frozen=True)
class Unroll:
    """Differentiate the solver's own steps, as if the loop were written out.

    Args:
        last: how many steps, counted from the end; None for all of them, which also gives
            the initial guess its gradient.

    Notes:
        Memory grows with the number of steps. JAX needs that number beforehand: there `last`
        None costs `max_iterations` steps. Step lengths of line searches count as constants.
    """

    last: int | None = None

    def __post_init__(self) -> None:
        if self.last is not None:
            _check_count("Unroll(last=k)", self.last)


def _check_count(name: str, count: object) -> None:
    if not isinstance(count, int) or count < 1:
        raise OptionError(f"`{name}` got {count!r} steps; it must be a whole number of at least 1.")


def _sum_series(
    operator: LinearOperator, right: Array, tau: float, k: int
) -> tuple[Array, LinearReport]:
    """Return τ Σ_{i<k} (I − τA)^i r; what is left of r is (I − τA)^k r exactly."""
    solution, term = tau * right, right
    for _ in range(k - 1):
        term = term - tau * operator.apply(term)
        solution = solution + tau * term
    count = operator.ops.numpy.full_like(right[..., 0], float(k))
    return solution, report_residual(operator, right, solution, count)
