# SPDX-License-Identifier: Apache-2.0
"""One cone program to each solver, by its own interface, at 1e-8 and on one thread.

SCS and ECOS go through cvxlayer's backends, which know their forms; ECOS has no quadratic
objective and gets an epigraph, a second-order cone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import clarabel
import numpy as np
import piqp
import qoco
import scipy.sparse as sp

from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.benchmarks.contenders import TOLERANCE
from tests.benchmarks.reference import clarabel_settings

MOST_SECONDS = 60.0


class NotApplicableError(Exception):
    """The solver has no such cone."""


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """(x, y) of one instance, how it ended, and after how many iterations."""

    x: np.ndarray
    y: np.ndarray
    status: str
    iterations: int


def _backend(name: str, extra: dict[str, Any]) -> Callable[[ConeProgramBatch], Outcome]:
    def solve(batch: ConeProgramBatch) -> Outcome:
        backend = get_backend(name)
        settings = Settings(TOLERANCE, TOLERANCE, threads=1, extra=extra)
        try:
            prepared = backend.setup(batch.structure)
        except ValueError as reason:
            raise NotApplicableError(str(reason)) from reason
        found = backend.solve(prepared, batch, settings)
        status = Status(found.status[0]).name.lower()
        return Outcome(found.x[0], found.y[0], status, int(found.iterations[0]))

    return solve


def _native(batch: ConeProgramBatch) -> Outcome:
    # A structure is analyzed once and kept; a copy is a new one, so that its time counts.
    structure = dataclasses.replace(batch.structure)
    fresh = dataclasses.replace(batch, structure=structure)
    return _backend("native", {"fallback": False})(fresh)


def _clarabel(batch: ConeProgramBatch) -> Outcome:
    cones = get_backend("clarabel").setup(batch.structure).cones
    P, q, A, b = batch.instance(0)
    if batch.structure.cones.semidefinite:
        return _backend("clarabel", {})(batch)
    found = clarabel.DefaultSolver(P, q, A, b, cones, clarabel_settings(TOLERANCE)).solve()
    names = {"PrimalInfeasible": "infeasible", "DualInfeasible": "unbounded"}
    status = str(found.status)
    return Outcome(
        np.array(found.x), np.array(found.z), names.get(status, status.lower()), found.iterations
    )


def _qoco(batch: ConeProgramBatch) -> Outcome:
    cones = batch.structure.cones
    if any(kind.kind.name != "SECOND_ORDER" for kind in cones.curved):
        raise NotApplicableError("linear and second-order cones only")
    P, q, A, b = batch.instance(0)
    A, zero, m = sp.csr_matrix(A), cones.zero, len(b)
    solver = qoco.QOCO()
    solver.setup(
        len(q), m - zero, zero, sp.csc_matrix(P) if P.nnz else None, q,
        sp.csc_matrix(A[:zero]) if zero else None, b[:zero] if zero else None,
        sp.csc_matrix(A[zero:]) if m > zero else None, b[zero:] if m > zero else None,
        cones.nonnegative, len(cones.second_order), np.array(cones.second_order, dtype=np.int32),
        abstol=TOLERANCE, reltol=TOLERANCE, max_iters=200,
    )  # fmt: skip
    found = solver.solve()
    status = "solved" if str(found.status) == "QOCO_SOLVED" else str(found.status).lower()
    y = np.concatenate([np.array(found.y)[:zero], np.array(found.z)[: m - zero]])
    return Outcome(np.array(found.x), y, status, int(found.iters))


def _piqp(batch: ConeProgramBatch) -> Outcome:
    cones = batch.structure.cones
    if cones.curved:
        raise NotApplicableError("quadratic programs only")
    P, q, A, b = batch.instance(0)
    rows, zero = sp.csr_matrix(A), cones.zero
    solver = piqp.SparseSolver()
    for name in ("eps_abs", "eps_rel", "eps_duality_gap_abs", "eps_duality_gap_rel"):
        setattr(solver.settings, name, TOLERANCE)
    data: dict[str, Any] = {"P": sp.csc_matrix(P + sp.triu(P, 1).T), "c": q}
    if zero:
        data |= {"A": sp.csc_matrix(rows[:zero]), "b": b[:zero]}
    if len(b) > zero:
        data |= {"G": sp.csc_matrix(rows[zero:]), "h_u": b[zero:]}
    solver.setup(**data)
    status = str(solver.solve()).rsplit("_", 1)[-1].lower()
    found = solver.result
    y = np.concatenate([np.array(found.y)[:zero], np.array(found.z_u)[: len(b) - zero]])
    return Outcome(np.array(found.x), y, status, int(found.info.iter))


SOLVERS: dict[str, Callable[[ConeProgramBatch], Outcome]] = {
    "native": _native,
    "clarabel": _clarabel,
    "scs": _backend("scs", {"time_limit_secs": MOST_SECONDS}),
    "ecos": _backend("ecos", {}),
    "qoco": _qoco,
    "piqp": _piqp,
}
