# SPDX-License-Identifier: Apache-2.0
"""How far a point is from optimal, told from the data and the point alone."""

from __future__ import annotations

import numpy as np

from cvxlayer.cones import projection, semidefinite
from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.program.batch import ConeProgramBatch


def kkt_residual(batch: ConeProgramBatch, x: np.ndarray, y: np.ndarray) -> float:
    """Largest KKT residual of the batch, from x (B, n) and y (B, m) alone (s = b − Ax).

    The maximum of the distances of s to K and of y to K*, of ‖Px + Aᵀy + q‖∞ and of
    |xᵀPx + qᵀx + bᵀy|, each relative to 1 + its largest term.
    """
    return max(_row_residual(batch, row, x[row], y[row]) for row in range(batch.size))


def _row_residual(batch: ConeProgramBatch, row: int, x: np.ndarray, y: np.ndarray) -> float:
    upper, q, A, b = batch.instance(row)
    is_present = np.isfinite(b)
    P = upper + upper.T
    P.setdiag(upper.diagonal())
    Px, Ax, Aty = P @ x, A @ x, A.T @ y
    slack = np.where(is_present, b - Ax, 0.0)
    cones, finite = batch.structure.cones, np.where(is_present, b, 0.0)
    terms = [float(x @ Px), float(q @ x), float(finite @ y)]
    found = (
        distance(cones, slack, dual=False) / (1 + _largest(Ax, finite)),
        distance(cones, y, dual=True) / (1 + _largest(y)),
        _largest(Px + Aty + q) / (1 + _largest(Px, Aty, q)),
        abs(sum(terms)) / (1 + max(map(abs, terms))),
    )
    return max(found) if np.isfinite([*found, *x, *y]).all() else np.inf


def distance(cones: ConeProduct, point: np.ndarray, *, dual: bool) -> float:
    """How far a point is outside of K (or K*): the largest violation over the cones."""
    linear = point[: cones.num_linear]
    worst = 0.0 if dual else _largest(linear[: cones.zero])
    worst = max(worst, -float(linear[cones.zero :].min(initial=0.0)))
    nearest = point
    if any(cone.kind in (ConeKind.EXPONENTIAL, ConeKind.POWER) for cone in cones.curved):
        nearest = (projection.project_dual if dual else projection.project)(cones, point[None])[0]
    for cone in cones.curved:
        part = point[cone.rows]
        if cone.kind is ConeKind.SECOND_ORDER:
            worst = max(worst, float(np.linalg.norm(part[1:]) - part[0]))
        elif cone.kind is ConeKind.SEMIDEFINITE:
            worst = max(worst, -float(np.linalg.eigvalsh(semidefinite.unpack(part[None])[0])[0]))
        else:
            worst = max(worst, _largest(part - nearest[cone.rows]))
    return worst


def _largest(*vectors: np.ndarray) -> float:
    return max(float(np.max(np.abs(vector), initial=0.0)) for vector in vectors)
