# SPDX-License-Identifier: Apache-2.0
"""ECOS, instance by instance: an interior point for linear, second-order and exponential cones.

ECOS keeps equalities apart, orders an exponential cone (r, t, s), and has no quadratic objective:
it solves the program of `epigraph.py`. It releases the GIL while solving: threads share out the
batch.
"""

from __future__ import annotations

import logging
from typing import Any

import ecos
import numpy as np
import scipy.sparse as sp

from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.errors import OptionError, Status
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import AbstractBackend, Settings
from cvxlayer.solve.epigraph import (
    LinearProgram,
    keep_feasibility,
    keep_flat_directions,
    linearize_objective,
)
from cvxlayer.solve.newton import ConeProgram, equilibrate, refine
from cvxlayer.solve.rows import (
    Row,
    fail,
    judge,
    read_instance,
    refuse_missing_cones,
    solve_rows,
)

_LOGGER = logging.getLogger("cvxlayer")

Point = tuple[np.ndarray, np.ndarray, np.ndarray]

# Flags 10 to 12 are the inaccurate ones. What they claim is measured, as in any case.
_STATUSES = {
    0: Status.SOLVED,
    1: Status.INFEASIBLE,
    2: Status.UNBOUNDED,
    10: Status.SOLVED,
    11: Status.INFEASIBLE,
    12: Status.UNBOUNDED,
    -1: Status.MAX_ITERATIONS,
}
_INTERRUPTED = -4
# Its tests are relative to norms of the whole program, so that an entry may fail ours.
_TOLERANCES = ("abstol", "feastol", "reltol")
_TIGHTER = 1e-3
# The order of an exponential cone's rows in ECOS; it is its own inverse.
_EXPONENTIAL_ORDER = np.array([0, 2, 1])


class EcosBackend(AbstractBackend):
    """Solve each instance by ECOS.

    `solver_args` may also contain ECOS's own tolerances (`feastol`, `abstol`, `reltol`) and
    `nitref`, the number of steps of refinement.

    Source:
        Domahidi, Chu & Boyd, ECOS: an SOCP solver for embedded systems, ECC 2013.
    """

    name = "ecos"
    extra_options = frozenset({"abstol", "feastol", "nitref", "reltol"})

    def setup(self, structure: ConeProgramStructure) -> None:
        """Check the cones; see `AbstractBackend.setup`."""
        missing = frozenset({ConeKind.SEMIDEFINITE, ConeKind.POWER})
        refuse_missing_cones(self.name, structure.cones, missing)

    def solve(self, prepared: None, batch: ConeProgramBatch, settings: Settings) -> ConeSolution:
        """Solve every instance; see `AbstractBackend.solve`.

        Raises:
            OptionError: ECOS refuses the value of one of its own options.
        """
        options = _convert(settings)

        def solve_row(index: int) -> Row:
            return _solve_instance(batch, index, options, settings)

        return solve_rows(self, batch, settings, solve_row)


def _convert(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "verbose": False,
        # ECOS has one tolerance, absolute and relative, for feasibility.
        "feastol": min(settings.eps_abs, settings.eps_rel),
        "abstol": settings.eps_abs,
        "reltol": settings.eps_rel,
        **settings.extra,
    }
    if settings.max_iters is not None:
        options["max_iters"] = settings.max_iters
    G, h, q = sp.csc_matrix([[-1.0]]), np.zeros(1), np.ones(1)
    for name, value in settings.extra.items():
        try:
            # ECOS checks a setting when it solves.
            ecos.solve(q, G, h, {"l": 1}, verbose=False, **{name: value})
        except (TypeError, ValueError, OverflowError) as error:
            raise OptionError(
                f"ECOS's option `{name}` cannot be {value!r}: {error}. "
                "See ECOS's own settings for what it can be."
            ) from error
    return options


