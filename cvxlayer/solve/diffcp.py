# SPDX-License-Identifier: Apache-2.0
"""diffcp, instance by instance: its solvers, and its own derivative for comparison.

diffcp hands a cone program to SCS or Clarabel in our form, signs and row order. Its own derivative
has no quadratic objective: with `mode` given it solves the program of `epigraph.py`, as CVXPY does
for it, and the adjoints that come with the solutions are what `DiffcpDerivative` applies.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import warnings
from collections.abc import Callable
from typing import Any

import diffcp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from cvxlayer.cones.product import ConeKind
from cvxlayer.errors import OptionError, Status, suggest
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent, ConeProgramStructure
from cvxlayer.program.cone_derivative import AbstractReverseDerivative, ConeDerivative
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import AbstractBackend, Settings
from cvxlayer.solve.epigraph import LinearProgram, linearize_objective
from cvxlayer.solve.rows import (
    Instance,
    Row,
    fail,
    judge,
    map_in_threads,
    read_instance,
    refuse_missing_cones,
    solve_rows,
)
from cvxlayer.solve.scs import FASTEST_LINEAR_SOLVER, name_cones

_LOGGER = logging.getLogger("cvxlayer")
# A row that ended early is measured and reported by ourselves, in one warning for each call.
warnings.filterwarnings("ignore", "Solved/Inaccurate", module="diffcp")

_SOLVERS = ("SCS", "Clarabel")
_MODES = ("dense", "lsqr", "lsmr")
_STATUSES = {
    "solved": Status.SOLVED,
    "infeasible": Status.INFEASIBLE,
    "unbounded": Status.UNBOUNDED,
}
# As of 1.1.9 it applies the permutation from one triangle to the other the wrong way round, which
# is the same up to this order.
_LARGEST_ORDER_FOR_CLARABEL = 3
_SHARE_OF_TOLERANCE = 0.1
_DEFAULT_MAX_ITERS = {"SCS": 100_000, "Clarabel": 200}

Adjoint = Callable[
    [np.ndarray | None, np.ndarray | None, np.ndarray | None], tuple[np.ndarray, np.ndarray]
]
"""(x̄, ȳ, s̄), None for zero ↦ (q̄, b̄) of one instance."""


class DiffcpBackend(AbstractBackend):
    """Solve each instance through diffcp.

    `solver_args` may also contain, by their names in diffcp, `solve_method` ("SCS", the default,
    or "Clarabel") and `mode` ("lsqr", "lsmr" or "dense"), which asks for diffcp's own
    derivative. Without `mode` the derivative is ours.

    Source:
        Agrawal, Barratt, Boyd, Busseti & Moursi, Differentiating through a cone program (2019).
    """

    name = "diffcp"
    extra_options = frozenset({"mode", "solve_method"})

    def setup(self, structure: ConeProgramStructure) -> None:
        """Check the cones; see `AbstractBackend.setup`."""
        refuse_missing_cones(self.name, structure.cones, frozenset({ConeKind.POWER}))

    def solve(self, prepared: None, batch: ConeProgramBatch, settings: Settings) -> ConeSolution:
        """Solve every instance; see `AbstractBackend.solve`.

        Raises:
            OptionError: `solve_method` or `mode` is not one of those above, or Clarabel would
                get a semidefinite cone beyond order 3.
        """
        options = _convert(settings)
        largest = max(batch.structure.cones.semidefinite, default=0)
        if options["solve_method"] == "Clarabel" and largest > _LARGEST_ORDER_FOR_CLARABEL:
            raise OptionError(
                f"The problem has a semidefinite cone of order {largest}. diffcp hands "
                "semidefinite cones beyond order 3 to Clarabel with their rows in the wrong order. "
                "Leave `solve_method` out, or use the solver `clarabel`."
            )

        def solve_row(index: int) -> Row:
            return _solve_instance(batch, index, options, settings)

        return solve_rows(self, batch, settings, solve_row)

    def derivative(self, settings: Settings) -> ConeDerivative | None:
        """Return diffcp's own derivative if `mode` is given, else None for ours."""
        return None if settings.extra.get("mode") is None else _own_derivative()


