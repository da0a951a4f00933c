# SPDX-License-Identifier: Apache-2.0
"""Forward: the same natural data in, solutions out, each engine by its own interface.

Whatever depends on the structure alone is done in `prepare`, where the engine allows it;
constant matrices are handed over once.
"""

from __future__ import annotations

from typing import Any

import clarabel
import moreau
import numpy as np
import qoco
import scipy.sparse as sp

from cvxlayer.cones.product import ConeKind
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.benchmarks.contenders import (
    TOLERANCE,
    AbstractContender,
    Answer,
    DataSet,
    Job,
    moving_blocks,
)
from tests.benchmarks.forms import UpperTriangles
from tests.benchmarks.reference import clarabel_cones, clarabel_settings
from tests.benchmarks.workloads import Workload


def row_of(block: np.ndarray, i: int) -> np.ndarray:
    """Row i of a block, or its only row."""
    return block[i if len(block) > 1 else 0]


class NativeEngine(AbstractContender):
    """Ours."""

    settings = f"eps_abs = eps_rel = {TOLERANCE:g}"

    def __init__(self, solver: str | None = None) -> None:
        self.name = "cvxlayer" if solver is None else f"cvxlayer ({solver})"
        self._solver = solver

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        backend = get_backend(self._solver)
        prepared = backend.setup(sets[0].cone_program.structure)
        settings = Settings(TOLERANCE, TOLERANCE, threads=threads)
        batches = [one.cone_program for one in sets]
        return Job(
            lambda k: backend.solve(prepared, batches[k], settings),
            lambda solution, _: Answer(solution.x, solution.y),
        )


class ClarabelLoop(AbstractContender):
    """A new solver object for each instance, on matrices built beforehand."""

    name = "clarabel"
    settings = f"one solver per instance, tol_* = {TOLERANCE:g}, max_threads = 1"

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        del threads
        cones = clarabel_cones(sets[0].cone_program.structure.cones)
        settings = clarabel_settings(TOLERANCE)
        forms = [UpperTriangles.of(one.cone_program) for one in sets]
        instances = [[form.batch.instance(i) for i in range(form.batch.size)] for form in forms]

        def run(k: int) -> list[Any]:
            return [
                clarabel.DefaultSolver(P, q, A, b, cones, settings).solve()
                for P, q, A, b in instances[k]
            ]

        return Job(run, lambda solutions, k: _read_clarabel(solutions, forms[k]))


class ClarabelUpdate(AbstractContender):
    """One solver object, new data for each instance: its symbolic work is done once."""

    name = "clarabel (update)"
    settings = f"one solver, `update`, tol_* = {TOLERANCE:g}, presolve off, max_threads = 1"

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        del threads
        settings = clarabel_settings(TOLERANCE)
        settings.presolve_enable = False
        forms = [UpperTriangles.of(one.cone_program) for one in sets]
        first = forms[0].batch
        solver = clarabel.DefaultSolver(
            *first.instance(0), clarabel_cones(first.structure.cones), settings
        )
        batches, moving = [form.batch for form in forms], sorted(moving_blocks(sets))

        def run(k: int) -> list[Any]:
            solutions = []
            for i in range(batches[k].size):
                solver.update(**{name: row_of(getattr(batches[k], name), i) for name in moving})
                solutions.append(solver.solve())
            return solutions

        return Job(run, lambda solutions, k: _read_clarabel(solutions, forms[k]))


def _read_clarabel(solutions: list[Any], form: UpperTriangles) -> Answer:
    x, y = [one.x for one in solutions], [one.z for one in solutions]
    return Answer(np.array(x), form.restore(np.array(y)))


def moreau_patterns(batch: ConeProgramBatch) -> dict[str, Any]:
    """CSR patterns for moreau, and where each of its values lies in ours."""
    structure = batch.structure
    n, m = structure.num_variables, structure.num_rows
    where = np.arange(1, structure.num_P + 1)
    upper = sp.csc_array((where, structure.P_indices, structure.P_indptr), shape=(n, n))
    strict = sp.triu(upper, k=1)
    P = sp.csr_array(upper + strict.T) if structure.num_P else sp.csr_array((n, n), dtype=int)
    where = np.arange(1, structure.num_A + 1)
    A = sp.csc_array((where, structure.A_indices, structure.A_indptr), shape=(m, n)).tocsr()
    return {"P": P, "A": A, "P_source": P.data - 1, "A_source": A.data - 1}


def moreau_solver(batch: ConeProgramBatch, mode: str, *, gradients: bool) -> tuple[Any, Any]:
    """(solver, patterns) for batches of this structure and size."""
    patterns = moreau_patterns(batch)
    cones = batch.structure.cones
    settings = moreau.Settings(
        solver=mode,
        device="cpu",
        batch_size=batch.size,
        enable_grad=gradients,
        ipm_settings=moreau.IPMSettings(
            tol_gap_abs=TOLERANCE, tol_gap_rel=TOLERANCE, tol_feas=TOLERANCE
        ),
        active_set_settings=moreau.ActiveSetSettings(primal_tol=TOLERANCE),
    )
    solver = moreau.CompiledSolver(
        n=batch.structure.num_variables,
        m=batch.structure.num_rows,
        P_row_offsets=patterns["P"].indptr.astype(np.int64),
        P_col_indices=patterns["P"].indices.astype(np.int64),
        A_row_offsets=patterns["A"].indptr.astype(np.int64),
        A_col_indices=patterns["A"].indices.astype(np.int64),
        cones=moreau.Cones(
            num_zero_cones=cones.zero,
            num_nonneg_cones=cones.nonnegative,
            so_cone_dims=list(cones.second_order),
            psd_dims=list(cones.semidefinite),
            num_exp_cones=cones.exponential,
            power_alphas=list(cones.power),
        ),
        settings=settings,
    )
    return solver, patterns


