# SPDX-License-Identifier: Apache-2.0
"""The whole of stage 1: check, read, reduce, and say where everything went."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp

from cvxlayer.canonicalize.answer import AnswerMap
from cvxlayer.canonicalize.eliminate import eliminate
from cvxlayer.canonicalize.form import CanonicalForm
from cvxlayer.canonicalize.frontend import CanonicalizedProblem, read_problem
from cvxlayer.canonicalize.leaves import domain_of
from cvxlayer.canonicalize.prepare import prepare
from cvxlayer.canonicalize.rules import check_arguments, check_problem
from cvxlayer.program.parameters import OutputSpec, ParameterSpec
from cvxlayer.program.parametric import AffineMap, ParametricConeProgram
from cvxlayer.program.recovery import RecoveredOutput, Recovery
from cvxlayer.program.sparse_map import SparseMap


@dataclasses.dataclass(frozen=True, eq=False)
class CanonicalProgram:
    """What stage 1 hands to the others.

    Attributes:
        parameters: the inputs, in call order.
        program: the reduced parametric cone program.
        recovery: the way back to the user's variables and duals.
    """

    parameters: tuple[ParameterSpec, ...]
    program: ParametricConeProgram
    recovery: Recovery


def canonicalize(
    problem: cp.Problem,
    parameters: Sequence[Any],
    variables: Sequence[Any],
    *,
    gp: bool = False,
) -> CanonicalProgram:
    """Turn a DPP problem into a reduced parametric cone program.

    Raises:
        NotDppError: the problem is not DCP or not DPP.
        ValueError: `parameters` or `variables` do not fit the problem.
        UnsupportedProblemError: it needs integers or cones that the engine lacks.
    """
    check_arguments(problem, parameters, variables)
    prepared = prepare(problem, parameters)
    check_problem(prepared, gp=gp)
    specs = tuple(ParameterSpec(p.name(), tuple(p.shape), domain_of(p)) for p in parameters)
    canonical = read_problem(prepared, parameters)
    form = eliminate(canonical.form)
    program = form.to_program(specs)

    def recovered(spec: OutputSpec, answer: AnswerMap) -> RecoveredOutput:
        matrix, offset = answer.of_theta.dense_column()
        return RecoveredOutput(
            spec,
            SparseMap.of(answer.of_x) if answer.of_x.nnz else None,
            SparseMap.of(answer.of_y) if answer.of_y.nnz else None,
            AffineMap.of(matrix, offset, specs) if matrix.nnz or offset.any() else None,
        )

    duals, positions, by_dual_id = _duals(problem, canonical, form, recovered)
    outputs: list[RecoveredOutput] = []
    for variable in variables:
        if variable.id in by_dual_id:
            outputs.append(duals[by_dual_id[variable.id]])
        else:
            spec = OutputSpec(variable.name(), tuple(variable.shape))
            answer = form.primal.take(canonical.variable_maps[variable.id])
            outputs.append(recovered(spec, answer))
    ids = tuple(constraint.id for constraint in problem.constraints)
    recovery = Recovery(tuple(outputs), duals, positions, ids, canonical.sign)
    return CanonicalProgram(specs, program, recovery)


def _duals(
    problem: cp.Problem,
    canonical: CanonicalizedProblem,
    form: CanonicalForm,
    recovered: Callable[[OutputSpec, AnswerMap], RecoveredOutput],
) -> tuple[tuple[RecoveredOutput, ...], dict[int, tuple[int, ...]], dict[int, int]]:
    """Return all dual outputs, their places by constraint id, and by dual variable id."""
    duals: list[RecoveredOutput] = []
    positions: dict[int, tuple[int, ...]] = {}
    by_dual_id: dict[int, int] = {}
    for constraint, maps in zip(problem.constraints, canonical.dual_maps, strict=True):
        positions[constraint.id] = tuple(range(len(duals), len(duals) + len(maps)))
        for dual, matrix in zip(constraint.dual_variables, maps, strict=True):
            by_dual_id[dual.id] = len(duals)
            spec = OutputSpec(dual.name(), tuple(dual.shape), is_dual=True)
            duals.append(recovered(spec, form.dual.take(matrix)))
    return tuple(duals), positions, by_dual_id
