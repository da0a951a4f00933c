# SPDX-License-Identifier: Apache-2.0
"""Duals of every kind of constraint: how the value moves, and what CVXPY reports."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer.compiler import CompiledProgram, ProgramSolution, compile_problem
from cvxlayer.program.parameters import from_coordinates, to_coordinates
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.constraint_kinds import CONSTRAINT_KINDS, ConstraintKind
from tests.catalog.slopes import slope_by_differences, slope_by_gradient

TIGHT = Settings(eps_abs=1e-10, eps_rel=1e-10)
CVXPY_OPTIONS = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
# Interior points stop at 1e-10 in the objective, at its root in solution and dual.
DUAL_TOLERANCE = 1e-4
STEP = 1e-3
GRADIENT_TOLERANCE = 1e-6

each_kind = pytest.mark.parametrize("kind", CONSTRAINT_KINDS, ids=str)


def solve(program: CompiledProgram, values: list[np.ndarray]) -> ProgramSolution:
    rows = [to_coordinates(s, v) for s, v in zip(program.parameters, values, strict=True)]
    solution = program.solve(rows, backend=get_backend("clarabel"), settings=TIGHT)
    assert solution.has_solution.all()
    return solution


def duals_of(solution: ProgramSolution, constraint: Any) -> list[np.ndarray]:
    specs = solution.program.dual_specs(constraint)
    pairs = zip(specs, solution.dual(constraint), strict=True)
    return [from_coordinates(spec, dual, ()) for spec, dual in pairs]


@each_kind
def test_the_dual_is_the_slope_of_the_value(kind: ConstraintKind, rng: Any) -> None:
    problem, parameters, variables = kind.build()
    program = compile_problem(problem, parameters, variables)
    values, change = kind.draw(rng), kind.draw(rng)
    duals = duals_of(solve(program, values), problem.constraints[0])
    assert any(np.abs(dual).max() > 0.1 for dual in duals), "the constraint does not bind"
    shifts = [d * (place % 2) for place, d in enumerate(change)]

    def value(step: float) -> float:
        moved = [np.asarray(v + step * d) for v, d in zip(values, shifts, strict=True)]
        return float(solve(program, moved).value[0])

    slope = (value(STEP) - value(-STEP)) / (2 * STEP)
    pairs = zip(duals, change[1::2], strict=True)
    expected = kind.sign * sum(float(np.real(np.vdot(dual, d))) for dual, d in pairs)
    assert slope == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in CONSTRAINT_KINDS if kind.is_reported], ids=str)
def test_solution_and_duals_are_those_of_cvxpy(kind: ConstraintKind, rng: Any) -> None:
    problem, parameters, variables = kind.build()
    values = kind.draw(rng)
    solution = solve(compile_problem(problem, parameters, variables), values)
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = value
    problem.solve(solver=cp.CLARABEL, **CVXPY_OPTIONS)
    assert solution.value[0] == pytest.approx(problem.value, abs=1e-6)
    specs = solution.program.outputs
    for output, spec, variable in zip(solution.outputs, specs, variables, strict=True):
        np.testing.assert_allclose(
            from_coordinates(spec, output, ()), variable.value, atol=DUAL_TOLERANCE
        )
    if cp.__version__.startswith("1.7") and kind.name in ("ExpCone", "Hermitian PSD"):
        return  # CVXPY 1.7 reports these duals in another order, and halved
    constraint = problem.constraints[0]
    for dual, variable in zip(
        duals_of(solution, constraint), constraint.dual_variables, strict=True
    ):
        assert dual.shape == variable.shape
        expected = np.asarray(variable.value).reshape(dual.shape)
        np.testing.assert_allclose(dual, expected, atol=DUAL_TOLERANCE)


@each_kind
def test_the_gradient_of_solution_and_duals_is_their_slope(kind: ConstraintKind, rng: Any) -> None:
    problem, parameters, variables = kind.build()
    (constraint,) = problem.constraints
    duals = constraint.dual_variables
    program = compile_problem(problem, parameters, [*variables, *duals])
    values, change = kind.draw(rng), kind.draw(rng)
    weights = [rng.normal(size=(1, spec.size)) for spec in program.outputs]
    slope, residual = slope_by_gradient(program, values, change, weights)
    assert residual < 1e-8
    expected = slope_by_differences(program, values, change, weights)
    assert slope == pytest.approx(expected, rel=GRADIENT_TOLERANCE, abs=GRADIENT_TOLERANCE)


def test_an_approximated_constraint_has_no_dual() -> None:
    x, b = cp.Variable(3), cp.Parameter(3)
    approximated = cp.constraints.RelEntrConeQuad(np.ones(3), np.ones(3) + 0 * x, x - b, 3, 3)
    problem = cp.Problem(cp.Minimize(cp.sum(x)), [approximated])
    solution = solve(compile_problem(problem, [b], [x]), [np.arange(3.0)])
    np.testing.assert_allclose(solution.outputs[0][0], np.arange(3.0), atol=1e-6)
    with pytest.raises(ValueError, match="has no dual: CVXPY replaces it by an approximation"):
        solution.dual(approximated)
