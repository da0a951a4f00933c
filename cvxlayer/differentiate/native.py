# SPDX-License-Identifier: Apache-2.0
"""The derivative of the solution map in our C++ engine, batched.

The readable specification is `conic.py`; tests hold the two against each other.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvxlayer import _native
from cvxlayer.differentiate.examination import Examination
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent, ConeProgramStructure
from cvxlayer.program.engine import count_threads, prepare_engine
from cvxlayer.program.solution import ConeSolution, LinearizationPoint

_Rows = np.ndarray
_Solved = tuple[
    int, _Rows, _Rows, _Rows, _Rows,  # batch, P, q, A, b
    _Rows, _Rows, _Rows, _Rows, _Rows,  # x, y, s, status, active rows
    _Rows | None, _Rows | None,  # the scaling of the solve
]  # fmt: skip

_Point = tuple[_Rows, _Rows, _Rows, _Rows, _Rows, _Rows, _Rows]


def _solved(batch: ConeProgramBatch, solution: ConeSolution) -> _Solved:
    """Return what the core reads of a batch and its solutions, in its order."""
    scale, cost = solution.scaling or (None, None)
    return (
        batch.size,
        batch.P,
        batch.q,
        batch.A,
        batch.b,
        solution.x,
        solution.y,
        solution.s,
        np.ascontiguousarray(solution.status, np.int8),
        np.ascontiguousarray(solution.is_active, np.int8),
        scale,
        cost,
    )


def pull_back(
    engine: _native.Engine,
    batch: ConeProgramBatch,
    solution: ConeSolution,
    x_bar: Float[np.ndarray, "batch n"] | None,
    y_bar: Float[np.ndarray, "batch m"] | None,
    s_bar: Float[np.ndarray, "batch m"] | None,
    *,
    needs: tuple[bool, bool, bool, bool] = (True, True, True, True),
    mu: float = 0.0,
    threads: int = 1,
    width: int = 0,
) -> ConeProgramCotangent:
    """Pull cotangents of (x, y, s) back to (P, q, A, b), all in canonical scaling.

    The transpose of the derivative of the solution map at `solution`, after one semismooth
    Newton step from it. Where active linear rows are dependent the multiplier moves to a
    vertex first, so that the derivative is that of an adjacent piece.

    Args:
        engine: of the batch's structure.
        batch: the data that was solved.
        solution: what the solve returned.
        x_bar: cotangent of x; None means zero.
        y_bar: cotangent of y.
        s_bar: cotangent of s.
        needs: which of P, q, A, b to compute.
        mu: where positive, the derivative is that of the central path; see `central_path`.
        threads: threads over the batch.
        width: number of SIMD lanes; 0 chooses.

    Returns:
        Cotangents with one row per instance; exactly zero for rows without a solution.
        `residual` is the relative residual of each adjoint system.

    Source:
        docs/derivations/derivative.md; Busseti, Moursi & Boyd (COAP 74, 2019) for the polish.
    """
    structure, size = batch.structure, batch.size
    sizes = (structure.num_P, structure.num_variables, structure.num_A, structure.num_rows)
    P_bar, q_bar, A_bar, b_bar = (
        np.empty((size, length)) if needed else None
        for needed, length in zip(needs, sizes, strict=True)
    )
    residual = np.empty(size)
    engine.pull_back(
        *_solved(batch, solution),
        x_bar,
        y_bar,
        s_bar,
        P_bar,
        q_bar,
        A_bar,
        b_bar,
        residual,
        mu,
        threads,
        width,
    )
    return ConeProgramCotangent(P_bar, q_bar, A_bar, b_bar, residual)


def refine(
    engine: _native.Engine,
    batch: ConeProgramBatch,
    solution: ConeSolution,
    *,
    mu: float = 0.0,
    threads: int = 1,
    width: int = 0,
) -> LinearizationPoint:
    """Return where the solution map is differentiated; see `primitives.refine`.

    Args:
        engine: of the batch's structure.
        batch: the data that was solved.
        solution: what the solve returned.
        mu: where positive, the point of the central path instead; see `central_path.refine`.
        threads: threads over the batch.
        width: number of SIMD lanes; 0 chooses.
    """
    point = _empty_point(batch)
    engine.refine(*_solved(batch, solution), *_written(point), mu, threads, width)
    return point


def _empty_point(batch: ConeProgramBatch) -> LinearizationPoint:
    """Return a point for the core to fill in."""
    n, m, size = batch.structure.num_variables, batch.structure.num_rows, batch.size
    x, (y, v, balance) = np.empty((size, n)), np.empty((3, size, m))
    is_active, has_solution = np.empty((size, m), np.int8), np.empty(size, bool)
    return LinearizationPoint(x, y, v, balance, is_active, has_solution, np.empty(size))


def _written(point: LinearizationPoint) -> _Point:
    """Return what the core writes of a point, in its order."""
    return (
        point.x,
        point.y,
        point.v,
        point.balance,
        point.is_active,
        point.has_solution.view(np.int8),
        point.residual,
    )


def examine(
    engine: _native.Engine,
    batch: ConeProgramBatch,
    solution: ConeSolution,
    *,
    threads: int = 1,
    width: int = 0,
) -> Examination:
    """Examine the points where solutions are differentiated; see `examination.examine`.

    Args:
        engine: of the batch's structure.
        batch: the data that was solved.
        solution: what the solve returned.
        threads: threads over the batch.
        width: number of SIMD lanes; 0 chooses.
    """
    n, m, size = batch.structure.num_variables, batch.structure.num_rows, batch.size
    cost, largest, smallest = np.empty((3, size))
    found = Examination(
        point=_empty_point(batch),
        position=np.empty((size, m)),
        factors=np.empty((size, n + m)),
        cost=cost,
        null_x=np.empty((size, n)),
        null_y=np.empty((size, m)),
        largest=largest,
        smallest=smallest,
    )
    engine.examine(
        *_solved(batch, solution),
        *_written(found.point),
        found.position,
        found.factors,
        found.cost,
        found.null_x,
        found.null_y,
        found.largest,
        found.smallest,
        threads,
        width,
    )
    return found


def apply(
    engine: _native.Engine,
    batch: ConeProgramBatch,
    point: LinearizationPoint,
    gx: Float[np.ndarray, "batch count n"] | None,
    gy: Float[np.ndarray, "batch count m"] | None,
    gs: Float[np.ndarray, "batch count m"] | None,
    *,
    mu: float = 0.0,
    threads: int = 1,
    width: int = 0,
) -> tuple[
    Float[np.ndarray, "batch count n"],
    Float[np.ndarray, "batch count m"],
    Float[np.ndarray, "batch count"],
]:
    """Solve the linearized optimality conditions; see `primitives.apply`.

    Args:
        engine: of the batch's structure.
        batch: the data.
        point: where.
        gx: right-hand sides, `count` for each instance with one factorization; None for zero.
        gy: likewise.
        gs: likewise.
        mu: as of `refine`.
        threads: threads over the batch.
        width: number of SIMD lanes; 0 chooses.
    """
    count = next(g.shape[1] for g in (gx, gy, gs) if g is not None)
    n, m, size = batch.structure.num_variables, batch.structure.num_rows, batch.size
    lam, nu = np.empty((size, count, n)), np.empty((size, count, m))
    residual = np.empty((size, count))
    engine.apply(
        size,
        batch.P,
        batch.q,
        batch.A,
        batch.b,
        point.v,
        point.balance,
        np.ascontiguousarray(point.is_active, np.int8),
        np.ascontiguousarray(point.has_solution, np.int8),
        None if gx is None else np.ascontiguousarray(gx),
        None if gy is None else np.ascontiguousarray(gy),
        None if gs is None else np.ascontiguousarray(gs),
        lam,
        nu,
        residual,
        mu,
        threads,
        width,
    )
    return lam, nu, residual


def curvature(
    engine: _native.Engine,
    point: LinearizationPoint,
    first: Float[np.ndarray, "batch count m"],
    second: Float[np.ndarray, "batch count m"],
    *,
    mu: float = 0.0,
    threads: int = 1,
    width: int = 0,
) -> Float[np.ndarray, "batch count m"]:
    """Return D²Π(v)[p, p']; see `primitives.curvature`, which has the meaning of the arguments.

    Args:
        engine: of the structure.
        point: where.
        first: p.
        second: p'.
        mu: as of `refine`.
        threads: threads over the batch.
        width: number of SIMD lanes; 0 chooses.
    """
    result = np.empty(first.shape)
    engine.curvature(
        point.v,
        np.ascontiguousarray(point.has_solution, np.int8),
        np.ascontiguousarray(first),
        np.ascontiguousarray(second),
        result,
        mu,
        threads,
        width,
    )
    return result


class NativeDerivative:
    """`pull_back` in the form the compiler asks for."""

    def setup(self, structure: ConeProgramStructure) -> _native.Engine:
        """Order and analyze the KKT matrices of the structure."""
        return prepare_engine(structure)

    def vjp(
        self,
        prepared: _native.Engine,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        x_bar: Float[np.ndarray, "batch n"] | None,
        y_bar: Float[np.ndarray, "batch m"] | None,
        s_bar: Float[np.ndarray, "batch m"] | None,
        *,
        needs: tuple[bool, bool, bool, bool] = (True, True, True, True),
        threads: int | None = None,
    ) -> ConeProgramCotangent:
        """Return the cotangent of the data; see `pull_back`. Threads: None for all cores."""
        return pull_back(
            prepared,
            batch,
            solution,
            x_bar,
            y_bar,
            s_bar,
            needs=needs,
            threads=count_threads(threads),
        )

    def refine(
        self,
        prepared: _native.Engine,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        *,
        threads: int | None = None,
    ) -> LinearizationPoint:
        """Return the point of differentiation; see `primitives.refine`."""
        return refine(prepared, batch, solution, threads=count_threads(threads))

    def examine(
        self,
        prepared: _native.Engine,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        *,
        threads: int | None = None,
    ) -> Examination:
        """Return how regular these points are; see `examination.examine`."""
        return examine(prepared, batch, solution, threads=count_threads(threads))

    def apply(
        self,
        prepared: _native.Engine,
        batch: ConeProgramBatch,
        point: LinearizationPoint,
        gx: Float[np.ndarray, "batch count n"] | None,
        gy: Float[np.ndarray, "batch count m"] | None,
        gs: Float[np.ndarray, "batch count m"] | None,
        *,
        threads: int | None = None,
    ) -> tuple[
        Float[np.ndarray, "batch count n"],
        Float[np.ndarray, "batch count m"],
        Float[np.ndarray, "batch count"],
    ]:
        """Solve the linearized optimality conditions; see `primitives.apply`."""
        return apply(prepared, batch, point, gx, gy, gs, threads=count_threads(threads))

    def curvature(
        self,
        prepared: _native.Engine,
        batch: ConeProgramBatch,
        point: LinearizationPoint,
        first: Float[np.ndarray, "batch count m"],
        second: Float[np.ndarray, "batch count m"],
        *,
        threads: int | None = None,
    ) -> Float[np.ndarray, "batch count m"]:
        """Return D²Π(v)[p, p']; see `primitives.curvature`."""
        del batch
        return curvature(prepared, point, first, second, threads=count_threads(threads))