def _solve_instance(
    batch: ConeProgramBatch, index: int, options: dict[str, Any], settings: Settings
) -> Row:
    """Solve one instance; whatever goes wrong in it becomes its status."""
    instance = read_instance(batch, index)
    if instance is None:
        return fail(batch.structure.num_variables, batch.structure.num_rows)
    whole = sp.csc_matrix(instance.P + sp.triu(instance.P, 1).T)
    program, units = equilibrate(
        ConeProgram(whole, instance.q, instance.A, instance.b, instance.cones)
    )

    def attempt(options: dict[str, Any]) -> Row:
        try:
            claim, iterations, (x, y, s) = _attempt(program, options)
        except (ValueError, RuntimeError, MemoryError) as error:
            _LOGGER.warning("ecos: an instance ended in an error: %s", error)
            return fail(batch.structure.num_variables, batch.structure.num_rows)
        point = (x * units.column, y * units.row / units.cost, s / units.row)
        return judge(batch, index, instance, point, claim, iterations, settings)

    row = attempt(options)
    if row.status in (Status.INACCURATE, Status.NUMERICAL_ERROR):
        again = attempt({**options, **{name: _TIGHTER * options[name] for name in _TOLERANCES}})
        # Statuses are ordered from good to bad.
        row = min(row, again, key=lambda attempt: attempt.status)
    return row


def _attempt(program: ConeProgram, options: dict[str, Any]) -> tuple[Status, int, Point]:
    """Solve an equilibrated program; return how it ended, iterations and (x, y, s).

    The cone of the objective leaves errors of the root of the tolerance. Newton steps take
    them out of a solution; a certificate comes from a program without that cone.
    """
    is_quadratic = program.P.nnz > 0
    P, rows = sp.csc_matrix(sp.triu(program.P)), (program.A, program.b, program.cones)
    linear = linearize_objective(P, program.q, *rows)
    solved = _call(linear, options)
    claim, iterations = _read_claim(solved), solved["info"]["iter"]
    if is_quadratic and claim is Status.INFEASIBLE:
        linear = keep_feasibility(*rows)
        solved = _call(linear, options)
    elif is_quadratic and claim is Status.UNBOUNDED:
        linear = keep_flat_directions(P, program.q, *rows)
        solved = _call(linear, options)
    point = _read_point(linear, solved)
    if is_quadratic and claim is Status.SOLVED:
        point = refine(program, *point)
    return claim, iterations, point


def _read_claim(solved: dict[str, Any]) -> Status:
    flag = solved["info"]["exitFlag"]
    if flag == _INTERRUPTED:
        raise KeyboardInterrupt
    return _STATUSES.get(flag, Status.NUMERICAL_ERROR)


def _call(program: LinearProgram, options: dict[str, Any]) -> dict[str, Any]:
    """Hand a program to ECOS in its form: A x = b apart from G x + s = h."""
    cones = program.cones
    rows = _row_order(cones)
    A, G = program.A[: cones.zero], program.A[rows]
    sizes = {"l": cones.nonnegative, "q": list(cones.second_order), "e": cones.exponential}
    equalities = (_stored(A), program.b[: cones.zero]) if cones.zero else (None, None)
    inequalities = (_stored(G), program.b[rows]) if len(rows) else (None, None)
    return ecos.solve(program.q, *inequalities, sizes, *equalities, **options)


def _read_point(program: LinearProgram, solved: dict[str, Any]) -> Point:
    """Return (x, y, s) of the program before its objective was made linear."""
    zero, rows = program.cones.zero, _row_order(program.cones)
    y, s = np.zeros(len(program.b)), np.zeros(len(program.b))
    y[:zero], y[rows], s[rows] = solved["y"], solved["z"], solved["s"]
    original = program.is_original
    return solved["x"][: program.num_variables], y[original], s[original]


def _row_order(cones: ConeProduct) -> np.ndarray:
    """Return our row behind each of ECOS's inequality rows."""
    order = np.arange(cones.zero, cones.size)
    for cone in cones.curved:
        if cone.kind is ConeKind.EXPONENTIAL:
            order[cone.rows.start - cones.zero :][:3] = cone.rows.start + _EXPONENTIAL_ORDER
    return order


def _stored(matrix: sp.csc_matrix) -> sp.csc_matrix:
    """Return a matrix with at least one stored entry, without which ECOS ends in an error."""
    if matrix.nnz:
        return matrix
    return sp.csc_matrix(([0.0], ([0], [0])), shape=matrix.shape)