class DiffcpDerivative(AbstractReverseDerivative):
    """diffcp's own adjoint, in the form the compiler asks for."""

    @property
    def refusal(self) -> str:
        """Say what diffcp's derivative cannot do."""
        return (
            "diffcp's own derivative only pulls gradients back, once; this asks it for a "
            "forward-mode, second-order or vectorized derivative. Leave `mode` out of "
            "`solver_args` to get ours."
        )

    def setup(self, structure: ConeProgramStructure) -> None:
        """Do nothing: each solution carries its adjoint."""
        del structure

    def vjp(
        self,
        prepared: None,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        x_bar: Float[np.ndarray, "batch n"] | None,
        y_bar: Float[np.ndarray, "batch m"] | None,
        s_bar: Float[np.ndarray, "batch m"] | None,
        *,
        needs: tuple[bool, bool, bool, bool] = (True, True, True, True),
        threads: int | None = None,
    ) -> ConeProgramCotangent:
        """Map cotangents of the solution to cotangents of the data.

        diffcp gives q̄ and b̄. By the formulas of docs/derivations/derivative.md the others
        follow, Ā = y q̄ᵀ − b̄ xᵀ and P̄ = ½(q̄xᵀ + xq̄ᵀ): for A these are diffcp's own numbers,
        and it has none for P or for an entry of A that is zero. `residual` is not known: NaN.
        """
        del prepared
        structure, size = batch.structure, batch.size
        q_bar = np.zeros((size, structure.num_variables))
        b_bar = np.zeros((size, structure.num_rows))
        adjoints: tuple[Adjoint | None, ...] | None = solution.adjoints
        assert adjoints is not None, "the solve had no `mode`"

        def pull_back(row: int) -> None:
            adjoint = adjoints[row]
            if adjoint is not None and Status(solution.status[row]).has_solution:
                bars = [None if bar is None else bar[row] for bar in (x_bar, y_bar, s_bar)]
                q_bar[row], b_bar[row] = adjoint(*bars)

        map_in_threads(pull_back, size, threads)
        x, y = (np.where(np.isfinite(part), part, 0.0) for part in (solution.x, solution.y))
        P_bar, A_bar = _outer_products(structure, x, y, q_bar, b_bar)
        P, q, A, b = (
            bar if need else None
            for bar, need in zip((P_bar, q_bar, A_bar, b_bar), needs, strict=True)
        )
        return ConeProgramCotangent(P=P, q=q, A=A, b=b, residual=np.full(size, np.nan))


_own_derivative = functools.cache(DiffcpDerivative)


