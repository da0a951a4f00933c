# SPDX-License-Identifier: Apache-2.0
"""The reduced form is the natural one, and equivalent."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayer.canonicalize.assemble import canonicalize
from cvxlayer.canonicalize.eliminate import eliminate
from cvxlayer.canonicalize.fill import Patterns, growth
from cvxlayer.canonicalize.frontend import read_problem
from cvxlayer.canonicalize.prepare import prepare
from cvxlayer.compiler import compile_problem
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramStructure
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.dpp_problems import DPP_CASES, DppCase


def structure_of(problem: cp.Problem, variables: list[Any]) -> ConeProgramStructure:
    return canonicalize(problem, problem.parameters(), variables).program.structure


def sizes(structure: ConeProgramStructure) -> tuple[int, int, int, tuple[int, ...]]:
    cones = structure.cones
    return structure.num_variables, cones.zero, cones.nonnegative, cones.second_order


def _control(horizon: int, states: int, inputs: int) -> tuple[cp.Problem, list[Any]]:
    x, u = cp.Variable((states, horizon + 1)), cp.Variable((inputs, horizon))
    F, H = cp.Parameter((states, states)), cp.Parameter((states, inputs))
    start, target = cp.Parameter(states), cp.Parameter(states)
    weight = np.diag(np.arange(1.0, inputs + 1))
    constraints = [x[:, 0] == start, cp.abs(u) <= 1, cp.abs(x[:, 1:]) <= 5]
    cost = 0
    for t in range(horizon):
        cost += cp.sum_squares(x[:, t + 1] - target) + cp.quad_form(u[:, t], weight)
        constraints.append(x[:, t + 1] == F @ x[:, t] + H @ u[:, t])
    return cp.Problem(cp.Minimize(cost), constraints), [u]


def test_control_reaches_its_natural_form() -> None:
    horizon, states, inputs = 20, 6, 3
    problem, outputs = _control(horizon, states, inputs)
    fresh = cp.Problem(problem.objective, problem.constraints)
    data, _, _ = fresh.get_problem_data(cp.CLARABEL)
    found = structure_of(problem, outputs)
    assert data["param_prob"].x.size > 480
    assert found.num_variables == states * (horizon + 1) + inputs * horizon
    assert found.cones.zero == states * (horizon + 1)
    assert found.cones.nonnegative == 2 * (states + inputs) * horizon
    assert found.num_P == (states + inputs) * horizon
    dynamics = horizon * (states * states + states * inputs + states)
    assert found.num_A == states + dynamics + found.cones.nonnegative


def test_residuals_of_a_tall_least_squares_go_and_of_a_wide_one_stay() -> None:
    rng, b = np.random.default_rng(0), cp.Parameter(60)
    x = cp.Variable(5, nonneg=True)
    tall = cp.Problem(cp.Minimize(cp.sum_squares(rng.normal(size=(60, 5)) @ x - b)))
    assert sizes(structure_of(tall, [x])) == (5, 0, 5, ())
    z, c = cp.Variable(60, nonneg=True), cp.Parameter(5)
    wide = cp.Problem(cp.Minimize(cp.sum_squares(rng.normal(size=(5, 60)) @ z - c)))
    assert sizes(structure_of(wide, [z])) == (65, 5, 60, ())


def test_residuals_stay_where_substituting_them_would_not_be_affine() -> None:
    x, A, b = cp.Variable(5), cp.Parameter((60, 5)), cp.Parameter(60)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)))
    assert sizes(structure_of(problem, [x])) == (65, 60, 0, ())


def test_a_users_variable_that_is_fixed_or_renamed_goes() -> None:
    x, y, z = cp.Variable(3), cp.Variable(3), cp.Variable(3)
    b, P = cp.Parameter(3), cp.Parameter((3, 3), PSD=True)
    fixed = cp.Problem(cp.Minimize(cp.sum_squares(x + y)), [y == b, x >= 0])
    assert sizes(structure_of(fixed, [x, y])) == (3, 0, 3, ())
    renamed = cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [x == z, z >= 0, x <= 2])
    assert sizes(structure_of(renamed, [x, z])) == (3, 0, 6, ())
    shifted = cp.Problem(cp.Minimize(cp.quad_form(x - b, P)))
    assert sizes(structure_of(shifted, [x])) == (3, 0, 0, ())


def test_a_users_variable_with_bounds_is_not_replaced_by_several() -> None:
    x, c = cp.Variable(4, nonneg=True), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == 1])
    assert sizes(structure_of(problem, [x])) == (4, 1, 4, ())


def test_a_program_keeps_a_variable_even_if_all_are_fixed() -> None:
    x, b = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum(x)), [x == b])
    program = compile_problem(problem, [b], [x, problem.constraints[0].dual_variables[0]])
    assert program.program.structure.num_variables == 1
    solution = program.solve([np.array([[1.0, 2.0, 3.0]])], backend=get_backend("clarabel"))
    np.testing.assert_allclose(solution.outputs[0], [[1.0, 2.0, 3.0]], atol=1e-7)
    np.testing.assert_allclose(solution.outputs[1], [[-1.0, -1.0, -1.0]], atol=1e-7)


@pytest.mark.parametrize(
    ("constrain", "expected"),
    [
        (lambda x, r: [cp.norm(x, 2) <= r], (4, 0, 0, (5,))),
        (lambda x, r: [cp.norm(x, 2) <= r + cp.sum(x)], (4, 0, 0, (5,))),
        (lambda x, r: [cp.norm_inf(x) <= r], (4, 0, 8, ())),
        (lambda x, r: [cp.abs(x) <= r], (4, 0, 8, ())),
        (lambda x, r: [cp.max(x) <= r], (4, 0, 4, ())),
        (lambda x, r: [cp.min(x) >= -r], (4, 0, 4, ())),
        (lambda x, r: [cp.square(x[0]) <= r], (4, 0, 0, (3,))),
        (lambda x, r: [cp.sum_squares(x) <= r], (4, 0, 0, (6,))),
        (lambda x, r: [-cp.sum_squares(x) >= -r], (4, 0, 0, (6,))),
        (lambda x, r: [cp.quad_over_lin(x, x[0] + 2) <= r], (4, 0, 0, (6,))),
    ],
)
def test_a_bound_on_an_epigraph_takes_the_place_of_its_variable(
    constrain: Any, expected: tuple[int, ...]
) -> None:
    x, c, r = cp.Variable(4), cp.Parameter(4), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(c @ x + cp.sum_squares(x)), constrain(x, r))
    assert sizes(structure_of(problem, [x])) == expected


def test_an_epigraph_that_two_constraints_bound_stays() -> None:
    x, c, r = cp.Variable(4), cp.Parameter(4), cp.Parameter(nonneg=True)
    length = cp.norm(x, 2)
    problem = cp.Problem(cp.Minimize(c @ x), [length <= r, length <= 2 - x[0]])
    found = structure_of(problem, [x])
    # CVXPY makes one variable of both or one of each; either way nothing may be lost.
    program = compile_problem(problem, problem.parameters(), [x])
    c.value, r.value = np.array([1.0, 2.0, 3.0, 4.0]), 5.0
    problem.solve(solver=cp.CLARABEL)
    values = [np.asarray(p.value, dtype=float).reshape(1, -1) for p in problem.parameters()]
    solution = program.solve(values, backend=get_backend("clarabel"))
    np.testing.assert_allclose(solution.outputs[0][0], x.value, atol=1e-5)
    assert found.num_variables >= 4


def test_rows_that_always_hold_go_and_their_duals_are_zero() -> None:
    x, b = cp.Variable(2), cp.Parameter(2)
    always = [cp.Constant(1) <= 2, 0 * x == 0, x <= np.array([np.inf, 1.0])]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)), always)
    program = compile_problem(problem, [b], [x])
    assert sizes(program.program.structure) == (2, 0, 1, ())
    solution = program.solve([np.array([[3.0, 4.0]])], backend=get_backend("clarabel"))
    np.testing.assert_allclose(solution.outputs[0], [[3.0, 1.0]], atol=1e-6)
    duals = [solution.dual(constraint)[0][0] for constraint in problem.constraints]
    np.testing.assert_allclose(duals[0], [0.0])
    np.testing.assert_allclose(duals[1], [0.0, 0.0])
    np.testing.assert_allclose(duals[2], [0.0, 6.0], atol=1e-5)


@pytest.mark.parametrize("never", [lambda x: 0 * x == 1, lambda x: cp.Constant(2) + 0 * x <= 1])
def test_rows_that_never_hold_stay_and_are_found_infeasible(never: Any) -> None:
    x, b = cp.Variable(), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.square(x - b)), [never(x)])
    program = compile_problem(problem, [b], [x])
    solution = program.solve([np.array([[3.0]])], backend=get_backend("clarabel"))
    assert solution.cone.status[0] == Status.INFEASIBLE


def test_a_row_without_variables_is_judged_at_each_value() -> None:
    x, b = cp.Variable(), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.square(x - 1)), [b <= 2])
    program = compile_problem(problem, [b], [x])
    solution = program.solve([np.array([[1.0], [3.0]])], backend=get_backend("clarabel"))
    assert solution.cone.status.tolist() == [Status.SOLVED, Status.INFEASIBLE]


@pytest.mark.parametrize("case", DPP_CASES, ids=str)
def test_the_reduced_form_has_the_same_optimal_value(case: DppCase, rng: Any) -> None:
    problem, parameters, variables = case.build()
    specs = canonicalize(problem, parameters, variables).parameters
    form = read_problem(prepare(problem, parameters)).form
    values = [np.asarray(v, dtype=float).reshape(1, -1) for v in case.sample(rng)]
    found = []
    for program in (form.to_program(specs), eliminate(form).to_program(specs)):
        batch = program.evaluate(values, 1)
        backend = get_backend("clarabel")
        settings = Settings(eps_abs=1e-10, eps_rel=1e-10)
        solution = backend.solve(backend.setup(program.structure), batch, settings)
        P, q, _, _ = batch.instance(0)
        x = solution.x[0]
        full = P + sp.triu(P, 1).T
        constant = program.objective_constant.evaluate(program.stack(values))[0]
        found.append(0.5 * x @ (full @ x) + q @ x + constant)
    assert found[1] == pytest.approx(found[0], abs=1e-6 * max(1.0, abs(found[0])))


@pytest.mark.parametrize("case", DPP_CASES, ids=str)
def test_the_reduced_form_is_never_costlier(case: DppCase) -> None:
    problem, parameters, _ = case.build()
    form = read_problem(prepare(problem, parameters)).form

    def cost(structure: ConeProgramStructure) -> int:
        return structure.num_P + structure.num_A + structure.num_variables + structure.num_rows

    specs = canonicalize(problem, parameters, []).parameters
    before = form.to_program(specs).structure
    after = eliminate(form).to_program(specs).structure
    assert cost(after) <= cost(before)


def test_growth_counts_what_substitution_does() -> None:
    x, b = cp.Variable(3), cp.Parameter(4)
    A = np.array([[1.0, 2, 0], [0, 1, 0], [0, 0, 3], [1, 0, 1]])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0])
    form = read_problem(prepare(problem, [b])).form
    specs = canonicalize(problem, [b], [x]).parameters
    before, after = (f.to_program(specs).structure for f in (form, eliminate(form)))
    residuals = np.flatnonzero(~form.shown_variables())
    rows = np.arange(form.cones.zero)
    # Four residuals, their rows with 6 + 4 entries and their 4 squares go; P gains 5 entries.
    expected = (after.num_P - before.num_P) + (after.num_A - before.num_A) - 4 - 4
    assert growth(Patterns.of(form), rows, residuals) == expected == 5 - 4 - 10 - 8
