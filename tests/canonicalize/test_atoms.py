# SPDX-License-Identifier: Apache-2.0
"""Every atom of the installed CVXPY: its answers, and gradients against differences."""

from __future__ import annotations

import functools
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import Layer, _native
from cvxlayer.compiler import CompiledProgram, compile_problem
from cvxlayer.program.parameters import to_coordinates
from cvxlayer.solve.registry import get_backend
from tests.catalog.atoms import (
    ATOM_CASES,
    EXCLUDED_ATOMS,
    EXCLUDED_CLASSES,
    AtomCase,
    GeometricAtomCase,
    Problem,
    atom_classes,
    exported_atoms,
)

CVXPY_OPTIONS = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
# CVXPY's answer is exact to about the root of its gap.
TOLERANCE = 2e-5
STEP = 1e-4
# Multipliers with eigenvalues down to 1e-9, or an optimum that is not attained (a logarithm that
# tends to −∞), leave solutions right to 1e-6 only, which a longer step divides by more.
LONG_STEP = {"quantum_rel_entr": 1e-2, "resolvent": 1e-2}
each_case = pytest.mark.parametrize("case", ATOM_CASES, ids=str)


@functools.cache
def compiled(case: AtomCase) -> tuple[Problem, CompiledProgram]:
    problem, parameters, variables = case.build()
    is_geometric = isinstance(case, GeometricAtomCase)
    program = compile_problem(problem, parameters, variables, gp=is_geometric)
    return (problem, parameters, variables), program


def is_native(program: CompiledProgram) -> bool:
    """Whether our engine has the cones of the program; else Clarabel and NumPy step in."""
    return {c.kind for c in program.program.structure.cones.curved} <= set(_native.cone_kinds())


def layer_of(program: CompiledProgram) -> Layer:
    if is_native(program):
        return Layer(program)
    # Where the cones are curved an answer is only exact to the root of the tolerance.
    return Layer(program, solver="clarabel", solver_args={"eps": 1e-10})


def test_every_exported_atom_has_a_case_or_a_reason_why_not() -> None:
    assert exported_atoms() - set(EXCLUDED_ATOMS) == {
        case.name for case in ATOM_CASES if hasattr(cp.atoms, case.name)
    }


def test_every_class_of_atoms_occurs_in_a_case_or_has_a_reason_why_not() -> None:
    used = {node.__name__ for case in ATOM_CASES for node in case.build()[0].atoms()}
    assert atom_classes() - set(EXCLUDED_CLASSES) - used == set()
    assert not used & set(EXCLUDED_CLASSES)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@each_case
def test_solution_and_value_are_those_of_cvxpy(case: AtomCase, rng: Any) -> None:
    (problem, parameters, variables), program = compiled(case)
    values = case.draw(rng)
    solution = layer_of(program).solve(*values)
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = value
    is_geometric = isinstance(case, GeometricAtomCase)
    problem.solve(solver=cp.CLARABEL, gp=is_geometric, ignore_dpp=True, **CVXPY_OPTIONS)
    # The solver's: CVXPY's `value` has the true entropy where it solves with an approximation.
    optimum = problem.solution.opt_val
    assert solution.value == pytest.approx(optimum, rel=TOLERANCE, abs=TOLERANCE)
    for array, variable in zip(solution.variables, variables, strict=True):
        np.testing.assert_allclose(array, variable.value, rtol=TOLERANCE, atol=TOLERANCE)


@each_case
def test_the_gradient_is_the_slope_of_the_solution(case: AtomCase, rng: Any) -> None:
    """Where answers are too rough for differences, the slope is that of the value."""
    _, program = compiled(case)
    values = case.draw(rng)
    change = [v - w for v, w in zip(case.draw(rng), case.draw(rng), strict=True)]
    backend = get_backend("native" if is_native(program) else "clarabel")
    is_fine = is_native(program)
    step = LONG_STEP.get(case.name, STEP)
    weights = [rng.normal(size=(1, spec.size)) for spec in program.outputs]
    value_weight = np.zeros(1) if is_fine else np.ones(1)

    def solve(*steps: float) -> Any:
        rows = [
            to_coordinates(spec, np.stack([v + change_by * d for change_by in steps]))
            for spec, v, d in zip(program.parameters, values, change, strict=True)
        ]
        return program.solve(rows, backend=backend)

    def loss(solution: Any) -> np.ndarray:
        outputs = zip(solution.outputs, weights, strict=True)
        moved = sum(output @ w[0] for output, w in outputs) if is_fine else 0.0
        return moved + value_weight[0] * solution.value

    bars, _ = program.vjp(solve(0.0), weights if is_fine else [None] * len(weights), value_weight)
    slope = sum(
        float(bar[0] @ to_coordinates(spec, d[None])[0])
        for spec, bar, d in zip(program.parameters, bars, change, strict=True)
    )
    ahead = loss(solve(step, -step, 2 * step, -2 * step))
    expected = (8 * (ahead[0] - ahead[1]) - (ahead[2] - ahead[3])) / (12 * step)
    assert slope == pytest.approx(expected, rel=1e-4, abs=1e-4)
