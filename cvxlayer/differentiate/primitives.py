# SPDX-License-Identifier: Apache-2.0
"""The operations that derivatives of cone programs of every order and mode are made of.

`refine` finds the point where the solution map is differentiated, `apply` solves with its
linearization and is its own adjoint, `curvature` is what changes of the linearization along
the cones. In NumPy, dense, one instance after the other: the specification of
`native/adjoint/`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from cvxlayer.cones import projection
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.active_rows import classify, drop_dependent_rows
from cvxlayer.differentiate.residual_map import (
    ComplementaryPoint,
    DenseProgram,
    KktMatrix,
    polish,
    residual,
    return_to_central_path,
)
from cvxlayer.differentiate.scaling import Scaling, equilibrate
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.solution import ConeSolution, LinearizationPoint

# Up to this ratio, a sum keeps enough digits of the smaller summand.
_COMPARABLE = 1e3
# Of the size of v: what projecting is rounded by.
_PROJECTED = 1e-14


def refine(
    batch: ConeProgramBatch, solution: ConeSolution, *, reduces: bool = True
) -> LinearizationPoint:
    """Classify, polish and reduce: from a solver's answer to the point of differentiation.

    Args:
        batch: the programs, canonical scaling.
        solution: what a backend found for them.
        reduces: whether to drop dependent rows; else `apply` finds the shortest solution.

    Source:
        `docs/derivations/derivative.md`, "From a solver's answer to the point of differentiation".
    """
    smoothing = np.zeros(batch.size)
    point = unwritten_point(batch, solution, smoothing)
    for row in np.flatnonzero(point.has_solution).tolist():
        program, scaling, is_present = equilibrated(batch, row)
        start = _classified(program, scaling, is_present, solution, row)
        found = polish(program, start)
        if reduces:
            found = drop_dependent_rows(program, found)
        answer = _answer(scaling, is_present, solution, row)
        found = return_to_central_path(program, found, start.x, *answer)
        d, e, k = scaling.column, scaling.row, scaling.cost
        point.x[row] = d * found.x
        y, s = _without_rounding(program.cones, found)
        y, s = e * y / k, s / e
        balance = balance_of(program.cones, y, s)
        point.y[row, is_present], point.balance[row, is_present] = y, balance
        point.v[row] = -np.inf
        point.v[row, is_present] = y / balance - s * balance
        point.is_active[row, np.flatnonzero(is_present)[: len(found.is_active)]] = found.is_active
        point.residual[row] = _relative_residual(program, found)
        smoothing[row] = found.smoothing
    return point


def unwritten_point(
    batch: ConeProgramBatch, solution: ConeSolution, smoothing: np.ndarray | None = None
) -> LinearizationPoint:
    """Return a point of zeros, for `refine` to write into the rows that have a solution."""
    n, m = batch.structure.num_variables, batch.structure.num_rows
    return LinearizationPoint(
        x=np.zeros((batch.size, n)),
        y=np.zeros((batch.size, m)),
        v=np.zeros((batch.size, m)),
        balance=np.ones((batch.size, m)),
        is_active=np.zeros((batch.size, m), np.int8),
        has_solution=np.array([Status(code).has_solution for code in solution.status], bool),
        residual=np.zeros(batch.size),
        smoothing=smoothing,
    )


def apply(
    batch: ConeProgramBatch,
    point: LinearizationPoint,
    gx: Float[np.ndarray, "batch count n"] | None = None,
    gy: Float[np.ndarray, "batch count m"] | None = None,
    gs: Float[np.ndarray, "batch count m"] | None = None,
) -> tuple[
    Float[np.ndarray, "batch count n"],
    Float[np.ndarray, "batch count m"],
    Float[np.ndarray, "batch count"],
]:
    """Solve the linearized optimality conditions for any number of right-hand sides.

    With D = DΠ(v), and ω = 1 if not for `LinearizationPoint.balance`, find (λ, ν) such that

        P λ + Aᵀν = gx,    (ν − gs)/ω = D p,    p = ω (A λ − gy) + (ν − gs)/ω.

    With gx = r₁ = −(dP x + dAᵀy + dq), gy = r₂ = db − dA x and gs = 0 these are (dx, dy). For
    gs = 0 the map is its own adjoint, so that with cotangents in the place of (gx, gy, gs) it
    is what `conic.vjp` needs.

    Args:
        batch: the programs, canonical scaling.
        point: where, from `refine`; of it all but x and residual is read.
        gx: right-hand sides, `count` of them for each instance; None for zero.
        gy: likewise; one of the three has to be given.
        gs: likewise.

    Returns:
        λ, ν, and the residual of each linear system relative to its right-hand side. Rows
        without a solution are exactly zero.

    Notes:
        Where the system is singular, the shortest solution in the least-squares sense.

    Source:
        `docs/derivations/derivative.md`, "The symmetric system".
    """

    def find_root(
        program: DenseProgram, scaling: Scaling, is_present: np.ndarray, row: int
    ) -> Float[np.ndarray, "m_present m_present"]:
        return scaled_point(program, scaling, is_present, point, row).projection_root()

    return apply_with(find_root, batch, point.has_solution, gx, gy, gs)


def apply_with(
    find_root: Callable[[DenseProgram, Scaling, np.ndarray, int], np.ndarray],
    batch: ConeProgramBatch,
    has_solution: Bool[np.ndarray, " batch"],
    gx: Float[np.ndarray, "batch count n"] | None,
    gy: Float[np.ndarray, "batch count m"] | None,
    gs: Float[np.ndarray, "batch count m"] | None,
) -> tuple[
    Float[np.ndarray, "batch count n"],
    Float[np.ndarray, "batch count m"],
    Float[np.ndarray, "batch count"],
]:
    """Return the same for D = S² where S is given, in equilibrated scaling.

    Args:
        find_root: (equilibrated program, its scaling, which rows it has, the instance) ↦ S.
        batch: as of `apply`.
        has_solution: which instances have one; others get zeros.
        gx: as of `apply`.
        gy: likewise.
        gs: likewise.
    """
    count = next(g.shape[1] for g in (gx, gy, gs) if g is not None)
    n, m = batch.structure.num_variables, batch.structure.num_rows
    lam, nu = np.zeros((batch.size, count, n)), np.zeros((batch.size, count, m))
    residuals = np.zeros((batch.size, count))
    for row in np.flatnonzero(has_solution).tolist():
        program, scaling, is_present = equilibrated(batch, row)
        root = find_root(program, scaling, is_present, row)
        kkt = KktMatrix(program, root)
        d, e, k = scaling.column, scaling.row, scaling.cost
        for index in range(count):
            top = np.zeros(n) if gx is None else d * gx[row, index]
            middle = np.zeros(len(e)) if gy is None else e * gy[row, index, is_present] / k
            bottom = np.zeros(len(e)) if gs is None else gs[row, index, is_present] / e
            u, w, residuals[row, index] = kkt.solve(top - program.A.T @ bottom, root @ middle)
            lam[row, index] = k * d * u
            nu[row, index, is_present] = e * (bottom + root @ w)
    return lam, nu, residuals


def curvature(
    batch: ConeProgramBatch,
    point: LinearizationPoint,
    first: Float[np.ndarray, "batch count m"],
    second: Float[np.ndarray, "batch count m"],
) -> Float[np.ndarray, "batch count m"]:
    """Return t = D²Π(v)[p, p']: how D p changes as v moves along p'.

    Linear in each direction, symmetric in them and in what the result is multiplied with. With
    p as in `apply` and p' = dy/ω − ω ds, the derivative of λ and ν as v moves alone is `apply` of
    gx = 0, gy = −t/ω, gs = ω t.

    Args:
        batch: the programs, canonical scaling.
        point: where, from `refine`; of it v and has_solution are read.
        first: p, `count` of them for each instance.
        second: p'.

    Returns:
        Zero on linear rows, and for instances without a solution.
    """
    cones = batch.structure.cones
    result = np.zeros_like(first)
    for index in range(first.shape[1]):
        result[:, index] = projection.project_dual_second_derivative(
            cones, point.v, first[:, index], second[:, index]
        )
    return np.where(point.has_solution[:, None, None], result, 0.0)


def balance_of(
    cones: ConeProduct, y: Float[np.ndarray, " m"], s: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """Return ω: a power of two about √(‖y‖/‖s‖) on curved cones where that is far from one."""
    balance = np.ones(len(y))
    for cone in cones.curved:
        dual, slack = _largest(y[cone.rows]), _largest(s[cone.rows])
        if min(dual, slack) > 0.0 and max(dual, slack) > _COMPARABLE * min(dual, slack):
            balance[cone.rows] = 2.0 ** round(0.5 * np.log2(dual / slack))
    return balance


def _without_rounding(
    cones: ConeProduct, point: ComplementaryPoint
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Return y and s, zero on curved cones where they are what a projection is rounded by."""
    y, s = point.y, point.s
    for cone in cones.curved:
        dual, slack = _largest(y[cone.rows]), _largest(s[cone.rows])
        if dual <= _PROJECTED * slack:
            y[cone.rows] = 0.0
        elif slack <= _PROJECTED * dual:
            s[cone.rows] = 0.0
    return y, s


def equilibrated(
    batch: ConeProgramBatch, row: int
) -> tuple[DenseProgram, Scaling, Bool[np.ndarray, " m"]]:
    """Return one instance without the rows whose bound is infinite, scaled, and which are left."""
    P, q, A, b = batch.instance(row)
    # A row with an infinite bound is inactive whatever happens, and nothing depends on it.
    is_present = np.isfinite(b)
    cones = batch.structure.cones
    num_inequalities = int(np.sum(is_present[cones.zero : cones.num_linear]))
    upper = P.toarray()
    canonical = DenseProgram(
        cones.with_linear(cones.zero, num_inequalities),
        upper + np.triu(upper, 1).T,
        q,
        A.toarray()[is_present],
        b[is_present],
    )
    scaling = equilibrate(canonical)
    return scaling.apply(canonical), scaling, is_present


def _classified(
    program: DenseProgram,
    scaling: Scaling,
    is_present: np.ndarray,
    solution: ConeSolution,
    row: int,
) -> ComplementaryPoint:
    """Return a solver's answer, every linear row moved onto the piece it belongs to."""
    x = solution.x[row] / scaling.column
    y, s = _answer(scaling, is_present, solution, row)
    linear = slice(0, program.cones.num_linear)
    known = solution.is_active[row][is_present][linear]
    is_active = known > 0
    if np.any(known < 0):
        is_active = np.where(known < 0, classify(program, x, y, s), is_active)
    is_active[: program.cones.zero] = True
    v = y - s
    v[linear] = np.where(is_active, y[linear], -s[linear])
    return ComplementaryPoint(program.cones, x, v, is_active)


def _answer(
    scaling: Scaling, is_present: np.ndarray, solution: ConeSolution, row: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return y and s as the solver found them, scaled."""
    y = scaling.cost * solution.y[row][is_present] / scaling.row
    return y, solution.s[row][is_present] * scaling.row


def scaled_point(
    program: DenseProgram,
    scaling: Scaling,
    is_present: np.ndarray,
    point: LinearizationPoint,
    row: int,
) -> ComplementaryPoint:
    """Return a point in the units of a scaled program: those of y and s, which v has not."""
    v, balance = point.v[row, is_present], point.balance[row, is_present]
    is_active = point.is_active[row, is_present][: program.cones.num_linear] > 0
    mu = 0.0 if point.smoothing is None else float(point.smoothing[row])
    # Apart from the central path, v alone tells: a rule may have moved it.
    dual = ComplementaryPoint(program.cones, point.x[row], v, is_active).y
    if mu > 0.0:
        dual = point.y[row, is_present] / balance
    y, s = scaling.cost * balance * dual / scaling.row, scaling.row * (dual - v) / balance
    return ComplementaryPoint(program.cones, point.x[row] / scaling.column, y - s, is_active, mu)


def _relative_residual(program: DenseProgram, point: ComplementaryPoint) -> float:
    upper, lower = residual(program, point)
    size = _largest(point.x, point.v, program.q, program.b)
    return _largest(upper, lower) / size if size > 0.0 else 0.0


def _largest(*vectors: np.ndarray) -> float:
    return max(float(np.max(np.abs(vector), initial=0.0)) for vector in vectors)
