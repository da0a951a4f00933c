# SPDX-License-Identifier: Apache-2.0
"""Projections onto a product of cones: block by block, each by the file of its cone."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
from jaxtyping import Float

from cvxlayer.cones import (
    exponential,
    nonnegative,
    power,
    second_order,
    semidefinite,
    zero,
)
from cvxlayer.cones.product import ConeKind, ConeProduct

_FILES: dict[ConeKind, ModuleType] = {
    ConeKind.SECOND_ORDER: second_order,
    ConeKind.SEMIDEFINITE: semidefinite,
    ConeKind.EXPONENTIAL: exponential,
    ConeKind.POWER: power,
}
_SYMMETRIC = (second_order, semidefinite)


def blocks(cones: ConeProduct) -> Iterator[tuple[ModuleType, slice, tuple[float, ...]]]:
    """Yield the file of each cone, the rows it owns and its further arguments, in order."""
    if cones.zero:
        yield zero, slice(0, cones.zero), ()
    if cones.nonnegative:
        yield nonnegative, slice(cones.zero, cones.num_linear), ()
    for cone in cones.curved:
        arguments = (cone.parameter,) if cone.kind is ConeKind.POWER else ()
        yield _FILES[cone.kind], cone.rows, arguments


def project(
    cones: ConeProduct, point: Float[np.ndarray, "batch m"]
) -> Float[np.ndarray, "batch m"]:
    """Project each row onto K."""
    return _concatenate(cones, point, "project")


def project_dual(
    cones: ConeProduct, point: Float[np.ndarray, "batch m"]
) -> Float[np.ndarray, "batch m"]:
    """Project each row onto the dual cone K*."""
    return _concatenate(cones, point, "project_dual")


def project_dual_derivative(
    cones: ConeProduct, point: Float[np.ndarray, "batch m"]
) -> Float[np.ndarray, "batch m m"]:
    """Return the derivative of `project_dual` at each row: symmetric, block diagonal, 0 ⪯ D ⪯ I."""
    return _block_diagonal(cones, point, "project_dual_derivative")


def project_dual_derivative_root(
    cones: ConeProduct, point: Float[np.ndarray, "batch m"]
) -> Float[np.ndarray, "batch m m"]:
    """Return the symmetric square root of `project_dual_derivative` at each row."""
    return _block_diagonal(cones, point, "project_dual_derivative_root")


def project_dual_second_derivative(
    cones: ConeProduct,
    point: Float[np.ndarray, "batch m"],
    first: Float[np.ndarray, "batch m"],
    second: Float[np.ndarray, "batch m"],
) -> Float[np.ndarray, "batch m"]:
    """Return D²Π(v)[p, p'] of `project_dual` for each row v, p and p'; zero on linear rows."""
    return _concatenate(cones, point, "project_dual_second_derivative", first, second)


def smoothed_derivative_root(
    cones: ConeProduct, point: Float[np.ndarray, "batch m"], mu: float
) -> Float[np.ndarray, "batch m m"]:
    """Return `project_dual_derivative_root` with symmetric curved cones on the central path."""
    result = project_dual_derivative_root(cones, point)
    for cone in cones.curved:
        file = _FILES[cone.kind]
        if file in _SYMMETRIC:
            rows = cone.rows
            result[:, rows, rows] = file.smoothed_derivative_root(point[:, rows], mu)
    return result


def _concatenate(
    cones: ConeProduct, point: np.ndarray, function: str, *directions: np.ndarray
) -> np.ndarray:
    result = np.empty_like(point)
    for cone, rows, arguments in blocks(cones):
        parts = (vector[:, rows] for vector in (point, *directions))
        result[:, rows] = getattr(cone, function)(*parts, *arguments)
    return result


def _block_diagonal(cones: ConeProduct, point: np.ndarray, function: str) -> np.ndarray:
    batch, m = point.shape
    result = np.zeros((batch, m, m))
    for cone, rows, arguments in blocks(cones):
        result[:, rows, rows] = getattr(cone, function)(point[:, rows], *arguments)
    return result