def _outer_products(
    structure: ConeProgramStructure,
    x: np.ndarray,
    y: np.ndarray,
    q_bar: np.ndarray,
    b_bar: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return P̄ and Ā at their stored entries; one above the diagonal of P stands for two."""
    i, j = structure.P_indices, _columns(structure.P_indptr)
    both = q_bar[:, i] * x[:, j] + x[:, i] * q_bar[:, j]
    P_bar = np.where(i == j, 0.5, 1.0) * both
    i, j = structure.A_indices, _columns(structure.A_indptr)
    return P_bar, y[:, i] * q_bar[:, j] - b_bar[:, i] * x[:, j]


def _columns(indptr: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def _convert(settings: Settings) -> dict[str, Any]:
    method = settings.extra.get("solve_method") or _SOLVERS[0]
    mode = settings.extra.get("mode")
    for name, value, valid in [("solve_method", method, _SOLVERS), ("mode", mode, _MODES)]:
        if value is not None and value not in valid:
            raise OptionError(
                f"diffcp's option `{name}` is {value!r}; it must be one of {', '.join(valid)}. "
                f"{suggest(str(value), valid)}"
            )
    limit = settings.max_iters or _DEFAULT_MAX_ITERS[method]
    # The cone of the objective multiplies residuals when it is taken out again.
    share = 1.0 if mode is None else _SHARE_OF_TOLERANCE
    eps_abs, eps_rel = share * settings.eps_abs, share * settings.eps_rel
    options: dict[str, Any]
    if method == "SCS":
        options = {"eps_abs": eps_abs, "eps_rel": eps_rel, "max_iters": limit}
        options.update(FASTEST_LINEAR_SOLVER)
    else:
        options = {
            "tol_gap_abs": eps_abs,
            "tol_gap_rel": eps_rel,
            "tol_feas": min(eps_abs, eps_rel),
            "max_iter": limit,
            "max_threads": 1,
        }
    # A mode that needs no derivative is the one way to a quadratic objective.
    return {"solve_method": method, "mode": mode or "lpgd", "raise_on_error": False, **options}


def _solve_instance(
    batch: ConeProgramBatch, index: int, options: dict[str, Any], settings: Settings
) -> Row:
    """Solve one instance; whatever goes wrong in it becomes its status."""
    instance = read_instance(batch, index)
    if instance is None:
        return fail(batch.structure.num_variables, batch.structure.num_rows)
    has_adjoint = options["mode"] in _MODES
    nothing = sp.csc_matrix(instance.P.shape)
    to_linearize, P = (instance.P, nothing) if has_adjoint else (nothing, instance.P)
    program = linearize_objective(to_linearize, instance.q, instance.A, instance.b, instance.cones)
    try:
        solved = diffcp.solve_and_derivative_internal(
            program.A,
            program.b,
            program.q,
            name_cones(program.cones),
            P=P if P.nnz else None,
            **options,
        )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 (a panic of Rust is only a BaseException)
        _LOGGER.warning("diffcp: an instance ended in an error: %s", error)
        return fail(batch.structure.num_variables, batch.structure.num_rows)
    if solved["info"]["status"].lower() == "interrupted":
        raise KeyboardInterrupt
    iterations = solved["info"]["iter"]
    point = (
        solved["x"][: program.num_variables],
        solved["y"][program.is_original],
        solved["s"][program.is_original],
    )
    claim = _read_status(solved["info"]["status"], iterations, options)
    row = judge(batch, index, instance, point, claim, iterations, settings)
    if not has_adjoint or not row.status.has_solution:
        return row
    adjoint = functools.partial(_pull_back, solved["DT"], program, instance)
    return dataclasses.replace(row, adjoint=adjoint)


def _read_status(status: str, iterations: int, options: dict[str, Any]) -> Status:
    claim = _STATUSES.get(status.lower(), Status.NUMERICAL_ERROR)
    limit: int = options["max_iters" if options["solve_method"] == "SCS" else "max_iter"]
    if claim is Status.NUMERICAL_ERROR and iterations >= limit:
        return Status.MAX_ITERATIONS
    return claim


def _pull_back(
    adjoint: Any,
    program: LinearProgram,
    instance: Instance,
    x_bar: np.ndarray | None,
    y_bar: np.ndarray | None,
    s_bar: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply diffcp's adjoint to cotangents of the structure's solution; see `Adjoint`."""
    num_present = int(np.count_nonzero(instance.is_present))
    dx, dy, ds = np.zeros(len(program.q)), np.zeros(len(program.b)), np.zeros(len(program.b))
    original = np.flatnonzero(program.is_original)[:num_present]
    if x_bar is not None:
        dx[: len(x_bar)] = x_bar
    for target, bar in ((dy, y_bar), (ds, s_bar)):
        if bar is not None:
            target[original] = bar[instance.is_present]
    _, db, dq = adjoint(dx, dy, ds)
    b_bar = np.zeros(len(instance.is_present))
    b_bar[instance.is_present] = db[original]
    return dq[: instance.num_variables], b_bar
