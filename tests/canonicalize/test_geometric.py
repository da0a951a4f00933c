# SPDX-License-Identifier: Apache-2.0
"""Geometric programs: CVXPY's answers, and refusals that name the expression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import Layer
from cvxlayer.compiler import CompiledProgram, ProgramSolution, compile_problem
from cvxlayer.errors import (
    NotDppError,
    ParameterValueError,
    Status,
    UnsupportedProblemError,
)
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.dpp_problems import DppCase
from tests.catalog.geometric_programs import GEOMETRIC_PROGRAMS
from tests.catalog.slopes import slope_by_differences, slope_by_gradient

TIGHT = Settings(eps_abs=1e-10, eps_rel=1e-10)
CVXPY_OPTIONS = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
# The exponential cone, to about the root of 1e-10.
TOLERANCE = 2e-5
IS_OLD = cp.__version__.startswith("1.7")
STEP = 1e-3

each_case = pytest.mark.parametrize("case", GEOMETRIC_PROGRAMS, ids=str)


def rows(values: list[Any]) -> list[np.ndarray]:
    return [np.asarray(value, dtype=float).reshape(1, -1) for value in values]


def solve(program: CompiledProgram, values: list[Any]) -> ProgramSolution:
    return program.solve(rows(values), backend=get_backend("clarabel"), settings=TIGHT)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@each_case
def test_solution_value_and_duals_are_those_of_cvxpy(case: DppCase, rng: Any) -> None:
    if IS_OLD and case.name == "bounds and symmetry":
        pytest.skip("#3: CVXPY 1.7 ignores these attributes in geometric programs")
    problem, parameters, variables = case.build()
    program = compile_problem(problem, parameters, variables, gp=True)
    values = case.sample(rng)
    solution = solve(program, values)
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = value
    problem.solve(solver=cp.CLARABEL, gp=True, **CVXPY_OPTIONS)
    assert solution.value[0] == pytest.approx(problem.value, rel=TOLERANCE)
    for output, variable in zip(solution.outputs, variables, strict=True):
        np.testing.assert_allclose(output[0], np.ravel(variable.value), rtol=TOLERANCE)
    for constraint in problem.constraints:
        (dual,) = solution.dual(constraint)
        np.testing.assert_allclose(dual[0], np.ravel(constraint.dual_value), atol=TOLERANCE)


@each_case
def test_the_gradient_of_the_value_is_the_slope_of_the_value(case: DppCase, rng: Any) -> None:
    problem, parameters, variables = case.build()
    program = compile_problem(problem, parameters, variables, gp=True)
    values = case.sample(rng)
    change = [np.asarray(v * rng.normal(size=np.shape(v))) for v in values]
    nothing = [None] * len(program.outputs)
    gradients, _ = program.vjp(solve(program, values), nothing, np.ones(1))
    pairs = zip(gradients, change, strict=True)
    derivative = sum(float(gradient[0] @ np.ravel(d)) for gradient, d in pairs)

    def value(step: float) -> float:
        moved = [v + step * d for v, d in zip(values, change, strict=True)]
        return float(solve(program, moved).value[0])

    slope = (value(STEP) - value(-STEP)) / (2 * STEP)
    assert derivative == pytest.approx(slope, rel=1e-4, abs=1e-4)


@each_case
def test_the_gradient_of_the_solution_is_its_slope(case: DppCase, rng: Any) -> None:
    problem, parameters, variables = case.build()
    duals = [constraint.dual_variables[0] for constraint in problem.constraints]
    program = compile_problem(problem, parameters, [*variables, *duals], gp=True)
    values = case.sample(rng)
    change = [np.asarray(v * rng.normal(size=np.shape(v))) for v in values]
    weights = [rng.normal(size=(1, spec.size)) for spec in program.outputs]
    slope, residual = slope_by_gradient(program, values, change, weights)
    assert residual < 1e-8
    expected = slope_by_differences(program, values, change, weights)
    assert slope == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_batch_with_a_shared_parameter_equals_its_single_solves() -> None:
    problem, parameters, variables = GEOMETRIC_PROGRAMS[0].build()
    layer = Layer(problem, parameters, variables, gp=True, solver="clarabel")
    walls = np.array([20.0, 30.0, 40.0])
    together = layer(walls, 5.0, np.array([1.0, 1.5, 2.0]))
    for row, (wall, ratio) in enumerate(zip(walls, (1.0, 1.5, 2.0), strict=True)):
        for batch, single in zip(together, layer(wall, 5.0, ratio), strict=True):
            np.testing.assert_allclose(batch[row], single, rtol=1e-5)


@pytest.mark.parametrize(
    ("objective", "wanted"),
    [(cp.Minimize, (Status.INFEASIBLE, np.inf)), (cp.Maximize, (Status.INFEASIBLE, 0.0))],
)
def test_an_infeasible_program_has_the_value_that_cvxpy_gives_it(
    objective: Any, wanted: tuple[Status, float]
) -> None:
    x, a = cp.Variable(pos=True), cp.Parameter(pos=True)
    problem = cp.Problem(objective(x), [x <= a, x >= 2 * a])
    solution = solve(compile_problem(problem, [a], [x], gp=True), [1.0])
    assert (Status(int(solution.cone.status[0])), solution.value[0]) == wanted
    a.value = 1.0
    problem.solve(gp=True, solver=cp.CLARABEL)
    assert problem.value == wanted[1]


def test_an_infinite_bound_is_no_bound() -> None:
    x, bound = cp.Variable(pos=True), cp.Parameter(pos=True)
    layer = Layer(
        cp.Problem(cp.Minimize(x + 4 / x), [x <= bound]), [bound], [x], gp=True, solver="clarabel"
    )
    (x_star,) = layer(np.array([1.0, np.inf]))
    np.testing.assert_allclose(x_star, [1.0, 2.0], rtol=1e-4)


@pytest.mark.parametrize(
    ("value", "place"), [(0.0, "`a`"), (np.array([1.0, -1.0]), "`a` at batch index 1")]
)
def test_values_that_are_not_positive_are_refused_by_name(value: Any, place: str) -> None:
    problem, parameters, variables = GEOMETRIC_PROGRAMS[1].build()
    layer = Layer(problem, parameters, variables, gp=True, solver="clarabel")
    with pytest.raises(ParameterValueError, match=f"value of {place} is outside .* be positive"):
        layer(value, 1.0)


x, y = cp.Variable(pos=True, name="x"), cp.Variable(pos=True, name="y")
u = cp.Variable(name="u")
a, c = cp.Parameter(pos=True, name="a"), cp.Parameter(name="c")
REFUSED: list[tuple[str, Callable[[], cp.Problem], str]] = [
    (
        "a variable of any sign",
        lambda: cp.Problem(cp.Minimize(u * x)),
        r"objective, .*contains the variable `u`, .* declare `u` with `pos=True`",
    ),
    (
        "a difference",
        lambda: cp.Problem(cp.Minimize(x), [x - y >= 1]),
        r"Constraint 0, .*subtracts `y`. DGP has no differences",
    ),
    (
        "a constant that is not positive",
        lambda: cp.Problem(cp.Minimize(x), [x >= -1]),
        r"Constraint 0, .*contains the constant `-1.0`, which is not positive",
    ),
    (
        "a posynomial from below",
        lambda: cp.Problem(cp.Minimize(x), [x + y >= 1]),
        r"Constraint 0, .* right side that is log-log convex",
    ),
    (
        "an equality of posynomials",
        lambda: cp.Problem(cp.Minimize(x), [x + y == 1]),
        r"Constraint 0, .* not both monomials",
    ),
    (
        "a posynomial to maximize",
        lambda: cp.Problem(cp.Maximize(x + y), [x <= 1]),
        r"objective, .* is log-log convex, but DGP lets one maximize only",
    ),
    (
        "another kind of constraint",
        lambda: cp.Problem(cp.Minimize(x), [cp.SOC(x, cp.hstack([x, y]))]),
        r"Constraint 0, .* is a SOC constraint, which has no meaning for logarithms",
    ),
    (
        "an atom without a log-log curvature",
        lambda: cp.Problem(cp.Minimize(cp.sqrt(cp.log_sum_exp(x)))),
        r"contains `log_sum_exp",
    ),
    (
        "a parameter to the power of a parameter",
        lambda: cp.Problem(cp.Minimize(x), [x >= a**c]),
        r"Constraint 0, .* is not DPP: in .* the parameters `a` and `c`",
    ),
]


@pytest.mark.parametrize(
    ("build", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_breaks_the_rules_is_refused_with_its_expression(
    build: Callable[[], cp.Problem], message: str
) -> None:
    problem = build()
    with pytest.raises(NotDppError, match=message):
        compile_problem(problem, problem.parameters(), [x], gp=True)


def test_an_attribute_that_says_nothing_about_logarithms_is_refused() -> None:
    Z = cp.Variable((2, 2), pos=True, PSD=True, name="Z")
    problem = cp.Problem(cp.Minimize(cp.sum(Z) + 1 / Z[0, 0]))
    with pytest.raises(UnsupportedProblemError, match=r"`Z` .* declared with `PSD`"):
        compile_problem(problem, [], [Z], gp=True)


def test_a_constant_may_be_an_exponent_of_a_parameter() -> None:
    power = cp.Parameter(value=0.5)
    problem = cp.Problem(cp.Minimize(x + 1 / x), [x >= a**power])
    program = compile_problem(problem, [a], [x], gp=True)
    np.testing.assert_allclose(solve(program, [9.0]).outputs[0], 3.0, rtol=1e-6)
