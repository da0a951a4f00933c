# SPDX-License-Identifier: Apache-2.0
"""The cones, once, with points in all their regions."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import numpy as np

from cvxlayer.cones import nonnegative, second_order, semidefinite, zero


@dataclasses.dataclass(frozen=True)
class ConeCase:
    """One cone in one dimension."""

    cone: ModuleType
    dim: int

    def __str__(self) -> str:
        return f"{self.cone.__name__.rsplit('.', 1)[-1]}-{self.dim}"

    def points(self, rng: np.random.Generator, batch: int = 60) -> np.ndarray:
        """Random rows; one direction is spread so that every region of the cone is met."""
        point = rng.normal(size=(batch, self.dim))
        if self.cone is semidefinite:
            identity = np.eye(semidefinite.order_of(self.dim))[None]
            return point + semidefinite.pack(identity) * rng.normal(scale=4.0, size=(batch, 1))
        point[:, 0] *= 3.0
        return point

    def contains(self, point: np.ndarray, tolerance: float) -> np.ndarray:
        """Whether each row lies in the cone, from the definition of the cone alone."""
        if self.cone is zero:
            return np.all(np.abs(point) <= tolerance, axis=1)
        if self.cone is nonnegative:
            return np.all(point >= -tolerance, axis=1)
        if self.cone is semidefinite:
            return np.linalg.eigvalsh(semidefinite.unpack(point)).min(axis=1) >= -tolerance
        return np.linalg.norm(point[:, 1:], axis=1) <= point[:, 0] + tolerance


CONES = [
    ConeCase(cone, dim)
    for cone, dims in [
        (zero, (1, 4)),
        (nonnegative, (1, 5)),
        (second_order, (1, 2, 3, 8)),
        (semidefinite, (1, 3, 6, 15)),
    ]
    for dim in dims
]
