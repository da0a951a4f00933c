# SPDX-License-Identifier: Apache-2.0
"""The derivative of the solution map of cone programs, in NumPy: the specification.

Comes in: a `ConeProgramBatch` and its `ConeSolution`. Goes out: cotangents of the data
(`vjp`) or tangents of the solution (`jvp`). One instance after the other, dense: to be
read and to be tested against. `differentiate/native.py` does the same, fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from cvxlayer.differentiate.active_rows import classify, drop_dependent_rows
from cvxlayer.differentiate.residual_map import (
    ComplementaryPoint,
    DenseProgram,
    KktMatrix,
    polish,
)
from cvxlayer.differentiate.scaling import Scaling, equilibrate
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent
from cvxlayer.program.solution import ConeSolution, ConeSolutionTangent


def vjp(
    batch: ConeProgramBatch,
    solution: ConeSolution,
    x_bar: Float[np.ndarray, "batch n"] | None = None,
    y_bar: Float[np.ndarray, "batch m"] | None = None,
    s_bar: Float[np.ndarray, "batch m"] | None = None,
    needs: Sequence[bool] = (True, True, True, True),
) -> ConeProgramCotangent:
    """Map cotangents of the solution to cotangents of the data.

    With K (λ, μ) = (x̄ − Aᵀs̄, S ȳ) and ν = s̄ + S μ,

        q̄ = −λ,   b̄ = ν,   Ā = −(y λᵀ + ν xᵀ),   P̄ = −½ (λ xᵀ + x λᵀ)

    The adjoint of `jvp`.

    Args:
        batch: the programs, canonical scaling.
        solution: what a backend found for them.
        x_bar: cotangent of x; None for zero.
        y_bar: cotangent of y.
        s_bar: cotangent of s.
        needs: which of (P, q, A, b) to return.

    Returns:
        One row for each instance. Rows without a solution are exactly zero.

    Notes:
        Where strict complementarity fails, the derivative is that of an adjacent smooth
        piece; where x or y is not unique, that of the shortest change.

    Source:
        `docs/derivations/derivative.md`, "The symmetric system".
    """
    structure = batch.structure
    P_rows, P_columns = structure.P_indices, _column_indices(structure.P_indptr)
    A_rows, A_columns = structure.A_indices, _column_indices(structure.A_indptr)
    is_diagonal = P_rows == P_columns
    cotangents = [
        np.zeros((batch.size, count))
        for count in (structure.num_P, structure.num_variables, structure.num_A, structure.num_rows)
    ]
    residual = np.zeros(batch.size)
    for row in _rows_with_solution(solution):
        at = linearize(batch, solution, row)
        lam, nu, residual[row] = at.solve_adjoint(
            *(None if bar is None else bar[row] for bar in (x_bar, y_bar, s_bar))
        )
        x, y = at.x, at.y
        # An off-diagonal entry stands for two of the symmetric matrix.
        both = lam[P_rows] * x[P_columns] + x[P_rows] * lam[P_columns]
        cotangents[0][row] = np.where(is_diagonal, -0.5, -1.0) * both
        cotangents[1][row] = -lam
        cotangents[2][row] = -(y[A_rows] * lam[A_columns] + nu[A_rows] * x[A_columns])
        cotangents[3][row] = nu
    P, q, A, b = (bar if need else None for bar, need in zip(cotangents, needs, strict=True))
    return ConeProgramCotangent(P=P, q=q, A=A, b=b, residual=residual)


def jvp(
    batch: ConeProgramBatch,
    solution: ConeSolution,
    dP: Float[np.ndarray, "batch nnz_P"] | None = None,
    dq: Float[np.ndarray, "batch n"] | None = None,
    dA: Float[np.ndarray, "batch nnz_A"] | None = None,
    db: Float[np.ndarray, "batch m"] | None = None,
) -> ConeSolutionTangent:
    """Map tangents of the data to tangents of the solution.

    With r₁ = −(dP x + dAᵀy + dq) and r₂ = db − dA x,

        K (dx, η) = (r₁, S r₂),   dy = S η,   ds = r₂ − A dx

    The adjoint of `vjp`.

    Args:
        batch: the programs, canonical scaling.
        solution: what a backend found for them.
        dP: tangent of the stored (upper) entries of P; None for zero.
        dq: tangent of q.
        dA: tangent of the stored entries of A.
        db: tangent of b.

    Returns:
        One row for each instance. Rows without a solution are exactly zero.
    """
    structure = batch.structure
    n, m = structure.num_variables, structure.num_rows
    tangent = ConeSolutionTangent(
        x=np.zeros((batch.size, n)),
        y=np.zeros((batch.size, m)),
        s=np.zeros((batch.size, m)),
        residual=np.zeros(batch.size),
    )
    direction = ConeProgramBatch(
        structure,
        batch.size,
        np.zeros((1, structure.num_P)) if dP is None else dP,
        np.zeros((1, n)) if dq is None else dq,
        np.zeros((1, structure.num_A)) if dA is None else dA,
        np.zeros((1, m)) if db is None else db,
    )
    for row in _rows_with_solution(solution):
        at = linearize(batch, solution, row)
        change = _dense(direction, row)
        upper = -(change.P @ at.x + change.A.T @ at.y + change.q)
        lower = change.b - change.A @ at.x
        tangent.x[row], tangent.y[row], tangent.s[row], tangent.residual[row] = at.solve_tangent(
            upper, lower
        )
    return tangent


@dataclasses.dataclass(frozen=True, eq=False)
class Linearization:
    """The linearized optimality conditions of one instance at its polished solution.

    Attributes:
        program: the instance in equilibrated scaling, without rows whose bound is infinite.
        point: its polished solution.
        scaling: from there to canonical scaling.
        is_present: the rows of the canonical program that `program` has.
        root: S.
        kkt: K.
    """

    program: DenseProgram
    point: ComplementaryPoint
    scaling: Scaling
    is_present: Shaped[np.ndarray, " m"]
    root: Float[np.ndarray, "m_present m_present"]
    kkt: KktMatrix

    @property
    def x(self) -> Float[np.ndarray, " n"]:
        """The polished x, canonical scaling."""
        return self.scaling.column * self.point.x

    @property
    def y(self) -> Float[np.ndarray, " m"]:
        """The polished y, canonical scaling; zero on rows with an infinite bound."""
        return self._on_all_rows(self.scaling.row * self.point.y / self.scaling.cost)

    def solve_adjoint(
        self, x_bar: np.ndarray | None, y_bar: np.ndarray | None, s_bar: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return (λ, ν) in canonical scaling, and the residual of the linear system."""
        d, e, k = self.scaling.column, self.scaling.row, self.scaling.cost
        gx = d * (np.zeros(len(d)) if x_bar is None else x_bar)
        gy = (np.zeros(len(e)) if y_bar is None else y_bar[self.is_present]) * e / k
        gs = (np.zeros(len(e)) if s_bar is None else s_bar[self.is_present]) / e
        lam, mu, residual = self.kkt.solve(gx - self.program.A.T @ gs, self.root @ gy)
        return k * d * lam, self._on_all_rows(e * (gs + self.root @ mu)), residual

    def solve_tangent(
        self, upper: np.ndarray, lower: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Return (dx, dy, ds) for (r₁, r₂), all in canonical scaling, and the residual."""
        d, e, k = self.scaling.column, self.scaling.row, self.scaling.cost
        upper, lower = k * d * upper, e * lower[self.is_present]
        dx, eta, residual = self.kkt.solve(upper, self.root @ lower)
        dy, ds = self.root @ eta, lower - self.program.A @ dx
        return d * dx, self._on_all_rows(e * dy / k), self._on_all_rows(ds / e), residual

    def _on_all_rows(self, present: np.ndarray) -> np.ndarray:
        everywhere = np.zeros(len(self.is_present))
        everywhere[self.is_present] = present
        return everywhere


def linearize(batch: ConeProgramBatch, solution: ConeSolution, row: int) -> Linearization:
    """Scale, classify, polish and reduce one instance, and form its KKT matrix.

    Args:
        batch: the programs.
        solution: what a backend found.
        row: which instance; it has to have a solution.
    """
    canonical = _dense(batch, row)
    # A row with an infinite bound is inactive whatever happens, and nothing depends on it.
    is_present = np.isfinite(canonical.b)
    canonical = _keep_rows(canonical, is_present)
    scaling = equilibrate(canonical)
    program = scaling.apply(canonical)
    x = solution.x[row] / scaling.column
    y = scaling.cost * solution.y[row][is_present] / scaling.row
    s = solution.s[row][is_present] * scaling.row

    linear = slice(0, program.cones.num_linear)
    known = solution.is_active[row][is_present][linear]
    is_active = known > 0
    if np.any(known < 0):
        is_active = np.where(known < 0, classify(program, x, y, s), is_active)
    is_active[: program.cones.zero] = True
    v = y - s
    v[linear] = np.where(is_active, y[linear], -s[linear])
    point = polish(program, ComplementaryPoint(program.cones, x, v, is_active))
    point = drop_dependent_rows(program, point)
    root = point.projection_root()
    return Linearization(program, point, scaling, is_present, root, KktMatrix(program, root))


def _dense(batch: ConeProgramBatch, row: int) -> DenseProgram:
    P, q, A, b = batch.instance(row)
    upper = P.toarray()
    return DenseProgram(batch.structure.cones, upper + np.triu(upper, 1).T, q, A.toarray(), b)


def _keep_rows(program: DenseProgram, keep: np.ndarray) -> DenseProgram:
    cones = program.cones
    num_inequalities = int(np.sum(keep[cones.zero : cones.num_linear]))
    kept = cones.with_linear(cones.zero, num_inequalities)
    return DenseProgram(kept, program.P, program.q, program.A[keep], program.b[keep])


def _rows_with_solution(solution: ConeSolution) -> list[int]:
    return [row for row, code in enumerate(solution.status) if Status(code).has_solution]


def _column_indices(indptr: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
