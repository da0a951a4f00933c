# SPDX-License-Identifier: Apache-2.0
"""Clarabel, instance by instance: the outside backend, and the native engine's last resort.

Clarabel uses the same form, signs and triangle of P as ours, so only its settings, statuses and
certificates are converted, and the rows of semidefinite cones: it stacks upper triangles. It
releases the GIL while solving: threads share out the batch.
"""

# Clarabel is compiled and brings no stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import clarabel
import numpy as np
import scipy.sparse as sp

from cvxlayer.cones import semidefinite
from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.errors import OptionError, Status
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import AbstractBackend, Settings
from cvxlayer.solve.residuals import UNKNOWN, measure
from cvxlayer.solve.rows import Row, certify, fail, grade, is_bound, solve_rows

_LOGGER = logging.getLogger("cvxlayer")


_STATUSES = {
    "Solved": Status.SOLVED,
    "AlmostSolved": Status.INACCURATE,
    "PrimalInfeasible": Status.INFEASIBLE,
    "AlmostPrimalInfeasible": Status.INFEASIBLE,
    "DualInfeasible": Status.UNBOUNDED,
    "AlmostDualInfeasible": Status.UNBOUNDED,
    "MaxIterations": Status.MAX_ITERATIONS,
    "MaxTime": Status.MAX_ITERATIONS,
}

_INFEASIBILITY_TOLERANCE = 1e-10
_MODERATE = (1e-100, 1e100)  # a cost that can be divided by

# Set from `Settings`, or meant for a program that prints.
_OWNED = frozenset({"verbose", "max_iter", "max_threads"})


@dataclasses.dataclass(frozen=True, eq=False)
class _Prepared:
    """What depends on the structure alone.

    Attributes:
        cones: Clarabel's list of cones.
        row_order: our row behind each of Clarabel's; None if they are the same.
    """

    cones: list[Any]
    row_order: np.ndarray | None


class ClarabelBackend(AbstractBackend):
    """Solve each instance by a fresh Clarabel solver.

    `solver_args` may also contain every field of Clarabel's own settings by its name there
    (`tol_feas`, `equilibrate_enable`, …), except those that `Settings` already sets.
    """

    name = "clarabel"
    extra_options = frozenset(
        field for field in dir(clarabel.DefaultSettings()) if field[0] != "_"
    ) - (_OWNED | {"default"})

    def setup(self, structure: ConeProgramStructure) -> _Prepared:
        """Return Clarabel's cones and its order of their rows."""
        return _Prepared(_cones(structure.cones), _row_order(structure.cones))

    def solve(
        self, prepared: _Prepared, batch: ConeProgramBatch, settings: Settings
    ) -> ConeSolution:
        """Solve every instance; see `AbstractBackend.solve`.

        Raises:
            OptionError: Clarabel refuses the value of one of its own options.
        """
        options = _convert(settings)

        def solve_row(index: int) -> Row:
            return _solve_instance(prepared, batch, index, options, settings)

        return solve_rows(self, batch, settings, solve_row)


def _cones(cones: ConeProduct) -> list[Any]:
    blocks: list[Any] = []
    if cones.zero:
        blocks.append(clarabel.ZeroConeT(cones.zero))
    if cones.nonnegative:
        blocks.append(clarabel.NonnegativeConeT(cones.nonnegative))
    blocks.extend(clarabel.SecondOrderConeT(dimension) for dimension in cones.second_order)
    blocks.extend(clarabel.PSDTriangleConeT(order) for order in cones.semidefinite)
    blocks.extend(clarabel.ExponentialConeT() for _ in range(cones.exponential))
    blocks.extend(clarabel.PowerConeT(alpha) for alpha in cones.power)
    return blocks


def _row_order(cones: ConeProduct) -> np.ndarray | None:
    """Return our row behind each row of Clarabel's, which stacks upper triangles."""
    if max(cones.semidefinite, default=0) < 3:
        return None  # up to order 2 the two triangles are stacked alike
    order = np.arange(cones.size)
    for cone in cones.curved:
        if cone.kind is ConeKind.SEMIDEFINITE:
            within = semidefinite.upper_triangle_order(int(cone.parameter))
            order[cone.rows] = cone.rows.start + within
    return order


