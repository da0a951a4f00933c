# SPDX-License-Identifier: Apache-2.0
"""Is this the solution, or a certificate? Asked of the numbers alone, in plain dense NumPy,
sharing nothing with the code that made them."""

from __future__ import annotations

import math

import numpy as np

from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.program.batch import ConeProgramBatch

NEGLIGIBLE = 1e-20


def optimality_error(
    batch: ConeProgramBatch, row: int, x: np.ndarray, y: np.ndarray, s: np.ndarray, unit: float
) -> float:
    """Return how far (x, y, s) is from optimal: the largest violation over its scale.

    Each of the conditions is measured against `unit` plus the largest of its terms.
    """
    P, q, A, b = _dense(batch, row)
    is_there = ~np.isposinf(b)
    A, b, y, s = A[is_there], b[is_there], y[is_there], s[is_there]
    cones = _without(batch.structure.cones, is_there)
    Px, Aty, Ax = P @ x, A.T @ y, A @ x
    quadratic, linear, dual = float(x @ Px), float(q @ x), float(b @ y)
    return max(
        _relative(Ax + s - b, unit, Ax, s, b),
        _relative(Px + Aty + q, unit, Px, Aty, q),
        _relative(
            np.array([quadratic + linear + dual]),
            unit,
            np.array([0.5 * quadratic + linear, 0.5 * quadratic + dual]),
        ),
        _relative(outside(cones, s), unit, s),
        _relative(outside_dual(cones, y), unit, y),
    )


def infeasibility_error(batch: ConeProgramBatch, row: int, y: np.ndarray) -> float:
    """Return how far y is from a proof of infeasibility: bᵀy = −1, Aᵀy = 0, y ∈ K*.

    An error of ε leaves room for solutions of size 1/ε only, in balanced units.
    """
    P, _, A, b = _dense(batch, row)
    cones = batch.structure.cones
    # A bound of +∞ is none, and one of −∞ rules out everything by itself.
    linear = np.arange(len(b)) < cones.num_linear
    is_bounded = ~(linear & np.isinf(b)) | (np.arange(len(b)) < cones.zero)
    A = np.where(is_bounded[:, None], A, 0.0)
    b = np.where(is_bounded, b, np.sign(b))
    d, _ = _units(P, A)
    return max(
        float(np.max(d * np.abs(A.T @ y), initial=0.0)),
        _relative(outside_dual(cones, y), 0.0, y),
        abs(float(b @ y) + 1.0),
    )


def unboundedness_error(batch: ConeProgramBatch, row: int, x: np.ndarray, s: np.ndarray) -> float:
    """Return how far (x, s) is from a ray: qᵀx = −1, Px = 0, Ax + s = 0, s ∈ K.

    An error of ε leaves room for dual solutions of size 1/ε only, in balanced units.
    """
    P, q, A, b = _dense(batch, row)
    is_there = ~np.isposinf(b)
    A, s = A[is_there], s[is_there]
    cones = _without(batch.structure.cones, is_there)
    d, e = _units(P, A)
    cost = float(np.max(np.abs(d * q), initial=0.0))
    return max(
        float(np.max(d * np.abs(P @ x), initial=0.0)),
        float(np.max(e * np.abs(A @ x + s), initial=0.0)) * cost,
        _relative(outside(cones, s), 0.0, s),
        abs(float(q @ x) + 1.0),
    )


def _units(P: np.ndarray, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return units (d, e) of variables and rows in which [P Aᵀ; A 0] has rows of norm one."""
    d, e = np.ones(A.shape[1]), np.ones(A.shape[0])
    # What is smaller than this beside the rest does not make a unit.
    A = np.where(np.abs(A) > NEGLIGIBLE * np.abs(A).max(initial=1.0), A, 0.0)
    P = np.where(np.abs(P) > NEGLIGIBLE * np.abs(P).max(initial=1.0), P, 0.0)
    for _ in range(20):
        scaled, curved = np.abs(e[:, None] * A * d), np.abs(d[:, None] * P * d)
        rows, columns = scaled.max(axis=1, initial=0.0), scaled.max(axis=0, initial=0.0)
        columns = np.maximum(columns, curved.max(axis=0, initial=0.0))
        e /= np.sqrt(np.where(rows > 0.0, rows, 1.0))
        d /= np.sqrt(np.where(columns > 0.0, columns, 1.0))
    return d, e


def outside(cones: ConeProduct, s: np.ndarray) -> np.ndarray:
    """Return how far each part of a slack lies outside K."""
    parts = [np.abs(s[: cones.zero]), np.maximum(-s[cones.zero : cones.num_linear], 0.0)]
    parts += [_outside_curved(cone.kind, s[cone.rows]) for cone in cones.curved]
    return np.concatenate([np.zeros(1), *parts])


def outside_dual(cones: ConeProduct, y: np.ndarray) -> np.ndarray:
    """Return how far each part of a dual lies outside K*."""
    parts = [np.maximum(-y[cones.zero : cones.num_linear], 0.0)]
    parts += [_outside_curved(cone.kind, y[cone.rows]) for cone in cones.curved]
    return np.concatenate([np.zeros(1), *parts])


def _outside_curved(kind: ConeKind, u: np.ndarray) -> np.ndarray:
    if kind is ConeKind.SECOND_ORDER:
        return np.array([max(0.0, math.hypot(*u[1:]) - u[0])])
    raise NotImplementedError(kind)


def _without(cones: ConeProduct, is_there: np.ndarray) -> ConeProduct:
    """Only rows of the nonnegative cone may be left out."""
    return cones.with_linear(
        cones.zero, int(np.count_nonzero(is_there[cones.zero : cones.num_linear]))
    )


def _relative(violation: np.ndarray, unit: float, *terms: np.ndarray) -> float:
    scale = unit + max(float(np.max(np.abs(term), initial=0.0)) for term in terms)
    largest = float(np.max(np.abs(violation), initial=0.0))
    if np.isnan(violation).any():
        return np.inf
    return 0.0 if largest == 0.0 else largest / scale if scale > 0.0 else np.inf


def _dense(
    batch: ConeProgramBatch, row: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    P, q, A, b = batch.instance(row)
    upper = P.toarray()
    return upper + np.triu(upper, 1).T, q, A.toarray(), b
