# SPDX-License-Identifier: Apache-2.0
"""A compiled program gives CVXPY's answers, and their derivatives."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer.compiler import CompiledProgram, ProgramSolution, compile_problem
from cvxlayer.differentiate.reference import ReferenceDerivative
from cvxlayer.errors import Status
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.dpp_problems import DPP_CASES, DppCase

TIGHT = Settings(eps_abs=1e-11, eps_rel=1e-11)
CVXPY_OPTIONS = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
# Two solvers at 1e-11 on problems whose curvature is of order one.
SOLUTION_TOLERANCE = 1e-5
# Clarabel leaves errors of about 1e-7 in a solution: a small step would magnify them.
DIFFERENCE_STEP = 1e-3
DERIVATIVE_TOLERANCE = 5e-4


def rows(values: list[Any]) -> list[np.ndarray]:
    return [np.asarray(value, dtype=float).reshape(1, -1) for value in values]


def solve(program: CompiledProgram, values: list[Any]) -> ProgramSolution:
    return program.solve(rows(values), backend=get_backend("clarabel"), settings=TIGHT)


def cvxpy_answer(
    problem: cp.Problem, parameters: list[cp.Parameter], variables: list[Any], values: list[Any]
) -> tuple[float, list[np.ndarray]]:
    for parameter, value in zip(parameters, values, strict=True):
        if parameter.attributes["sparsity"]:
            index = parameter.sparse_idx
            parameter.value_sparse = _coo(value, index)
        else:
            parameter.value = value
    problem.solve(solver=cp.CLARABEL, **CVXPY_OPTIONS)
    return float(problem.value), [_dense(variable.value) for variable in variables]


def _coo(value: np.ndarray, index: Any) -> Any:
    import scipy.sparse as sp

    return sp.coo_array((value[index], index), shape=value.shape)


def _dense(value: Any) -> np.ndarray:
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value, dtype=float)


@pytest.mark.parametrize("case", DPP_CASES, ids=str)
def test_outputs_value_and_duals_are_those_of_cvxpy(case: DppCase, rng: Any) -> None:
    problem, parameters, variables = case.build()
    program = compile_problem(problem, parameters, variables)
    for _ in range(2):
        values = case.sample(rng)
        solution = solve(program, values)
        expected_value, expected = cvxpy_answer(problem, parameters, variables, values)
        assert solution.value[0] == pytest.approx(expected_value, abs=SOLUTION_TOLERANCE)
        for output, array in zip(solution.outputs, expected, strict=True):
            np.testing.assert_allclose(output[0], array.ravel(), atol=SOLUTION_TOLERANCE)
        if case.has_unique_duals:
            for constraint in problem.constraints:
                _assert_duals_agree(solution, constraint)


def _assert_duals_agree(solution: ProgramSolution, constraint: Any) -> None:
    duals = solution.dual(constraint)
    specs = solution.program.dual_specs(constraint)
    for dual, spec, variable in zip(duals, specs, constraint.dual_variables, strict=True):
        assert spec.shape == variable.shape
        np.testing.assert_allclose(
            dual[0], np.asarray(variable.value).ravel(), atol=SOLUTION_TOLERANCE
        )


@pytest.mark.parametrize("case", DPP_CASES, ids=str)
def test_gradient_is_that_of_cvxpys_solution(case: DppCase, rng: Any) -> None:
    problem, parameters, variables = case.build()
    program = compile_problem(problem, parameters, variables)
    values, change = case.sample(rng), case.perturbation(rng)
    weights = [rng.normal(size=(1, spec.size)) for spec in program.outputs]
    value_weight = rng.normal(size=1)

    def loss(step: float) -> float:
        moved = [v + step * d for v, d in zip(values, change, strict=True)]
        value, outputs = cvxpy_answer(problem, parameters, variables, moved)
        pairs = zip(weights, outputs, strict=True)
        return sum(float(w[0] @ o.ravel()) for w, o in pairs) + float(value_weight[0] * value)

    difference = (loss(DIFFERENCE_STEP) - loss(-DIFFERENCE_STEP)) / (2 * DIFFERENCE_STEP)
    cotangents, residual = program.vjp(
        solve(program, values), weights, value_weight, derivative=ReferenceDerivative()
    )
    assert residual is not None
    assert residual[0] < 1e-8
    derivative = sum(float(bar[0] @ np.ravel(d)) for bar, d in zip(cotangents, change, strict=True))
    scale = max(1.0, abs(difference))
    assert derivative == pytest.approx(difference, abs=DERIVATIVE_TOLERANCE * scale)


@pytest.mark.parametrize("case", DPP_CASES, ids=str)
def test_a_batch_equals_its_single_solves(case: DppCase, rng: Any) -> None:
    problem, parameters, variables = case.build()
    program = compile_problem(problem, parameters, variables)
    draws = [case.sample(rng) for _ in range(3)]
    stacked = [np.concatenate(parts) for parts in zip(*(rows(d) for d in draws), strict=True)]
    backend = get_backend("clarabel")
    batch = program.solve(stacked, backend=backend, settings=TIGHT)
    weights = [rng.normal(size=(3, spec.size)) for spec in program.outputs]
    engine = ReferenceDerivative()
    bars, _ = program.vjp(batch, weights, np.ones(3), derivative=engine)
    for i, draw in enumerate(draws):
        single = solve(program, draw)
        np.testing.assert_allclose(batch.value[i], single.value[0], rtol=1e-9, atol=1e-9)
        single_bars, _ = program.vjp(
            single, [w[[i]] for w in weights], np.ones(1), derivative=engine
        )
        for bar, single_bar in zip(bars, single_bars, strict=True):
            np.testing.assert_allclose(bar[i], single_bar[0], rtol=1e-6, atol=1e-6)


def _projection() -> tuple[CompiledProgram, cp.Problem]:
    x, point, height = cp.Variable(3), cp.Parameter(3), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [cp.sum(x) == height, x >= 0])
    return compile_problem(problem, [point, height], [x]), problem


def test_a_shared_parameter_receives_the_sum_over_the_batch(rng: Any) -> None:
    program, _ = _projection()
    points, height = rng.normal(size=(5, 3)), np.ones((1, 1))
    backend, engine = get_backend("clarabel"), ReferenceDerivative()
    weights = [rng.normal(size=(5, 3))]
    shared = program.solve([points, height], backend=backend, settings=TIGHT)
    repeated = program.solve([points, np.ones((5, 1))], backend=backend, settings=TIGHT)
    bars, _ = program.vjp(shared, weights, np.ones(5), derivative=engine)
    full, _ = program.vjp(repeated, weights, np.ones(5), derivative=engine)
    assert bars[1].shape == (1, 1)
    np.testing.assert_allclose(bars[0], full[0], atol=1e-8)
    np.testing.assert_allclose(bars[1][0], full[1].sum(axis=0), atol=1e-8)


def test_blocks_that_only_shared_parameters_touch_have_one_row() -> None:
    program, _ = _projection()
    solution = program.solve(
        [np.zeros((4, 3)), np.ones((1, 1))], backend=get_backend("clarabel"), settings=TIGHT
    )
    batch = solution.batch
    assert (batch.P.shape[0], batch.A.shape[0], batch.b.shape[0]) == (1, 1, 1)
    assert batch.q.shape[0] == 4


def test_failed_rows_are_nan_and_contribute_nothing() -> None:
    program, problem = _projection()
    points, heights = np.ones((3, 3)), np.array([[1.0], [-1.0], [2.0]])
    solution = program.solve([points, heights], backend=get_backend("clarabel"), settings=TIGHT)
    assert solution.cone.status.tolist() == [Status.SOLVED, Status.INFEASIBLE, Status.SOLVED]
    assert np.isnan(solution.outputs[0][1]).all()
    assert not np.isnan(solution.outputs[0][[0, 2]]).any()
    assert solution.value[1] == np.inf
    assert np.isnan(solution.dual(problem.constraints[0])[0][1]).all()
    weights = np.ones((3, 3))
    weights[1] = np.nan
    bars, _ = program.vjp(
        solution, [weights], np.array([1.0, np.nan, 1.0]), derivative=ReferenceDerivative()
    )
    for bar in bars:
        assert np.all(bar[1] == 0.0)
        assert np.isfinite(bar).all()


@pytest.mark.parametrize("sense", [cp.Minimize, cp.Maximize])
def test_unbounded_and_infeasible_values_follow_cvxpy(sense: Any) -> None:
    x, c, h = cp.Variable(), cp.Parameter(), cp.Parameter()
    problem = cp.Problem(sense(c * x), [x >= -1, x <= 1, h * x >= 2])
    free = cp.Problem(sense(c * x + h))
    for case, status in ((problem, Status.INFEASIBLE), (free, Status.UNBOUNDED)):
        program = compile_problem(case, [c, h], [x])
        c.value, h.value = 1.0, 1.0
        case.solve(solver=cp.CLARABEL)
        solution = solve(program, [1.0, 1.0])
        assert solution.cone.status[0] == status
        assert solution.value[0] == case.value


def test_needs_limits_the_work_and_skips_the_rest(rng: Any) -> None:
    program, _ = _projection()
    solution = solve(program, [rng.normal(size=3), 1.0])
    bars, _ = program.vjp(
        solution, [np.ones((1, 3))], needs=[False, True], derivative=ReferenceDerivative()
    )
    assert bars[0] is None
    assert bars[1] is not None


def test_duals_are_differentiable(rng: Any) -> None:
    program, problem = _projection()
    equal, nonneg = problem.constraints
    values = [np.array([0.5, -0.3, 0.9]), 1.0]
    weights = [rng.normal(size=(1, 1)), rng.normal(size=(1, 3))]
    engine, solution = ReferenceDerivative(), solve(program, values)
    bars, _ = program.vjp(
        solution,
        [None],
        duals_bar=[(equal, [weights[0]]), (nonneg, [weights[1]])],
        derivative=engine,
    )
    change = rng.normal(size=3)

    def loss(step: float) -> float:
        moved = solve(program, [values[0] + step * change, 1.0])
        return float(
            np.sum(moved.dual(equal)[0] * weights[0]) + np.sum(moved.dual(1)[0] * weights[1])
        )

    difference = (loss(1e-4) - loss(-1e-4)) / 2e-4
    assert bars[0][0] @ change == pytest.approx(difference, abs=1e-5)


def test_a_constraint_of_another_problem_is_refused() -> None:
    program, _ = _projection()
    with pytest.raises(ValueError, match="is not one of the problem's"):
        program.dual_specs(cp.Variable() >= 0)
    with pytest.raises(ValueError, match="There is no constraint 7; the problem has 2"):
        program.dual_specs(7)


def test_a_program_survives_pickle_and_copy_without_its_caches(rng: Any) -> None:
    program, _ = _projection()
    values = [rng.normal(size=3), 1.0]
    expected = solve(program, values).outputs[0]
    for clone in (pickle.loads(pickle.dumps(program)), copy.deepcopy(program)):
        np.testing.assert_array_equal(solve(clone, values).outputs[0], expected)


def test_outputs_do_not_share_memory_with_the_solution(rng: Any) -> None:
    program, _ = _projection()
    solution = solve(program, [rng.normal(size=3), 1.0])
    assert not np.shares_memory(solution.outputs[0], solution.cone.x)


def test_an_empty_batch_is_solved(rng: Any) -> None:
    program, _ = _projection()
    solution = program.solve(
        [np.zeros((0, 3)), np.ones((1, 1))], backend=get_backend("clarabel"), settings=TIGHT
    )
    assert solution.outputs[0].shape == (0, 3)
    assert solution.value.shape == (0,)
    bars, _ = program.vjp(
        solution, [np.zeros((0, 3))], np.zeros(0), derivative=ReferenceDerivative()
    )
    assert [bar.shape for bar in bars] == [(0, 3), (1, 1)]
    del rng


@pytest.mark.parametrize("case", DPP_CASES, ids=str)
def test_the_native_engine_agrees_with_clarabel_and_the_reference(case: DppCase, rng: Any) -> None:
    program = compile_problem(*case.build())
    draws = [rows(case.sample(rng)) for _ in range(5)]
    values = [np.concatenate(parts) for parts in zip(*draws, strict=True)]
    native = program.solve(values, backend=get_backend(), settings=Settings())
    clarabel = program.solve(values, backend=get_backend("clarabel"), settings=TIGHT)
    assert native.cone.status.tolist() == [Status.SOLVED] * 5
    np.testing.assert_allclose(native.value, clarabel.value, atol=1e-6, rtol=1e-6)
    weights = [rng.normal(size=output.shape) for output in native.outputs]
    found, _ = program.vjp(native, weights, np.ones(5))
    expected, _ = program.vjp(clarabel, weights, np.ones(5), derivative=ReferenceDerivative())
    for bar, reference in zip(found, expected, strict=True):
        assert bar is not None
        assert reference is not None
        scale = 1.0 + np.abs(reference).max()
        np.testing.assert_allclose(bar, reference, atol=1e-3 * scale)
