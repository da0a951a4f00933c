# SPDX-License-Identifier: Apache-2.0
"""The derivative of cone programs in every mode and order, written once for all frameworks.

Three primitives close it: `solve`, (P, q, A, b) ↦ (x, y, s); `kkt_apply`, the linear system of
its derivative, which is symmetric and so serves forward and reverse mode; and `curvature`, the
second derivative of the projection. A framework lends a few functions of arrays (`RowOps`) and
calls of the engine (`ConePrimitives`), and registers the rules below with its autodiff.

With D = DΠ(v) and v = y/ω − ωs, `kkt_apply` maps (gx, gy, gs) to the solution (λ, ν) of

    P λ + Aᵀν = gx,    (ν − gs)/ω = D p,    p = ω (A λ − gy) + (ν − gs)/ω

where ω, constant, balances y and s (`LinearizationPoint.balance`), and is nearly always one.

Rows without a solution are zero in all that the primitives return, and what is not finite there
never gets into arithmetic: callers mask what they read from such rows.

Source: `docs/derivations/derivative.md`, "Every order".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from cvxlayer.differentiate.cone_pattern import ConePattern

Array = Any
"""An array of the framework. Instances lie along the first axis of all."""


@runtime_checkable
class RowOps(Protocol):
    """What a framework lends: functions of its arrays, differentiable by itself.

    Indices are constant NumPy arrays.
    """

    def take(self, rows: Array, index: np.ndarray) -> Array:
        """Return `rows[..., index]`."""
        ...

    def segment_sum(self, rows: Array, index: np.ndarray, size: int) -> Array:
        """Return the last axis summed by index: its adjoint is `take`."""
        ...

    def where(self, condition: Array, rows: Array, otherwise: Any) -> Array:
        """Choose by entry; what is not chosen gets exactly zero derivative."""
        ...

    def broadcast_to(self, rows: Array, shape: tuple[int, ...]) -> Array:
        """Return rows repeated to a shape."""
        ...

    def constant(self, array: np.ndarray) -> Array:
        """Return a constant as an array of the framework."""
        ...


class ConeData(NamedTuple):
    """(P, q, A, b), their tangents or cotangents: one row for each instance, or one for all.

    Stored entries of P and A, as in `ConeProgramBatch`. None for zero, or not asked for.
    """

    P: Array
    q: Array
    A: Array
    b: Array


class Statistics(NamedTuple):
    """What a `ConeSolution` tells of each row, beside its status."""

    iterations: Array
    primal_residual: Array
    dual_residual: Array
    gap: Array
    solved_by: Array


class Solved(NamedTuple):
    """What `solve` returns; x, y and s are differentiable."""

    x: Array
    y: Array
    s: Array
    is_active: Array
    status: Array
    statistics: Statistics | None = None


class Point(NamedTuple):
    """Where a solution is differentiated, as in `LinearizationPoint`.

    x, y and v differ from the solver's by what polishing removed, so they have the derivative of
    those: that of v is dy/ω − ω ds, with ω = `balance`.
    """

    x: Array
    y: Array
    v: Array
    balance: Array
    is_active: Array
    has_solution: Array


@runtime_checkable
class ConePrimitives(Protocol):
    """Calls of the engine, differentiable in the framework by the rules below."""

    def refine(self, problem: ConeData, solved: Solved) -> Point:
        """Return the point; to be differentiated as (x, y, s) ↦ (x, y, y/ω − ωs)."""
        ...

    def kkt_apply(
        self, problem: ConeData, point: Point, gx: Array, gy: Array, gs: Array
    ) -> tuple[Array, Array]:
        """Return (λ, ν), (B, R, n) and (B, R, m), for R right-hand sides; None is zero."""
        ...

    def curvature(self, problem: ConeData, point: Point, p: Array, p2: Array) -> Array:
        """Return D²Π(v)[p, p2], (B, R, m). Refuse its derivative in v, of third order."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ConeRules:
    """The rules for programs of one structure in one framework.

    Attributes:
        pattern: where the entries of P and A are.
        ops: what the framework lends.
        engine: the primitives.
    """

    pattern: ConePattern
    ops: RowOps
    engine: ConePrimitives

    # --- solve ---------------------------------------------------------------------------

    def solve_jvp(
        self, problem: ConeData, solved: Solved, tangent: ConeData
    ) -> tuple[Array, Array, Array]:
        """Return (dx, dy, ds). Adjoint: `solve_vjp`.

        With r₁ = −(dP x + dAᵀy + dq) and r₂ = db − dA x: (dx, dy) = kkt_apply(r₁, r₂, 0) and
        ds = r₂ − A dx.
        """
        point = self.engine.refine(problem, solved)
        r1, r2 = self._right_hand_sides(point, tangent)
        lam, nu = self.engine.kkt_apply(problem, point, r1[:, None], r2[:, None], None)
        dx, dy = lam[:, 0], nu[:, 0]
        return dx, dy, self._masked(point, r2 - self._times_A(problem.A, dx))

    def solve_vjp(
        self,
        problem: ConeData,
        solved: Solved,
        x_bar: Array,
        y_bar: Array,
        s_bar: Array,
        needs: Sequence[bool] = (True, True, True, True),
    ) -> ConeData:
        """Return the cotangents of the problem, each with as many rows as the problem.

        With (λ, ν) = kkt_apply(x̄, ȳ, s̄): P̄ = −½(λxᵀ + xλᵀ), q̄ = −λ, Ā = −(yλᵀ + νxᵀ), b̄ = ν.
        Adjoint: `solve_jvp`. Cotangents of None are zero.
        """
        point = self.engine.refine(problem, solved)
        bars = [None if bar is None else bar[:, None] for bar in (x_bar, y_bar, s_bar)]
        lam, nu = self.engine.kkt_apply(problem, point, *bars)
        lam, nu = lam[:, 0], nu[:, 0]
        bar = ConeData(
            -self._onto_P(lam, point.x) if needs[0] else None,
            -lam if needs[1] else None,
            -(self._onto_A(point.y, lam) + self._onto_A(nu, point.x)) if needs[2] else None,
            nu if needs[3] else None,
        )
        return ConeData(*map(_sum_to_rows, bar, problem))

    # --- kkt_apply -----------------------------------------------------------------------

    def kkt_jvp(
        self,
        problem: ConeData,
        point: Point,
        right: Sequence[Array],
        result: Sequence[Array],
        d_problem: ConeData,
        dv: Array,
        d_right: Sequence[Array],
    ) -> tuple[Array, Array]:
        """Return (dλ, dν) for tangents of P, A, v and (gx, gy, gs); None is zero.

        With t = D²Π(v)[dv, p]: (dλ, dν) = kkt_apply(dgx − dP λ − dAᵀν, dgy − dA λ − t/ω,
        dgs + ωt). Adjoint: `kkt_vjp`.
        """
        lam, nu = result
        dP, dA = (None if block is None else block[:, None] for block in (d_problem.P, d_problem.A))
        d_gx, d_gy, d_gs = d_right
        if dP is not None:
            d_gx = _plus(d_gx, -self._times_P(dP, lam))
        if dA is not None:
            d_gx = _plus(d_gx, -self._times_A_transposed(dA, nu))
            d_gy = _plus(d_gy, -self._times_A(dA, lam))
        if dv is not None and self.pattern.is_curved:
            balance, p = point.balance[:, None], self._direction(problem, point, right, result)
            dv = self.ops.broadcast_to(dv[:, None], tuple(p.shape))
            bend = self.engine.curvature(problem, point, dv, p)
            d_gy, d_gs = _plus(d_gy, -bend / balance), _plus(d_gs, bend * balance)
        if d_gx is None and d_gy is None and d_gs is None:
            return 0.0 * lam, 0.0 * nu
        return self.engine.kkt_apply(problem, point, d_gx, d_gy, d_gs)

    def kkt_vjp(
        self,
        problem: ConeData,
        point: Point,
        right: Sequence[Array],
        result: Sequence[Array],
        lam_bar: Array,
        nu_bar: Array,
        needs: Sequence[bool] = (True, True, True),
    ) -> tuple[ConeData, Array, tuple[Array, Array, Array]]:
        """Return the cotangents of (P, A), of v and of (gx, gy, gs).

        With (a, c) = kkt_apply(λ̄, ν̄, 0) and p' its p: ḡx = a, ḡy = c, ḡs = ν̄ − A a,
        P̄ = −½(aλᵀ + λaᵀ), Ā = −(ν aᵀ + c λᵀ), v̄ = −D²Π(v)[p, p']. Adjoint: `kkt_jvp`. The
        cotangent of v is None, zero, for linear cones. `needs` tells which of P, A and v need one.
        """
        lam, nu = result
        a, c = self.engine.kkt_apply(problem, point, lam_bar, nu_bar, None)
        gs_bar = -self._times_A(problem.A[:, None], a)
        if nu_bar is not None:
            gs_bar = gs_bar + nu_bar
        gs_bar = self._masked(point, gs_bar)
        P_bar = A_bar = v_bar = None
        if needs[0]:
            P_bar = -self._onto_P(a, lam).sum(1)
        if needs[1]:
            A_bar = -(self._onto_A(nu, a) + self._onto_A(c, lam)).sum(1)
        if needs[2] and self.pattern.is_curved:
            balance, p = point.balance[:, None], self._direction(problem, point, right, result)
            p2 = c / balance - gs_bar * balance
            v_bar = -self.engine.curvature(problem, point, p, p2).sum(1)
        bar = ConeData(_sum_to_rows(P_bar, problem.P), None, _sum_to_rows(A_bar, problem.A), None)
        return bar, v_bar, (a, c, gs_bar)

    def _direction(
        self, problem: ConeData, point: Point, right: Sequence[Array], result: Sequence[Array]
    ) -> Array:
        """Return p: what D is multiplied by in `kkt_apply`."""
        (lam, nu), (_, gy, gs) = result, right
        up, down = self._times_A(problem.A[:, None], lam), nu
        up = up if gy is None else up - gy
        down = down if gs is None else down - gs
        balance = point.balance[:, None]
        return up * balance + down / balance

    def curvature_jvp(
        self, problem: ConeData, point: Point, p: Array, p2: Array, dp: Array, dp2: Array
    ) -> Array:
        """Return the tangent of `curvature` for tangents of p and p′; None is zero.

        It is linear in each. As v moves it has no derivative here. Adjoint: `curvature_vjp`.
        """
        change = None if dp is None else self.engine.curvature(problem, point, dp, p2)
        if dp2 is not None:
            change = _plus(change, self.engine.curvature(problem, point, p, dp2))
        return 0.0 * p if change is None else change

    def curvature_vjp(
        self, problem: ConeData, point: Point, p: Array, p2: Array, bar: Array
    ) -> tuple[Array, Array]:
        """Return the cotangents of p and p′: D²Π(v) is symmetric in all three places."""
        p_bar = self.engine.curvature(problem, point, bar, p2)
        return p_bar, self.engine.curvature(problem, point, p, bar)

    # --- the optimal value ---------------------------------------------------------------

    def value(self, problem: ConeData, x: Array) -> Array:
        """Return ½xᵀPx + qᵀx, (B,), whose derivative is by `value_jvp` and `value_vjp`."""
        value = (problem.q * x).sum(-1)
        if not self.pattern.P_row.size:
            return value
        return value + (problem.P * self._half_onto_P(x)).sum(-1)

    def value_jvp(self, x: Array, y: Array, tangent: ConeData) -> Array:
        """Return dV = ½xᵀdP x + dqᵀx + yᵀ(dA x − db): the envelope theorem.

        Not a derivative in x and y: along the solution theirs vanishes. Adjoint: `value_vjp`.
        """
        change = 0.0 * x.sum(-1)
        if tangent.P is not None:
            change = change + (tangent.P * self._half_onto_P(x)).sum(-1)
        if tangent.q is not None:
            change = change + (tangent.q * x).sum(-1)
        if tangent.A is not None:
            change = change + (tangent.A * self._onto_A(y, x)).sum(-1)
        if tangent.b is not None:
            change = change - (tangent.b * y).sum(-1)
        return change

    def value_vjp(
        self,
        problem: ConeData,
        x: Array,
        y: Array,
        value_bar: Array,
        needs: Sequence[bool] = (True, True, True, True),
    ) -> ConeData:
        """Return the cotangents of the problem. Adjoint: `value_jvp`."""
        weight = value_bar[:, None]
        bar = ConeData(
            weight * self._half_onto_P(x) if needs[0] else None,
            weight * x if needs[1] else None,
            weight * self._onto_A(y, x) if needs[2] else None,
            -weight * y if needs[3] else None,
        )
        return ConeData(*map(_sum_to_rows, bar, problem))

    # --- products with stored entries ----------------------------------------------------

    def _right_hand_sides(self, point: Point, tangent: ConeData) -> tuple[Array, Array]:
        """Return r₁ = −(dP x + dAᵀy + dq) and r₂ = db − dA x."""
        r1, r2 = 0.0 * point.x, 0.0 * point.y
        if tangent.P is not None:
            r1 = r1 - self._times_P(tangent.P, point.x)
        if tangent.q is not None:
            r1 = r1 - tangent.q
        if tangent.A is not None:
            r1 = r1 - self._times_A_transposed(tangent.A, point.y)
            r2 = r2 - self._times_A(tangent.A, point.x)
        if tangent.b is not None:
            r2 = r2 + tangent.b
        return r1, r2

    def _times_A(self, A: Array, x: Array) -> Array:
        at, ops = self.pattern, self.ops
        return ops.segment_sum(A * ops.take(x, at.A_column), at.A_row, at.num_rows)

    def _times_A_transposed(self, A: Array, y: Array) -> Array:
        at, ops = self.pattern, self.ops
        return ops.segment_sum(A * ops.take(y, at.A_row), at.A_column, at.num_variables)

    def _times_P(self, P: Array, x: Array) -> Array:
        """Return P x, from the entries of the upper triangle."""
        at, ops = self.pattern, self.ops
        entries = ops.take(P, at.P_mirror) * ops.take(x, at.P_mirror_column)
        return ops.segment_sum(entries, at.P_mirror_row, at.num_variables)

    def _onto_A(self, y: Array, x: Array) -> Array:
        """Return y xᵀ at the stored entries of A."""
        return self.ops.take(y, self.pattern.A_row) * self.ops.take(x, self.pattern.A_column)

    def _onto_P(self, u: Array, x: Array) -> Array:
        """Return ½(u xᵀ + x uᵀ) at the stored entries of P; an entry off the diagonal is two."""
        at, ops = self.pattern, self.ops
        both = ops.take(u, at.P_row) * ops.take(x, at.P_column)
        both = both + ops.take(x, at.P_row) * ops.take(u, at.P_column)
        return ops.constant(at.P_half) * both

    def _half_onto_P(self, x: Array) -> Array:
        """Return ½ x xᵀ at the stored entries of P; an entry off the diagonal is two."""
        at, ops = self.pattern, self.ops
        return ops.constant(at.P_half) * ops.take(x, at.P_row) * ops.take(x, at.P_column)

    def _masked(self, point: Point, rows: Array) -> Array:
        shape = (point.has_solution.shape[0],) + (1,) * (len(rows.shape) - 1)
        return self.ops.where(point.has_solution.reshape(shape), rows, 0.0)


def _plus(left: Array, right: Array) -> Array:
    return right if left is None else left + right


def _sum_to_rows(bar: Array, block: Array) -> Array:
    """Return a cotangent with as many rows as its block: the adjoint of sharing one."""
    if bar is None or bar.shape[0] == block.shape[0]:
        return bar
    assert block.shape[0] == 1
    return bar.sum(0)[None]
