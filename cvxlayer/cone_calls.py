# SPDX-License-Identifier: Apache-2.0
"""The cone primitives of one layer in NumPy: what a framework calls on the host.

Batches are whatever the framework folded into rows: a transform may have multiplied the rows of
the user's call, or put its directions side by side as right-hand sides of one factorization.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from cvxlayer.compiler import CompiledProgram, default_derivative
from cvxlayer.differentiate.cone_rules import ConeData, Point, Solved, Statistics
from cvxlayer.errors import OptionError, SolverError, Status, UnsupportedDerivativeError
from cvxlayer.evaluation import Evaluator
from cvxlayer.notices import warn_inaccurate, warn_not_unique
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.cone_derivative import LinearizedDerivative
from cvxlayer.program.solution import ConeSolution, LinearizationPoint
from cvxlayer.solve.backend import Settings


@dataclasses.dataclass(frozen=True, eq=False)
class ConeCalls:
    """The engine of one layer, for one call and all its derivatives.

    Attributes:
        evaluator: the layer.
        settings: of the solve.
        known: the solutions of the data that `solve` will be asked for, where a derivative is
            taken of a call that was already made.
    """

    evaluator: Evaluator
    settings: Settings
    known: ConeSolution | None = None

    @property
    def _program(self) -> CompiledProgram:
        return self.evaluator.program

    @functools.cached_property
    def _derivative(self) -> LinearizedDerivative:
        derivative = self.evaluator.derivative(self.settings) or default_derivative()
        if not isinstance(derivative, LinearizedDerivative):
            raise UnsupportedDerivativeError(
                f"The derivative of the solver {self.evaluator.options.backend.name!r}, "
                f"`{type(derivative).__name__}`, has a `vjp` alone, which serves reverse mode "
                "outside of transforms. Let `derivative` of the solver return None for ours."
            )
        return derivative

    @functools.cached_property
    def _prepared(self) -> Any:
        return self._program.prepare(self._derivative)

    def solve(self, problem: ConeData) -> Solved:
        """Solve one instance for each row of the problem.

        Raises:
            SolverError: one was not solved, unless `on_failure="nan"`.
            OptionError: a warm start has another number of rows.
        """
        cone = self.known
        if cone is None:
            cone = self._solve(problem)
        return Solved(
            cone.x,
            cone.y,
            cone.s,
            _codes(cone.is_active),
            _codes(cone.status),
            Statistics(
                cone.iterations.astype(np.int64),
                cone.primal_residual,
                cone.dual_residual,
                cone.gap,
                _codes(cone.solved_by),
            ),
        )

    def _solve(self, problem: ConeData) -> ConeSolution:
        backend, batch = self.evaluator.options.backend, self._batch(problem, _count_rows(problem))
        start = self.settings.warm_start
        if start is not None and len(start.x) != batch.size:
            raise OptionError(
                f"`warm_start` has {len(start.x)} rows; inside of the transform this call has "
                f"{batch.size}. Leave it out, or call the layer with a batch instead of `vmap`."
            )
        cone = backend.solve(self._program.prepare(backend), batch, self.settings)
        if cone.status.any():
            warn_inaccurate(cone)
            failed = np.flatnonzero(cone.status > Status.INACCURATE)
            if failed.size and self.evaluator.raises:
                statuses = [Status(int(cone.status[row])) for row in failed]
                raise SolverError([int(row) for row in failed], statuses)
        return cone

    def refine(self, problem: ConeData, solved: Solved) -> Point:
        """Return where each solution is differentiated."""
        rows = len(solved.x)
        nothing, none = np.zeros(rows), np.zeros(rows, np.int64)
        cone = ConeSolution(
            np.ascontiguousarray(solved.x),
            np.ascontiguousarray(solved.y),
            np.ascontiguousarray(solved.s),
            np.asarray(solved.status),
            none,
            nothing,
            nothing,
            nothing,
            none,
            np.ascontiguousarray(solved.is_active),
            0.0,
        )
        point = self._derivative.refine(
            self._prepared, self._batch(problem, rows), cone, threads=self.settings.threads
        )
        if self.evaluator.options.smoothing > 0.0:  # it may not have reached the central path
            warn_not_unique(point.residual, (rows,))
        return Point(
            point.x,
            point.y,
            point.v,
            point.balance,
            _codes(point.is_active),
            np.asarray(point.has_solution, bool),
        )

    def kkt_apply(
        self,
        problem: ConeData,
        point: Point,
        gx: np.ndarray | None,
        gy: np.ndarray | None,
        gs: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (λ, ν) for R right-hand sides of each row; warn where they are not unique."""
        batch = self._batch(problem, len(point.x))
        right = [None if bar is None else np.ascontiguousarray(bar) for bar in (gx, gy, gs)]
        lam, nu, residual = self._derivative.apply(
            self._prepared, batch, _linearization(point), *right, threads=self.settings.threads
        )
        warn_not_unique(residual.max(axis=1, initial=0.0), (len(residual),))
        return lam, nu

    def curvature(
        self, problem: ConeData, point: Point, p: np.ndarray, p2: np.ndarray
    ) -> np.ndarray:
        """Return D²Π(v)[p, p′] for R pairs of directions of each row."""
        return self._derivative.curvature(
            self._prepared,
            self._batch(problem, len(point.x)),
            _linearization(point),
            np.ascontiguousarray(p),
            np.ascontiguousarray(p2),
            threads=self.settings.threads,
        )

    def _batch(self, problem: ConeData, rows: int) -> ConeProgramBatch:
        blocks = [np.ascontiguousarray(block) for block in problem]
        return ConeProgramBatch(self._program.program.structure, rows, *blocks)


def _linearization(point: Point) -> LinearizationPoint:
    x, y, v, balance, is_active, has_solution = map(np.ascontiguousarray, point)
    return LinearizationPoint(x, y, v, balance, is_active, has_solution, np.zeros(len(x)))


def _count_rows(problem: ConeData) -> int:
    return next((len(block) for block in problem if len(block) != 1), 1)


def _codes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=np.int8)
