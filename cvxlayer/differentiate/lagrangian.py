# SPDX-License-Identifier: Apache-2.0
"""Gradients by differences of solutions: informative where the derivative is zero.

The solution of a linear program jumps from vertex to vertex, and its derivative is zero between.
Solving again with the cotangent added to the objective tells where it would jump to.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cvxlayer.differentiate.cone_pattern import ConePattern
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent, ConeProgramStructure
from cvxlayer.program.cone_derivative import AbstractReverseDerivative
from cvxlayer.program.solution import ConeSolution


@runtime_checkable
class ConeSolver(Protocol):
    """What solves the perturbed programs."""

    def setup(self, structure: ConeProgramStructure) -> Any:
        """Do the work that depends on the structure alone."""
        ...

    def solve(self, prepared: Any, batch: ConeProgramBatch, settings: Any) -> ConeSolution:
        """Return the solutions."""
        ...


class LagrangianDerivative(AbstractReverseDerivative):
    """Lagrangian proximal gradient descent, the average of its lower and its upper form.

    With (x±, y±) the solution for q ± τ x̄ and b ∓ τ ȳ, and L(x, y) = ½xᵀPx + qᵀx + yᵀ(Ax − b), the
    cotangent of each block is the difference of ∂L at the two over 2τ:

        q̄ = (x₊ − x₋)/2τ      b̄ = −(y₊ − y₋)/2τ
        Ā = (y₊x₊ᵀ − y₋x₋ᵀ)/2τ    P̄ = ½(x₊x₊ᵀ − x₋x₋ᵀ)/2τ

    As τ → 0 it becomes the derivative, where that exists.

    Source:
        Paulus, Martius & Musil, LPGD: a general framework for backpropagation through embedded
        optimization layers (ICML 2024).
    """

    def __init__(self, tau: float, solver: ConeSolver, settings: Any) -> None:
        self._tau, self._solver, self._settings = tau, solver, settings

    @property
    def refusal(self) -> str:
        """Say what this gradient cannot do."""
        return (
            "`derivative=LPGD(…)` only pulls gradients back, once; this asks for a forward-mode, "
            'second-order or vectorized derivative. Use `derivative="exact"` or '
            '`"smoothed"` for these.'
        )

    def setup(self, structure: ConeProgramStructure) -> Any:
        """Prepare the solver."""
        return self._solver.setup(structure)

    def vjp(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        x_bar: Float[np.ndarray, "batch n"] | None,
        y_bar: Float[np.ndarray, "batch m"] | None,
        s_bar: Float[np.ndarray, "batch m"] | None,
        *,
        needs: tuple[bool, bool, bool, bool] = (True, True, True, True),
        threads: int | None = None,
    ) -> ConeProgramCotangent:
        """Map cotangents of the solution to those of the data, by two more solves.

        Returns:
            Rows without a solution, of the program itself or of a perturbed one, are zero; the
            residual of the latter is infinite.
        """
        del threads  # of the settings
        assert s_bar is None, "the compiler folds it into those of x, A and b"
        has_solution = solution.status <= 1
        q_step = _masked(x_bar, has_solution, solution.x.shape)
        b_step = _masked(y_bar, has_solution, solution.y.shape)
        ahead, behind = (
            self._solver.solve(
                prepared,
                dataclasses.replace(
                    batch,
                    q=batch.q + sign * self._tau * q_step,
                    b=batch.b - sign * self._tau * b_step,
                ),
                self._settings,
            )
            for sign in (1.0, -1.0)
        )
        counts = has_solution & (ahead.status <= 1) & (behind.status <= 1)
        blocks = (
            (first - second) / (2.0 * self._tau) if need else None
            for first, second, need in zip(
                _slopes(batch, ahead), _slopes(batch, behind), needs, strict=True
            )
        )
        P, q, A, b = (
            None if block is None else np.where(counts[:, None], block, 0.0) for block in blocks
        )
        return ConeProgramCotangent(P, q, A, b, np.where(has_solution & ~counts, np.inf, 0.0))


def _masked(
    bar: np.ndarray | None, has_solution: np.ndarray, shape: tuple[int, ...]
) -> Float[np.ndarray, "batch size"]:
    return np.zeros(shape) if bar is None else np.where(has_solution[:, None], bar, 0.0)


def _slopes(batch: ConeProgramBatch, at: ConeSolution) -> tuple[np.ndarray, ...]:
    """Return the derivative of the Lagrangian in P, q, A and b at a solution."""
    pattern = ConePattern.of(batch.structure)
    x, y = at.x, at.y
    P = pattern.P_half * x[:, pattern.P_row] * x[:, pattern.P_column]
    return P, x, y[:, pattern.A_row] * x[:, pattern.A_column], -y
