# SPDX-License-Identifier: Apache-2.0
"""The whole of stage 1: check, read, reduce, and say where everything went."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cvxpy as cp

from cvxlayer.canonicalize.answer import AnswerMap
from cvxlayer.canonicalize.convexity import is_surely_convex
from cvxlayer.canonicalize.eliminate import eliminate
from cvxlayer.canonicalize.form import CanonicalForm
from cvxlayer.canonicalize.frontend import CanonicalizedProblem, read_problem
from cvxlayer.canonicalize.prepare import PreparedProblem, prepare
from cvxlayer.canonicalize.rules import check_arguments
from cvxlayer.errors import UnsupportedProblemError
from cvxlayer.program.coordinates import Coordinates
from cvxlayer.program.parameters import OutputSpec, ParameterSpec
from cvxlayer.program.parametric import AffineMap, ParametricConeProgram
from cvxlayer.program.recovery import RecoveredOutput, Recovery
from cvxlayer.program.sparse_map import SparseMap


@dataclasses.dataclass(frozen=True, eq=False)
class CanonicalProgram:
    """What stage 1 hands to the others.

    Attributes:
        parameters: the inputs, in call order.
        coordinates: θ, made of the inputs.
        program: the reduced parametric cone program.
        recovery: the way back to the user's variables and duals.
    """

    parameters: tuple[ParameterSpec, ...]
    coordinates: Coordinates
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
        NotDppError: the problem is not DCP (with `gp`, DGP) or not DPP, or its objective not
            convex.
        ValueError: `parameters` or `variables` do not fit the problem.
        UnsupportedProblemError: it needs integers, or cones that the engine lacks.
    """
    check_arguments(problem, parameters, variables)
    prepared = prepare(problem, parameters, gp=gp)
    canonical = read_problem(prepared)
    form = eliminate(canonical.form)
    specs = prepared.coordinates.specs(prepared.specs)
    program = form.to_program(specs, is_convex=is_surely_convex(canonical.form.P))
    answers = _Answers(prepared, canonical, form, specs)
    duals, positions, by_dual_id = answers.duals()
    outputs: list[RecoveredOutput] = []
    for variable in variables:
        if variable.id in canonical.variable_maps:
            outputs.append(answers.variable(variable))
        elif variable.id in by_dual_id:
            outputs.append(duals[by_dual_id[variable.id]])
        else:
            raise UnsupportedProblemError(
                f"`{variable.name()}` is the dual variable of a constraint that CVXPY replaces by "
                "an approximation, so it has no value. Leave it out."
            )
    ids = tuple(constraint.id for constraint in problem.constraints)
    rows = canonical.origins.of_rows(form)
    recovery = Recovery(tuple(outputs), duals, positions, ids, canonical.sign, rows, gp)
    return CanonicalProgram(prepared.specs, prepared.coordinates, program, recovery)


@dataclasses.dataclass(frozen=True, eq=False)
class _Answers:
    """Says how what the user asks for comes back from a reduced form."""

    prepared: PreparedProblem
    canonical: CanonicalizedProblem
    form: CanonicalForm
    specs: tuple[ParameterSpec, ...]

    def variable(self, variable: Any) -> RecoveredOutput:
        """Return how a variable comes back."""
        spec = OutputSpec(
            variable.name(), tuple(variable.shape), is_complex=bool(variable.is_complex())
        )
        answer = self.form.primal.take(self.canonical.variable_maps[variable.id])
        return self._recovered(spec, answer, is_log=self.prepared.is_geometric)

    def duals(
        self,
    ) -> tuple[tuple[RecoveredOutput, ...], dict[int, tuple[int, ...]], dict[int, int]]:
        """Return all dual outputs, their places by constraint id, and by dual variable id."""
        duals: list[RecoveredOutput] = []
        positions: dict[int, tuple[int, ...]] = {}
        by_dual_id: dict[int, int] = {}
        constraints = self.prepared.original.constraints
        for constraint, maps in zip(constraints, self.canonical.dual_maps, strict=True):
            positions[constraint.id] = tuple(range(len(duals), len(duals) + len(maps or ())))
            if maps is None:
                continue
            for dual, matrix in zip(constraint.dual_variables, maps, strict=True):
                by_dual_id[dual.id] = len(duals)
                spec = OutputSpec(
                    dual.name(), tuple(dual.shape), True, _num_rows(matrix) != dual.size
                )
                duals.append(self._recovered(spec, self.form.dual.take(matrix), is_log=False))
        return tuple(duals), positions, by_dual_id

    def _recovered(self, spec: OutputSpec, answer: AnswerMap, *, is_log: bool) -> RecoveredOutput:
        matrix, offset = answer.of_theta.dense_column()
        return RecoveredOutput(
            spec,
            SparseMap.of(answer.of_x) if answer.of_x.nnz else None,
            SparseMap.of(answer.of_y) if answer.of_y.nnz else None,
            AffineMap.of(matrix, offset, self.specs) if matrix.nnz or offset.any() else None,
            is_log,
        )


def _num_rows(matrix: Any) -> int:
    return int(matrix.shape[0])
