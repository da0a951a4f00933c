# SPDX-License-Identifier: Apache-2.0
"""What Python finishes of a batch that the core began inside compiled code.

The usual batch never comes here. Rows that failed for numerical reasons do, to be solved again
as by every other layer; batches of solvers other than ours; and what has to be said aloud.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cvxlayer.errors import SolverError, Status
from cvxlayer.notices import warn_inaccurate, warn_not_unique
from cvxlayer.options import LayerOptions
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure
from cvxlayer.program.registered import (
    RESULT_NAMES,
    Blocks,
    RegisteredProgram,
    register_route,
    tell_of_residuals,
)
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings, log_solve


def _warn_not_unique(residual: np.ndarray) -> None:
    warn_not_unique(residual, residual.shape)


tell_of_residuals(_warn_not_unique)


def open_route(
    registered: RegisteredProgram,
    options: LayerOptions,
    settings: Settings,
    *,
    raises: bool,
    warns: bool,
) -> int:
    """Return the number of the route for a layer.

    Args:
        registered: what is solved.
        options: with the solver.
        settings: of the call.
        raises: whether a failed row fails the call, for want of anyone who looks at `status`.
        warns: whether to warn of inaccurate rows here.
    """
    finish = functools.partial(
        _finish, registered.program.structure, options, settings, raises, warns
    )
    if not options.is_named:
        return register_route(finish)
    words = (str(registered.number), options.backend.name, repr(settings), f"{raises} {warns}")
    return register_route(finish, *words)


def _finish(
    structure: ConeProgramStructure,
    options: LayerOptions,
    settings: Settings,
    raises: bool,
    warns: bool,
    size: int,
    blocks: Blocks,
    results: tuple[np.ndarray, ...],
) -> str | None:
    """Complete a batch in place; return what is wrong with it, or None."""
    batch = ConeProgramBatch(structure, size, *blocks)
    named: dict[str, Any] = dict(zip(RESULT_NAMES, results, strict=True))
    solution = ConeSolution(**named, solve_seconds=0.0)
    backend: Any = options.backend
    if options.is_native:
        backend.finish(backend.setup(structure), batch, settings, solution)
    else:
        _copy(backend.solve(backend.setup(structure), batch, settings), solution)
    if options.is_native and settings.verbose:
        log_solve(backend, solution)
    if warns:
        warn_inaccurate(solution)
    failed = np.flatnonzero(solution.status > Status.INACCURATE)
    if raises and len(failed):
        statuses = [Status(int(solution.status[row])) for row in failed]
        return str(SolverError([int(row) for row in failed], statuses))
    return None


def _copy(source: ConeSolution, target: ConeSolution) -> None:
    for name in RESULT_NAMES:
        getattr(target, name)[...] = getattr(source, name)
