# SPDX-License-Identifier: Apache-2.0
"""Our C++ engine: many instances at once in SIMD lanes and threads.

A row that fails is solved again with iterative refinement and shorter steps, and then by
Clarabel; `ConeSolution.solved_by` tells which pass produced it.
"""

from __future__ import annotations

import time

import numpy as np

from cvxlayer import _native
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure
from cvxlayer.program.engine import count_threads, prepare_engine
from cvxlayer.program.solution import ConeSolution, SolvedBy
from cvxlayer.solve.backend import AbstractBackend, Settings, log_solve
from cvxlayer.solve.clarabel import ClarabelBackend

# What Clarabel's solutions have in common with ours.
_FOUND = ("x", "y", "s", "status", "iterations", "primal_residual", "dual_residual", "gap")
DEFAULT_MAX_ITERS = 100
INFEASIBLE_TOLERANCE = 1e-8
# What `ConeSolution` holds for each row.
_OF_A_ROW = (
    *("x", "y", "s", "status", "iterations", "primal_residual", "dual_residual", "gap"),
    *("solved_by", "is_active"),
)
_Start = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]


class NativeBackend(AbstractBackend):
    """The default solver.

    Source:
        Goulart & Chen, Clarabel: an interior-point solver for conic programs with quadratic
        objectives (arXiv:2405.12762), with the changes listed in docs/derivations/engine.md.
    """

    name = "native"
    extra_options = frozenset({"width", "fallback", "polish"})
    uses_warm_start = True

    def setup(self, structure: ConeProgramStructure) -> _native.Engine:
        """Order and analyze the KKT matrices of the structure."""
        return prepare_engine(structure)

    def solve(
        self, prepared: _native.Engine, batch: ConeProgramBatch, settings: Settings
    ) -> ConeSolution:
        """Solve every instance; see `AbstractBackend.solve`.

        Extra options: `width`, the number of SIMD lanes (0 chooses); `polish`, whether each
        solution takes one semismooth Newton step, which brings most to rounding level
        (default True); `fallback`, whether rows that fail numerically go to Clarabel
        (default True).
        """
        start = time.perf_counter()
        solution = _allocate(batch)
        if settings.warm_start is None:
            _run(prepared, batch, settings, solution, None, careful=False)
        else:
            _run_from(settings.warm_start, prepared, batch, settings, solution)
        # SOLVED is 0: in the usual case nothing more is looked at.
        if solution.status.any():
            self.finish(prepared, batch, settings, solution)
        object.__setattr__(solution, "solve_seconds", time.perf_counter() - start)
        if settings.verbose:
            log_solve(self, solution)
        return solution

    def finish(
        self,
        prepared: _native.Engine,
        batch: ConeProgramBatch,
        settings: Settings,
        solution: ConeSolution,
    ) -> None:
        """Solve rows that failed in the first pass again, in place: carefully, then by Clarabel."""
        if solution.scaling is None:
            object.__setattr__(solution, "scaling", _allocate_scaling(batch))
        failed = _numerically_failed(solution, settings)
        if len(failed) == 0:
            return
        before = [getattr(solution, name)[failed].copy() for name in _OF_A_ROW]
        _run(prepared, batch, settings, solution, failed, careful=True)
        solution.solved_by[failed] = SolvedBy.CAREFUL_PASS
        _restore_better(solution, failed, before)
        failed = _numerically_failed(solution, settings)
        if len(failed) and settings.extra.get("fallback", True):
            _fall_back(prepared, batch, settings, solution, failed)


def _allocate(batch: ConeProgramBatch) -> ConeSolution:
    size, structure = batch.size, batch.structure
    n, m = structure.num_variables, structure.num_rows
    reals = np.empty((3, size))
    return ConeSolution(
        x=np.empty((size, n)),
        y=np.empty((size, m)),
        s=np.empty((size, m)),
        status=np.empty(size, np.int8),
        iterations=np.empty(size, np.int32),
        primal_residual=reals[0],
        dual_residual=reals[1],
        gap=reals[2],
        solved_by=np.zeros(size, np.int8),
        is_active=np.empty((size, m), np.int8),
        solve_seconds=0.0,
        scaling=_allocate_scaling(batch),
    )


def _allocate_scaling(batch: ConeProgramBatch) -> tuple[np.ndarray, np.ndarray]:
    length = batch.structure.num_variables + batch.structure.num_rows
    num_rows = 1 if len(batch.P) == len(batch.A) == 1 else batch.size
    return np.empty((num_rows, length)), np.empty(batch.size)


