# SPDX-License-Identifier: Apache-2.0
"""Forward by the solvers that know quadratic programs only."""

from __future__ import annotations

from typing import Any

import daqp
import numpy as np
import piqp
import scipy.sparse as sp

from tests.benchmarks.contenders import (
    TOLERANCE,
    AbstractContender,
    Answer,
    DataSet,
    Job,
    moving_blocks,
    needs_quadratic_program,
)
from tests.benchmarks.engines import read_pairs, row_of
from tests.benchmarks.forms import QuadraticProgram
from tests.benchmarks.workloads import Workload


class Piqp(AbstractContender):
    """One workspace, dense or sparse as suits the workload; bounds handed over as bounds."""

    name = "piqp"
    settings = f"one workspace, `update`, eps_* = {TOLERANCE:g}"

    def refuses(self, workload: Workload) -> str | None:
        return needs_quadratic_program(workload)

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        del threads
        dense = sets[0].workload.is_dense
        solver = piqp.DenseSolver() if dense else piqp.SparseSolver()
        for name in ("eps_abs", "eps_rel", "eps_duality_gap_abs", "eps_duality_gap_rel"):
            setattr(solver.settings, name, TOLERANCE)
        form = piqp_dense_data if dense else piqp_sparse_data
        data = [[form(one.program, i) for i in range(one.size)] for one in sets]
        fixed = {"x_l": sets[0].program.lower, "x_u": sets[0].program.upper}
        solver.setup(**data[0][0], **fixed)
        changing = moving_blocks(sets)
        constant = ({"P"} - changing) | ({"A", "G"} if "A" not in changing else set())
        moving = [
            [{k: v for k, v in one.items() if k not in constant} for one in batch] for batch in data
        ]
        above, below = sets[0].program.bounded_above, sets[0].program.bounded_below

        def run(k: int) -> list[Any]:
            found = []
            for arguments in moving[k]:
                solver.update(**arguments)
                solver.solve()
                r = solver.result
                y = np.concatenate([r.y, r.z_u, r.z_bu[above], r.z_bl[below]])
                found.append((np.array(r.x), y))
            return found

        return Job(run, read_pairs)


def piqp_dense_data(program: QuadraticProgram, i: int) -> dict[str, Any]:
    """Arguments of PIQP's dense `setup` for one instance."""
    data: dict[str, Any] = {
        "P": np.asfortranarray(row_of(program.P.dense, i)),
        "c": row_of(program.q, i),
    }
    if program.A.shape[0]:
        data |= {"A": np.asfortranarray(row_of(program.A.dense, i)), "b": row_of(program.b, i)}
    if program.G.shape[0]:
        data |= {"G": np.asfortranarray(row_of(program.G.dense, i)), "h_u": row_of(program.h, i)}
    return data


def piqp_sparse_data(program: QuadraticProgram, i: int) -> dict[str, Any]:
    """Arguments of PIQP's sparse `setup` for one instance."""

    def sparse(matrix: Any) -> sp.csc_matrix:
        triple = (row_of(matrix.values, i), (matrix.rows, matrix.columns))
        return sp.csc_matrix(triple, shape=matrix.shape)

    data: dict[str, Any] = {"P": sparse(program.P), "c": row_of(program.q, i)}
    if program.A.shape[0]:
        data |= {"A": sparse(program.A), "b": row_of(program.b, i)}
    if program.G.shape[0]:
        data |= {"G": sparse(program.G), "h_u": row_of(program.h, i)}
    return data


class Daqp(AbstractContender):
    """A cold solve for each instance; bounds handed over as bounds."""

    name = "daqp"
    settings = f"`daqp.solve` per instance, primal_tol = {TOLERANCE:g}, dual_tol = 1e-12"

    def refuses(self, workload: Workload) -> str | None:
        return needs_quadratic_program(workload)

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        del threads
        program = sets[0].program
        above, below = program.bounded_above, program.bounded_below
        data = [[daqp_data(one.program, i) for i in range(one.size)] for one in sets]
        num_bounds = len(data[0][0][3]) - len(data[0][0][2])

        def run(k: int) -> list[Any]:
            return [daqp.solve(*one, primal_tol=TOLERANCE) for one in data[k]]

        def read(found: list[Any], _: int) -> Answer:
            points, duals = [], []
            for x, _value, _flag, details in found:
                multipliers = np.array(details["lam"])
                bounds, rows = multipliers[:num_bounds], multipliers[num_bounds:]
                upper, lower = np.maximum(bounds, 0), np.maximum(-bounds, 0)
                points.append(np.array(x))
                duals.append(
                    np.concatenate([rows, upper[above] if num_bounds else [],
                                    lower[below] if num_bounds else []])
                )  # fmt: skip
            return Answer(np.array(points), np.array(duals))

        return Job(run, read)


def daqp_data(program: QuadraticProgram, i: int) -> tuple[Any, ...]:
    """(H, f, A, upper, lower, sense): simple bounds first, then equalities, then Gx ≤ h."""
    has_bounds = bool(len(program.bounded_above) or len(program.bounded_below))
    bounds = (program.upper, program.lower) if has_bounds else (np.zeros(0), np.zeros(0))
    b, h = row_of(program.b, i), row_of(program.h, i)
    limit = 1e30
    upper = np.clip(np.concatenate([bounds[0], b, h]), -limit, limit)
    lower = np.clip(np.concatenate([bounds[1], b, np.full(len(h), -limit)]), -limit, limit)
    sense = np.zeros(len(upper), dtype=np.int32)
    sense[len(bounds[0]) : len(bounds[0]) + len(b)] = 5
    rows = np.vstack([row_of(program.A.dense, i), row_of(program.G.dense, i)])
    return (
        np.ascontiguousarray(row_of(program.P.dense, i)), row_of(program.q, i).copy(),
        np.ascontiguousarray(rows), upper, lower, sense,
    )  # fmt: skip


def quadratic_contenders() -> list[AbstractContender]:
    """All of them."""
    return [Piqp(), Daqp()]
