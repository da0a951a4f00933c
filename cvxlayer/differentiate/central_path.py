# SPDX-License-Identifier: Apache-2.0
"""The primitives of the smoothed derivative, in NumPy: the specification of `adjoint/path.hpp`.

The solutions x_μ(θ) of P x + Aᵀy + q = 0, A x + s = b, s = −μ∇f*(y), f* the barrier of K*, are a
smooth function of the data, and everything of `primitives` holds for them with the Π_μ of
`cones.barrier` in the place of the projection. μ is meant in the units of the program: y s = μ for
an inequality, whatever scaling is chosen to compute in.

Dense, one instance after the other.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from cvxlayer.cones import barrier
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.primitives import apply_with, balance_of, equilibrated, unwritten_point
from cvxlayer.differentiate.residual_map import DenseProgram, KktMatrix
from cvxlayer.differentiate.scaling import Scaling
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.solution import ConeSolution, LinearizationPoint

_MAX_STEPS = 60
_MAX_HALVINGS = 30
_DECREASE = 1e-4
_CENTERED = 1e-14  # of the size of the point


@dataclasses.dataclass(frozen=True, eq=False)
class PathPoint:
    """A point of which s = −μ∇f*(y) is true by construction: y = Π_μ(v), s = y − v.

    Attributes:
        cones: K.
        mu: μ, in the scaling of the point.
        is_empty: rows without a nonzero entry, which bound nothing: their y and D are zero.
        x: primal point.
        v: y − s.
    """

    cones: ConeProduct
    mu: float
    is_empty: Bool[np.ndarray, " m"]
    x: Float[np.ndarray, " n"]
    v: Float[np.ndarray, " m"]

    @property
    def y(self) -> Float[np.ndarray, " m"]:
        """The dual point, Π_μ(v)."""
        return np.where(self.is_empty, 0.0, barrier.project(self.cones, self.v, self.mu))

    def projection_root(self) -> Float[np.ndarray, "m m"]:
        """Return S, the square root of D = DΠ_μ(v)."""
        # Not of `self.y`, which is no point inside where rows are empty.
        y = barrier.project(self.cones, self.v, self.mu)
        values, vectors = np.linalg.eigh(barrier.project_derivative(self.cones, y, self.mu))
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        root[self.is_empty] = root[:, self.is_empty] = 0.0
        return root


def residual(
    program: DenseProgram, point: PathPoint
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Return (P x + Aᵀy + q, A x + s − b): zero on the path, for whatever (x, v)."""
    y = point.y
    return (
        program.P @ point.x + program.A.T @ y + program.q,
        program.A @ point.x + y - point.v - program.b,
    )


def center(program: DenseProgram, point: PathPoint) -> PathPoint:
    """Move a point onto the path, by Newton's method with a search along each step.

    Args:
        program: in equilibrated scaling, as the point.
        point: near a solution.
    """
    upper, lower = residual(program, point)
    size = _largest(upper, lower)
    for _ in range(_MAX_STEPS):
        if size <= _CENTERED * _largest(point.x, point.v, program.q, program.b):
            break
        root = point.projection_root()
        dx, eta, _ = KktMatrix(program, root).solve(-upper, -(root @ lower))
        dv = root @ eta + program.A @ dx + lower
        length = 1.0
        for _ in range(_MAX_HALVINGS):
            candidate = dataclasses.replace(point, x=point.x + length * dx, v=point.v + length * dv)
            upper, lower = residual(program, candidate)
            if _largest(upper, lower) <= (1.0 - _DECREASE * length) * size:
                break
            length *= 0.5
        else:
            break
        point, size = candidate, _largest(upper, lower)
    return point


def refine(batch: ConeProgramBatch, solution: ConeSolution, mu: float) -> LinearizationPoint:
    """Return the points of the path of μ, from solutions near it.

    Args:
        batch: the programs, canonical scaling.
        solution: what a backend found for them.
        mu: μ, in this scaling.
    """
    point = unwritten_point(batch, solution)
    for row in np.flatnonzero(point.has_solution).tolist():
        program, scaling, is_present = equilibrated(batch, row)
        d, e, k = scaling.column, scaling.row, scaling.cost
        y, s = k * solution.y[row, is_present] / e, e * solution.s[row, is_present]
        s[: program.cones.zero] = 0.0
        is_empty = _empty_rows(program)
        start = PathPoint(program.cones, k * mu, is_empty, solution.x[row] / d, y - s)
        found = center(program, start)
        y, s = e * found.y / k, (found.y - found.v) / e
        balance = balance_of(program.cones, y, s)
        point.x[row] = d * found.x
        point.y[row, is_present], point.balance[row, is_present] = y, balance
        point.v[row] = -np.inf
        point.v[row, is_present] = y / balance - s * balance
        size = _largest(found.x, found.v, program.q, program.b)
        point.residual[row] = _largest(*residual(program, found)) / max(size, 1e-300)
    return point


def apply(
    batch: ConeProgramBatch,
    point: LinearizationPoint,
    gx: Float[np.ndarray, "batch count n"] | None,
    gy: Float[np.ndarray, "batch count m"] | None,
    gs: Float[np.ndarray, "batch count m"] | None,
    mu: float,
) -> tuple[
    Float[np.ndarray, "batch count n"],
    Float[np.ndarray, "batch count m"],
    Float[np.ndarray, "batch count"],
]:
    """Solve what `primitives.apply` solves, with D = DΠ_μ(v).

    Args:
        batch: the programs, canonical scaling.
        point: where, from `refine`; of it v, balance and has_solution are read.
        gx: right-hand sides, `count` of them for each instance; None for zero.
        gy: likewise; one of the three has to be given.
        gs: likewise.
        mu: μ, in this scaling.
    """

    def find_root(
        program: DenseProgram, scaling: Scaling, is_present: np.ndarray, row: int
    ) -> Float[np.ndarray, "m_present m_present"]:
        e, k = scaling.row, scaling.cost
        v, balance = point.v[row, is_present], point.balance[row, is_present]
        dual = barrier.project(program.cones, v, mu)
        v = k * balance * dual / e - e * (dual - v) / balance
        is_empty = _empty_rows(program)
        return PathPoint(program.cones, k * mu, is_empty, point.x[row], v).projection_root()

    return apply_with(find_root, batch, point.has_solution, gx, gy, gs)


def curvature(
    batch: ConeProgramBatch,
    point: LinearizationPoint,
    first: Float[np.ndarray, "batch count m"],
    second: Float[np.ndarray, "batch count m"],
    mu: float,
) -> Float[np.ndarray, "batch count m"]:
    """Return D²Π_μ(v)[p, p'], as `primitives.curvature`; zero where v is infinite."""
    cones, result = batch.structure.cones, np.zeros_like(first)
    for row in np.flatnonzero(point.has_solution).tolist():
        is_present = np.isfinite(point.v[row])
        y = barrier.project(cones, np.where(is_present, point.v[row], 0.0), mu)
        for index in range(first.shape[1]):
            bent = barrier.project_second_derivative(
                cones, y, mu, first[row, index], second[row, index]
            )
            result[row, index] = np.where(is_present, bent, 0.0)
    return result


def _empty_rows(program: DenseProgram) -> Bool[np.ndarray, " m"]:
    is_empty = ~np.any(program.A, axis=1)
    is_empty[: program.cones.zero] = is_empty[program.cones.num_linear :] = False
    return is_empty


def _largest(*vectors: np.ndarray) -> float:
    return max(float(np.max(np.abs(vector), initial=0.0)) for vector in vectors)
