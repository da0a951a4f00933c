# SPDX-License-Identifier: Apache-2.0
"""SCS, instance by instance: a first-order method with every cone and a quadratic objective.

Form, signs, row order, triangles and stopping rule are those of ours; what is converted are
statuses and certificates. It releases the GIL while solving: threads share out the batch.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import scipy.sparse as sp
import scs

from cvxlayer.cones.product import ConeProduct
from cvxlayer.errors import OptionError, Status
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure
from cvxlayer.program.solution import ConeSolution, SolvedBy
from cvxlayer.solve.backend import AbstractBackend, Settings
from cvxlayer.solve.rows import Instance, Row, fail, judge, read_instance, solve_rows

_LOGGER = logging.getLogger("cvxlayer")

# An inaccurate certificate is none: those rows ran into the limit.
_STATUSES = {
    scs.SOLVED: Status.SOLVED,
    scs.SOLVED_INACCURATE: Status.MAX_ITERATIONS,
    scs.UNBOUNDED: Status.UNBOUNDED,
    scs.UNBOUNDED_INACCURATE: Status.MAX_ITERATIONS,
    scs.INFEASIBLE: Status.INFEASIBLE,
    scs.INFEASIBLE_INACCURATE: Status.MAX_ITERATIONS,
}

# SCS 3.3 names its linear solver; before, a flag chose between two of them. The direct one of its
# own is the fastest on small programs, and none of the others is made for several threads.
FASTEST_LINEAR_SOLVER = {"linear_solver": "qdldl"} if hasattr(scs, "LinearSolver") else {}
_EXTRA_OPTIONS = frozenset(
    {
        "acceleration_interval",
        "acceleration_lookback",
        "adaptive_scale",
        "alpha",
        "eps_infeas",
        "normalize",
        "rho_x",
        "scale",
        "time_limit_secs",
        "linear_solver" if FASTEST_LINEAR_SOLVER else "use_indirect",
    }
)


class ScsBackend(AbstractBackend):
    """Solve each instance by a fresh SCS solver.

    `solver_args` may also contain SCS's own settings by their names there (`alpha`, `scale`,
    `normalize`, …), except those that `Settings` already sets and those that write files.

    Source:
        O'Donoghue, Operator splitting for a homogeneous embedding of the linear
        complementarity problem, SIAM Journal on Optimization 31(3), 2021.
    """

    name = "scs"
    extra_options = _EXTRA_OPTIONS
    uses_warm_start = True

    def setup(self, structure: ConeProgramStructure) -> None:
        """Do nothing: SCS has every cone, and works on one instance at a time."""
        del structure

    def solve(self, prepared: None, batch: ConeProgramBatch, settings: Settings) -> ConeSolution:
        """Solve every instance; see `AbstractBackend.solve`.

        Raises:
            OptionError: SCS refuses the value of one of its own options.
        """
        options = _convert(settings)

        def solve_row(index: int) -> Row:
            return _solve_instance(batch, index, options, settings)

        solution = solve_rows(self, batch, settings, solve_row)
        if settings.warm_start is not None:
            solution.solved_by[settings.warm_start.status <= Status.INACCURATE] = (
                SolvedBy.WARM_START
            )
        return solution


def name_cones(cones: ConeProduct) -> dict[str, Any]:
    """Return a product of cones as SCS writes it; the order of the rows is ours."""
    return {
        "z": cones.zero,
        "l": cones.nonnegative,
        "q": list(cones.second_order),
        "s": list(cones.semidefinite),
        "ep": cones.exponential,
        "p": list(cones.power),
    }


def _convert(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "verbose": False,
        "eps_abs": settings.eps_abs,
        "eps_rel": settings.eps_rel,
        **FASTEST_LINEAR_SOLVER,
        **settings.extra,
    }
    if settings.max_iters is not None:
        options["max_iters"] = settings.max_iters
    row = {"A": sp.csc_matrix([[-1.0]]), "b": np.zeros(1), "c": np.ones(1)}
    for name, value in settings.extra.items():
        try:
            # SCS checks a setting when a solver is made.
            scs.SCS(row, {"l": 1}, verbose=False, **{name: value})
        except (TypeError, ValueError, OverflowError, ImportError) as error:
            raise OptionError(
                f"SCS's option `{name}` cannot be {value!r}: {error}. "
                "See SCS's own settings for what it can be."
            ) from error
    return options


def _starting_point(start: ConeSolution | None, index: int, instance: Instance) -> dict[str, Any]:
    """Return where SCS is to start; nothing, where there is no solution to start from."""
    if start is None or start.status[index] > Status.INACCURATE or instance.num_variables == 0:
        return {}
    y, s = start.y[index][instance.is_present], start.s[index][instance.is_present]
    if len(y) == 0:
        return {}
    # A row that had an infinite bound and has a finite one now.
    s = np.where(np.isfinite(s), s, 0.0)
    return {"warm_start": True, "x": start.x[index].copy(), "y": y, "s": s}


def _solve_instance(
    batch: ConeProgramBatch, index: int, options: dict[str, Any], settings: Settings
) -> Row:
    """Solve one instance; whatever goes wrong in it becomes its status."""
    instance = read_instance(batch, index)
    if instance is None:
        return fail(batch.structure.num_variables, batch.structure.num_rows)
    program = {"P": instance.P, "A": instance.A, "b": instance.b, "c": instance.q}
    try:
        solver = scs.SCS(program, name_cones(instance.cones), **options)
        solved = solver.solve(**_starting_point(settings.warm_start, index, instance))
    except (ValueError, RuntimeError, MemoryError) as error:
        _LOGGER.warning("scs: an instance ended in an error: %s", error)
        return fail(batch.structure.num_variables, batch.structure.num_rows)
    if solved["info"]["status_val"] == scs.SIGINT:
        raise KeyboardInterrupt
    claim = _STATUSES.get(solved["info"]["status_val"], Status.NUMERICAL_ERROR)
    point = (solved["x"], solved["y"], solved["s"])
    return judge(batch, index, instance, point, claim, solved["info"]["iter"], settings)