def moreau_data(batch: ConeProgramBatch, patterns: Any) -> tuple[np.ndarray, ...]:
    """(P, A, q, b) as moreau wants them; shared matrices stay one-dimensional."""
    P, A = batch.P[:, patterns["P_source"]], batch.A[:, patterns["A_source"]]
    q, b = (
        np.ascontiguousarray(np.broadcast_to(block, (batch.size, block.shape[1])))
        for block in (batch.q, batch.b)
    )
    return (P[0] if len(P) == 1 else P), (A[0] if len(A) == 1 else A), q, b


class Moreau(AbstractContender):
    """moreau's compiled batch solver."""

    def __init__(self, mode: str) -> None:
        self.name = f"moreau {mode}"
        self._mode = mode
        self.settings = f"solver = {mode}, tol_* = primal_tol = {TOLERANCE:g}"

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        del threads
        forms = [UpperTriangles.of(one.cone_program) for one in sets]
        solver, patterns = moreau_solver(forms[0].batch, self._mode, gradients=False)
        data = [moreau_data(form.batch, patterns) for form in forms]
        constant = moving_blocks(sets).isdisjoint("PA")
        if constant:
            solver.setup(*data[0][:2])

        def run(k: int) -> Any:
            P, A, q, b = data[k]
            if not constant:
                solver.setup(*repeat_shared(P, A))
            return solver.solve(q, b)

        def read(found: Any, k: int) -> Answer:
            return Answer(np.array(found.x), forms[k].restore(np.array(found.z)))

        return Job(run, read)


def repeat_shared(P: np.ndarray, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """moreau wants both matrices shared or neither: repeat the shared one."""
    if P.ndim == A.ndim:
        return P, A
    batch = max(P.shape[0] if P.ndim == 2 else 1, A.shape[0] if A.ndim == 2 else 1)
    return tuple(np.broadcast_to(v, (batch, v.shape[-1])) for v in (P, A))


class Qoco(AbstractContender):
    """One workspace, new data for each instance."""

    name = "qoco"
    settings = f"one workspace, `update_*_data`, abstol = reltol = {TOLERANCE:g}"

    def refuses(self, workload: Workload) -> str | None:
        values = workload.sample(np.random.default_rng(0), 1)
        kinds = {cone.kind for cone in workload.cone_program(values).structure.cones.curved}
        return None if kinds <= {ConeKind.SECOND_ORDER} else "second-order cones only"

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        del threads
        first = sets[0].cone_program
        structure, cones = first.structure, first.structure.cones
        P, q, A, b = (sp.csc_matrix(v) if sp.issparse(v) else v for v in first.instance(0))
        m, zero = structure.num_rows, cones.zero
        is_equality = structure.A_indices < zero
        solver = qoco.QOCO()
        solver.setup(
            structure.num_variables, m - zero, zero, P if P.nnz else None, q,
            A[:zero] if zero else None, b[:zero] if zero else None,
            A[zero:] if m > zero else None, b[zero:] if m > zero else None,
            cones.nonnegative, len(cones.second_order),
            np.array(cones.second_order, dtype=np.int32),
            abstol=TOLERANCE, reltol=TOLERANCE, max_iters=200,
        )  # fmt: skip
        batches, moving = [one.cone_program for one in sets], moving_blocks(sets)

        def run(k: int) -> list[Any]:
            batch, found = batches[k], []
            for i in range(batch.size):
                rhs = row_of(batch.b, i)
                solver.update_vector_data(
                    row_of(batch.q, i), rhs[:zero] if zero else None, rhs[zero:]
                )
                if not moving.isdisjoint("PA"):
                    A_values = row_of(batch.A, i) if "A" in moving else None
                    solver.update_matrix_data(
                        row_of(batch.P, i) if "P" in moving else None,
                        A_values[is_equality] if A_values is not None and zero else None,
                        A_values[~is_equality] if A_values is not None else None,
                    )
                result = solver.solve()
                found.append((np.array(result.x), np.concatenate([result.y, result.z])))
            return found

        return Job(run, read_pairs)


def read_pairs(found: list[tuple[np.ndarray, np.ndarray]], _: int) -> Answer:
    """The answer of engines that return one (x, y) per instance."""
    return Answer(np.array([x for x, _ in found]), np.array([y for _, y in found]))


def engine_contenders(solver: str | None = None) -> list[AbstractContender]:
    """Engines for second-order cones too, ours first."""
    return [
        NativeEngine(solver),
        ClarabelLoop(),
        ClarabelUpdate(),
        Moreau("ipm"),
        Moreau("auto"),
        Qoco(),
    ]
