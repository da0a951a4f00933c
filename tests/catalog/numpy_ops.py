# SPDX-License-Identifier: Apache-2.0
"""NumPy as a framework of `tracing`: it lends functions, and differentiates nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvxlayer.cone_calls import ConeCalls
from cvxlayer.differentiate import primitives
from cvxlayer.differentiate.cone_pattern import ConePattern
from cvxlayer.differentiate.cone_rules import ConeData, ConeRules, Point, Solved
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure
from cvxlayer.program.solution import ConeSolution, LinearizationPoint


class NumpyOps:
    """The functions that `TraceOps` asks for."""

    def take(self, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
        return rows[..., index]

    def segment_sum(self, rows: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
        total = np.zeros((*rows.shape[:-1], size))
        np.add.at(total, (..., index), rows)
        return total

    def where(self, condition: np.ndarray, rows: Any, otherwise: Any) -> np.ndarray:
        return np.where(condition, rows, otherwise)

    def broadcast_to(self, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(rows, shape)

    def constant(self, array: np.ndarray) -> np.ndarray:
        return array

    def log(self, rows: np.ndarray) -> np.ndarray:
        return np.log(rows)

    def exp(self, rows: np.ndarray) -> np.ndarray:
        return np.exp(rows)

    def isinf(self, rows: np.ndarray) -> np.ndarray:
        return np.isinf(rows)

    def constant_of(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def concatenate(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts, axis=-1)

    def to_real(self, values: np.ndarray) -> np.ndarray:
        return np.stack([values.real, values.imag], axis=-1)

    def to_complex(self, parts: np.ndarray) -> np.ndarray:
        return parts[..., 0] + 1j * parts[..., 1]


class ReferenceCalls:
    """The specification of the engine, for programs of one structure that are solved already."""

    def __init__(self, structure: ConeProgramStructure) -> None:
        self._structure = structure

    def solve(self, problem: ConeData) -> Solved:
        raise NotImplementedError("these programs are solved already")

    def refine(self, problem: ConeData, solved: Solved) -> Point:
        rows = len(solved.x)
        none, zero = np.zeros(rows, np.int64), np.zeros(rows)
        x, y, s, is_active, status = solved[:5]
        cone = ConeSolution(x, y, s, status, none, zero, zero, zero, none, is_active, 0.0)
        point = primitives.refine(self._batch(problem, rows), cone)
        return Point(point.x, point.y, point.v, point.balance, point.is_active, point.has_solution)

    def kkt_apply(
        self, problem: ConeData, point: Point, gx: Any, gy: Any, gs: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        at = LinearizationPoint(*point, np.zeros(len(point.x)))
        lam, nu, _ = primitives.apply(self._batch(problem, len(point.x)), at, gx, gy, gs)
        return lam, nu

    def curvature(self, problem: ConeData, point: Point, p: Any, p2: Any) -> np.ndarray:
        at = LinearizationPoint(*point, np.zeros(len(point.x)))
        return primitives.curvature(self._batch(problem, len(point.x)), at, p, p2)

    def _batch(self, problem: ConeData, rows: int) -> ConeProgramBatch:
        return ConeProgramBatch(self._structure, rows, *problem)


class NumpyPrimitives:
    """The calls of an engine as they are, and the rules over them."""

    def __init__(self, calls: ConeCalls | ReferenceCalls, pattern: ConePattern) -> None:
        self.solve = calls.solve
        self.refine = calls.refine
        self.kkt_apply = calls.kkt_apply
        self.curvature = calls.curvature
        self.rules = ConeRules(pattern, NumpyOps(), self)

    def value(self, problem: ConeData, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        del y
        return self.rules.value(problem, x)
