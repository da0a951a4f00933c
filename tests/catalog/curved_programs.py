# SPDX-License-Identifier: Apache-2.0
"""One cone program with a known primal and dual solution for each curved cone.

In each the rows of the cone are all different, so that a wrong order or sign shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.program.batch import ConeProgramBatch
from tests.catalog.cone_programs import batch_of

Solutions = tuple[ConeProgramBatch, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class CurvedCase:
    """A batch of programs over one kind of curved cone, with x and y of each."""

    kind: ConeKind
    build: Callable[[np.random.Generator], Solutions]

    def __str__(self) -> str:
        return self.kind.name.lower()


def _instances(cones: ConeProduct, q: np.ndarray, A: np.ndarray, b: np.ndarray) -> ConeProgramBatch:
    """Return one instance for each row of b."""
    n, size = len(q), len(b)
    return batch_of(cones, [np.zeros((n, n))] * size, [q] * size, [A] * size, list(b))


def _second_order(rng: np.random.Generator) -> Solutions:
    """minimize t subject to ‖z‖ ≤ t: t = ‖z‖ and y = (1, −z/‖z‖)."""
    z = rng.normal(size=(3, 4))
    A = np.concatenate([[[-1.0]], np.zeros((4, 1))])
    b = np.concatenate([np.zeros((3, 1)), z], axis=1)
    size = np.linalg.norm(z, axis=1, keepdims=True)
    y = np.concatenate([np.ones((3, 1)), -z / size], axis=1)
    return _instances(ConeProduct(second_order=(5,)), np.ones(1), A, b), size, y


def _semidefinite(rng: np.random.Generator) -> Solutions:
    """maximize λ subject to M − λI ⪰ 0: the smallest eigenvalue, y = svec of its projector."""
    root = rng.normal(size=(3, 4, 4))
    matrix = root + root.transpose(0, 2, 1)
    eigenvalues, vectors = np.linalg.eigh(matrix)
    projector = vectors[:, :, :1] * vectors[:, None, :, 0]
    cones = ConeProduct(semidefinite=(4,))
    A = _svec(np.eye(4)[None]).T
    x = eigenvalues[:, :1]
    return _instances(cones, -np.ones(1), A, _svec(matrix)), x, _svec(projector)


def _exponential(rng: np.random.Generator) -> Solutions:
    """minimize t subject to eᵃ ≤ t: t = eᵃ and y = (−eᵃ, (a − 1)eᵃ, 1)."""
    a = rng.normal(size=(3, 1))
    A = np.array([[0.0], [0.0], [-1.0]])
    b = np.concatenate([a, np.ones((3, 1)), np.zeros((3, 1))], axis=1)
    x = np.exp(a)
    y = np.concatenate([-x, (a - 1.0) * x, np.ones((3, 1))], axis=1)
    return _instances(ConeProduct(exponential=1), np.ones(1), A, b), x, y


def _power(rng: np.random.Generator) -> Solutions:
    """maximize z subject to z ≤ uᵅv¹⁻ᵅ: y = (αz/u, (1 − α)z/v, −1)."""
    alpha = 0.3
    u, v = rng.uniform(0.5, 3.0, size=(2, 3, 1))
    A = np.array([[0.0], [0.0], [-1.0]])
    b = np.concatenate([u, v, np.zeros((3, 1))], axis=1)
    z = u**alpha * v ** (1.0 - alpha)
    y = np.concatenate([alpha * z / u, (1.0 - alpha) * z / v, -np.ones((3, 1))], axis=1)
    return _instances(ConeProduct(power=(alpha,)), -np.ones(1), A, b), z, y


def _svec(matrix: np.ndarray) -> np.ndarray:
    """Return lower triangles column by column, off-diagonals times √2."""
    column, row = np.triu_indices(matrix.shape[1])
    return matrix[:, row, column] * np.where(row == column, 1.0, np.sqrt(2.0))


CURVED = [
    CurvedCase(ConeKind.SECOND_ORDER, _second_order),
    CurvedCase(ConeKind.SEMIDEFINITE, _semidefinite),
    CurvedCase(ConeKind.EXPONENTIAL, _exponential),
    CurvedCase(ConeKind.POWER, _power),
]
