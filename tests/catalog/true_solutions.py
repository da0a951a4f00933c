# SPDX-License-Identifier: Apache-2.0
"""True solutions, to rounding, by Newton's method on the nonsymmetric residual map.

Shares with the library the projections, which are tested by themselves, and the choice of
units, which is a mere change of variables.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from cvxlayer.cones import projection
from cvxlayer.differentiate.residual_map import DenseProgram
from cvxlayer.differentiate.scaling import equilibrate
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend

BLOCKS = ("P", "q", "A", "b")


def solve_accurately(batch: ConeProgramBatch, eps: float = 1e-9) -> ConeSolution:
    """Solve by Clarabel, an engine that is not ours."""
    backend = get_backend("clarabel")
    return backend.solve(backend.setup(batch.structure), batch, Settings(eps, eps))


def refine(
    batch: ConeProgramBatch,
    x: np.ndarray,
    y: np.ndarray,
    s: np.ndarray,
    *,
    is_unique: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y, s of every row, from nearby values, to rounding.

    Where they are not unique, the steps are the shortest.
    """
    refined = [
        _refine_row(batch, row, x[row], y[row], s[row], is_unique) for row in range(batch.size)
    ]
    return tuple(np.array(part) for part in zip(*refined, strict=True))


def _refine_row(
    batch: ConeProgramBatch, row: int, x: np.ndarray, y: np.ndarray, s: np.ndarray, is_unique: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    P, q, A, b = batch.instance(row)
    P, A = P.toarray(), A.toarray()
    is_present = np.isfinite(b)
    cones = batch.structure.cones
    program = DenseProgram(
        cones, P + np.triu(P, 1).T, q, A * is_present[:, None], np.where(is_present, b, 1.0)
    )
    # In equilibrated units, where y − s does not drown one in the other.
    units = equilibrate(program)
    program = units.apply(program)
    x, y, s = x / units.column, units.cost * y / units.row, s * units.row
    v = np.where(is_present, y - s, -units.row)
    n, m = len(q), len(b)
    for _ in range(8):
        y = projection.project_dual(cones, v[None])[0]
        D = projection.project_dual_derivative(cones, v[None])[0]
        right = np.concatenate(
            [program.P @ x + program.A.T @ y + program.q, program.A @ x + y - v - program.b]
        )
        matrix = np.block([[program.P, program.A.T @ D], [program.A, D - np.eye(m)]])
        if is_unique:
            step = np.linalg.solve(matrix, -right)
        else:
            step = np.linalg.lstsq(matrix, -right, rcond=1e-10)[0]
        x, v = x + step[:n], v + step[n:]
    y = projection.project_dual(cones, v[None])[0]
    s = np.where(is_present, (y - v) / units.row, np.inf)
    return x * units.column, y * units.row / units.cost, s


def perturbed(
    batch: ConeProgramBatch, direction: dict[str, np.ndarray], step: float
) -> ConeProgramBatch:
    """Return the batch with its data moved along a direction."""
    moved = {name: getattr(batch, name) + step * direction[name] for name in BLOCKS}
    return dataclasses.replace(batch, **moved)


def random_direction(batch: ConeProgramBatch, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return tangents of the data, each entry of the size of what it moves."""
    direction = {}
    for name in BLOCKS:
        block = getattr(batch, name)
        size = np.where(np.isfinite(block), np.abs(block), 0.0)
        direction[name] = rng.normal(size=block.shape) * size
    return direction