def _convert(settings: Settings) -> Any:
    options = clarabel.DefaultSettings()
    options.verbose = False
    options.max_threads = 1
    options.tol_gap_abs = settings.eps_abs
    options.tol_gap_rel = settings.eps_rel
    # Clarabel has one tolerance, absolute and relative, for feasibility.
    options.tol_feas = min(settings.eps_abs, settings.eps_rel)
    # Relative to iterates that grow as they certify: its default is a certificate to 1e-6 only.
    options.tol_infeas_rel = _INFEASIBILITY_TOLERANCE
    if settings.max_iters is not None:
        options.max_iter = settings.max_iters
    for name, value in settings.extra.items():
        try:
            setattr(options, name, value)
        except (TypeError, ValueError, OverflowError) as error:
            raise OptionError(
                f"Clarabel's option `{name}` cannot be {value!r}: {error}. "
                f"Its default is {getattr(clarabel.DefaultSettings(), name)!r}; "
                "give a value of that type."
            ) from error
    return options


def _solve_instance(
    prepared: _Prepared, batch: ConeProgramBatch, index: int, options: Any, settings: Settings
) -> Row:
    """Solve one instance; whatever goes wrong in it becomes its status."""
    instance = P, q, A, b = batch.instance(index)
    if not all(np.isfinite(block).all() for block in (P.data, q, A.data, b[is_bound(batch, b)])):
        return fail(len(q), len(b))
    # An absolute gap means nothing where the cost is tiny, so such costs are brought to one.
    # Large ones are where predictor and corrector can chase each other for ever; few do.
    cost = max(np.max(np.abs(q), initial=0.0), np.max(np.abs(P.data), initial=0.0)) or 1.0
    cost = cost if _MODERATE[0] < cost < _MODERATE[1] else 1.0
    first, second = (1.0 / cost, 1.0) if cost < 1.0 else (1.0, 1.0 / cost)
    # Numbers near the end of the range overflow, and are caught by what that leads to.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        row = _attempt(instance, first, prepared, options, settings)
        if row.status in (Status.INACCURATE, Status.MAX_ITERATIONS, Status.NUMERICAL_ERROR):
            again = _attempt(instance, second, prepared, options, settings)
            # Statuses are ordered from good to bad.
            row = min(row, again, key=lambda attempt: attempt.status)
    return row


def _attempt(
    instance: tuple[Any, ...], scale: float, prepared: _Prepared, options: Any, settings: Settings
) -> Row:
    """Solve one instance with its cost times `scale`, and take that out of the answer."""
    P, q, A, b = instance
    try:
        rows = _in_order(A, b, prepared.row_order)
        solver = clarabel.DefaultSolver(P * scale, q * scale, *rows, prepared.cones, options)
        solved = solver.solve()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 (a panic of Rust is only a BaseException)
        _LOGGER.warning("clarabel: an instance ended in an error: %s", error)
        return fail(len(q), len(b))

    x, y, s = np.array(solved.x), np.array(solved.z) / scale, np.array(solved.s)
    if prepared.row_order is not None:
        y[prepared.row_order], s[prepared.row_order] = y.copy(), s.copy()
    is_absent = np.isposinf(b)
    y[is_absent], s[is_absent] = 0.0, np.inf
    status = _STATUSES.get(str(solved.status), Status.NUMERICAL_ERROR)
    certificate = certify(instance, x, y, s, status)
    if certificate is not None:
        return Row(*certificate, status, solved.iterations, UNKNOWN)
    residuals = measure(instance, x, y, s)
    graded = grade(residuals, settings, _otherwise(status))
    # Near the tolerance, what Clarabel calls solved stays so; statuses are ordered from good to
    # bad. Beyond, its tests were passed by an overflow.
    status = min(status, graded) if graded.has_solution else graded
    return Row(x, y, s, status, solved.iterations, residuals)


def _otherwise(claim: Status) -> Status:
    """Return how a row ended whose point is no solution."""
    return claim if claim is Status.MAX_ITERATIONS else Status.NUMERICAL_ERROR


def _in_order(A: sp.csc_array, b: np.ndarray, order: np.ndarray | None) -> tuple[Any, np.ndarray]:
    if order is None:
        return A, b
    reordered = A[order]
    reordered.sort_indices()
    return reordered, b[order]
