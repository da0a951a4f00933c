# SPDX-License-Identifier: Apache-2.0
"""The rules for derivatives of solutions and of their derivatives, as written in the docs."""

from __future__ import annotations

import numpy as np

from cvxlayer.differentiate.primitives import apply, curvature
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.solution import LinearizationPoint


def tangent_of_solution(
    batch: ConeProgramBatch, point: LinearizationPoint, direction: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (dx, dy, ds), each with one right-hand side, along a direction of the data."""
    upper, lower = _products(batch, direction, point.x[:, None], point.y[:, None])
    dq, db = (
        np.broadcast_to(direction[name], point_part.shape)
        for name, point_part in (("q", point.x), ("b", point.y))
    )
    gy = np.where(np.isfinite(point.v), db, 0.0)[:, None] - lower
    dx, dy, _ = apply(batch, point, -(upper + dq[:, None]), gy)
    return dx, dy, gy - _multiply_A(batch, batch.A, dx)


def change_of_apply(
    batch: ConeProgramBatch,
    point: LinearizationPoint,
    direction: dict[str, np.ndarray],
    gx: np.ndarray,
    gy: np.ndarray,
    gs: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (dλ, dν) for fixed right-hand sides, as the data and the solution move."""
    lam, nu, _ = apply(batch, point, gx, gy, gs)
    _, dy, ds = tangent_of_solution(batch, point, direction)
    omega = point.balance[:, None]
    p = omega * (_multiply_A(batch, batch.A, lam) - gy) + (nu - gs) / omega
    p = np.where(np.isfinite(point.v)[:, None], p, 0.0)
    t = curvature(batch, point, p, dy / omega - omega * ds)
    upper, lower = _products(batch, direction, lam, nu)
    dlam, dnu, _ = apply(batch, point, -upper, -lower - t / omega, omega * t)
    return dlam, dnu


def _products(
    batch: ConeProgramBatch, direction: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return dP x + dAᵀy and dA x for the stored entries of a direction."""
    structure = batch.structure
    upper = np.zeros_like(x)
    i, j = structure.P_indices, _columns(structure.P_indptr)
    dP = np.broadcast_to(direction["P"], (batch.size, len(i)))[:, None]
    np.add.at(upper, (..., i), dP * x[..., j])
    np.add.at(upper, (..., j), np.where(i == j, 0.0, dP) * x[..., i])
    i, j = structure.A_indices, _columns(structure.A_indptr)
    dA = np.broadcast_to(direction["A"], (batch.size, len(i)))[:, None]
    np.add.at(upper, (..., j), dA * y[..., i])
    return upper, _multiply_A(batch, direction["A"], x)


def _multiply_A(batch: ConeProgramBatch, entries: np.ndarray, x: np.ndarray) -> np.ndarray:
    structure = batch.structure
    i, j = structure.A_indices, _columns(structure.A_indptr)
    result = np.zeros((*x.shape[:2], structure.num_rows))
    np.add.at(result, (..., i), np.broadcast_to(entries, (batch.size, len(i)))[:, None] * x[..., j])
    return result


def _columns(indptr: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