def _run(
    engine: _native.Engine,
    batch: ConeProgramBatch,
    settings: Settings,
    solution: ConeSolution,
    rows: np.ndarray | None,
    start: _Start = (None, None, None),
    *,
    careful: bool,
) -> None:
    assert solution.scaling is not None  # allocated with the rest
    engine.solve(
        batch.size,
        batch.P,
        batch.q,
        batch.A,
        batch.b,
        rows,
        settings.eps_abs,
        settings.eps_rel,
        INFEASIBLE_TOLERANCE,
        settings.max_iters or DEFAULT_MAX_ITERS,
        careful,
        settings.extra.get("polish", True),
        *start,
        count_threads(settings.threads),
        # By itself, so that a row does not depend on which others failed.
        1 if careful else settings.extra.get("width", 0),
        solution.x,
        solution.y,
        solution.s,
        solution.status,
        solution.iterations,
        solution.primal_residual,
        solution.dual_residual,
        solution.gap,
        solution.is_active,
        *solution.scaling,
    )


def _run_from(
    start: ConeSolution,
    engine: _native.Engine,
    batch: ConeProgramBatch,
    settings: Settings,
    solution: ConeSolution,
) -> None:
    """Solve from earlier solutions where there are some."""
    is_usable = (start.status <= Status.INACCURATE).astype(np.int8)
    _run(engine, batch, settings, solution, None, (start.x, start.y, is_usable), careful=False)
    # The engine has cleared those that led nowhere.
    solution.solved_by[is_usable != 0] = SolvedBy.WARM_START


def _numerically_failed(solution: ConeSolution, settings: Settings) -> np.ndarray:
    """Rows that stopped short for numerical reasons, not at the user's own limit."""
    failed = (solution.status == Status.NUMERICAL_ERROR) | (
        (solution.status == Status.INACCURATE) | (solution.status == Status.MAX_ITERATIONS)
    ) & ((settings.max_iters is None) | (solution.iterations < (settings.max_iters or 0)))
    return np.flatnonzero(failed)


def _restore_better(solution: ConeSolution, rows: np.ndarray, before: list[np.ndarray]) -> None:
    """Take back what the careful pass made of INACCURATE rows that it brought no further."""
    earlier = dict(zip(_OF_A_ROW, before, strict=True))
    errors = ("primal_residual", "dual_residual", "gap")
    was = np.max([earlier[name] for name in errors], axis=0)
    now = np.max([getattr(solution, name)[rows] for name in errors], axis=0)
    status = solution.status[rows]
    is_worse = (status > Status.INACCURATE) | ((status == Status.INACCURATE) & ~(now < was))
    kept = (earlier["status"] == Status.INACCURATE) & is_worse
    for name, values in earlier.items():
        getattr(solution, name)[rows[kept]] = values[kept]


def _fall_back(
    engine: _native.Engine,
    batch: ConeProgramBatch,
    settings: Settings,
    solution: ConeSolution,
    rows: np.ndarray,
) -> None:
    """Let Clarabel try the given rows, and keep its answer where it does better."""
    backend = ClarabelBackend()
    plain = Settings(settings.eps_abs, settings.eps_rel, settings.max_iters, settings.threads)
    part = batch.select(rows)
    other = backend.solve(backend.setup(part.structure), part, plain)
    better = (other.status <= Status.UNBOUNDED) & (
        (other.status != Status.INACCURATE) | (solution.status[rows] != Status.INACCURATE)
    )
    chosen = rows[better]
    for name in _FOUND:
        getattr(solution, name)[chosen] = getattr(other, name)[better]
    solution.is_active[chosen] = -1
    solution.solved_by[chosen] = SolvedBy.FALLBACK
    _polish(engine, batch, settings, solution, chosen[solution.status[chosen] == Status.SOLVED])


def _polish(
    engine: _native.Engine,
    batch: ConeProgramBatch,
    settings: Settings,
    solution: ConeSolution,
    rows: np.ndarray,
) -> None:
    """Bring solutions of another solver to the accuracy of ours, where Newton steps lead there."""
    if len(rows) == 0 or not settings.extra.get("polish", True):
        return
    part = batch.select(rows)
    is_usable = np.ones(len(rows), np.int8)
    found = _allocate(part)
    start = (solution.x[rows], solution.y[rows], is_usable)
    _run(engine, part, settings, found, None, start, careful=False)
    # The engine has cleared those that led nowhere.
    arrived = (is_usable != 0) & (found.status == Status.SOLVED)
    for name in (*_FOUND, "is_active"):
        if name != "iterations":
            getattr(solution, name)[rows[arrived]] = getattr(found, name)[arrived]
