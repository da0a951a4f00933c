# SPDX-License-Identifier: Apache-2.0
"""The cones, once, with points in all their regions."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import numpy as np

from cvxlayer.cones import (
    exponential,
    nonnegative,
    power,
    second_order,
    semidefinite,
    zero,
)


@dataclasses.dataclass(frozen=True)
class ConeCase:
    """One cone in one dimension, with its further arguments."""

    cone: ModuleType
    dim: int
    arguments: tuple[float, ...] = ()

    def __str__(self) -> str:
        name = self.cone.__name__.rsplit(".", 1)[-1]
        return "-".join([name, *(str(number) for number in self.arguments or (self.dim,))])

    def call(self, function: str, point: np.ndarray, *directions: np.ndarray) -> np.ndarray:
        """Call a function of the cone's file."""
        return getattr(self.cone, function)(point, *directions, *self.arguments)

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
        if self.cone is exponential:
            r, scale, t = point.T
            positive = np.where(scale > 0.0, scale, 1.0)
            with np.errstate(over="ignore"):
                on_curve = (scale > 0.0) & (positive * np.exp(r / positive) <= t + tolerance)
            on_face = (np.abs(scale) <= tolerance) & (r <= tolerance) & (t >= -tolerance)
            return on_curve | on_face
        if self.cone is power:
            (alpha,) = self.arguments
            first, second = np.maximum(point[:, 0], 0.0), np.maximum(point[:, 1], 0.0)
            is_positive = np.all(point[:, :2] >= -tolerance, axis=1)
            mean = first**alpha * second ** (1.0 - alpha)
            return is_positive & (np.abs(point[:, 2]) <= mean + tolerance)
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
CONES += [ConeCase(exponential, 3)]
CONES += [ConeCase(power, 3, (alpha,)) for alpha in (0.1, 0.5, 0.7)]
