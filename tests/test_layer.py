# SPDX-License-Identifier: Apache-2.0
"""`cvxlayer.Layer` with NumPy values, and what both layers refuse."""

from __future__ import annotations

import copy
import os
import pickle
import threading

import cvxpy as cp
import numpy as np
import pytest

import cvxlayer
from cvxlayer import Layer, Status
from cvxlayer.errors import (
    NotDppError,
    OptionError,
    ParameterValueError,
    ShapeError,
    SolverError,
)
from cvxlayer.program.solution import SolvedBy
from tests.catalog.problems import PROBLEMS, WITH_CLOSED_FORM, case_named

SOLVERS = ("native", "clarabel")
TIGHT = {"eps": 1e-10}


def between(**options: object) -> Layer:
    """Project `point` onto lower <= x <= upper: infeasible where lower > upper."""
    x = cp.Variable(2, name="x")
    point, lower, upper = (cp.Parameter(2, name=name) for name in ("point", "lower", "upper"))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [lower <= x, x <= upper])
    return Layer(problem, [point, lower, upper], [x], **options)


# --- answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("case", WITH_CLOSED_FORM, ids=str)
def test_answers_equal_their_closed_form(case, solver, rng):
    batch = case.sample_batch(rng, 3)
    outputs = Layer(*case.build(), solver=solver, solver_args=TIGHT)(*batch)
    for row in range(3):
        expected = case.closed_form(*[value[row] for value in batch])
        for output, wanted in zip(outputs, expected, strict=True):
            # The square root of the solver's tolerance where multipliers vanish.
            np.testing.assert_allclose(output[row], wanted, atol=3e-5, rtol=3e-5)


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_solutions_values_and_duals_equal_those_of_cvxpy(case, rng):
    values = case.sample(rng)
    problem, parameters, variables = case.build()
    solution = Layer(problem, parameters, variables, solver_args=TIGHT).solve(*values)
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = value
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    assert solution.status is Status.SOLVED
    np.testing.assert_allclose(solution.value, problem.value, atol=1e-6, rtol=1e-6)
    for output, variable in zip(solution.variables, variables, strict=True):
        np.testing.assert_allclose(output, variable.value, atol=1e-4, rtol=1e-4)
    for constraint in problem.constraints:
        np.testing.assert_allclose(
            solution.dual(constraint), constraint.dual_value, atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3), (0,), (2, 0, 1)])
def test_outputs_and_statistics_have_the_batch_shape(batch, rng):
    case = case_named("stochastic_rows")
    solution = Layer(*case.build()).solve(rng.normal(size=(*batch, 2, 3)))
    assert solution.variables[0].shape == (*batch, 2, 3)
    assert solution.value.shape == batch
    assert solution.iterations.shape == batch
    assert (np.asarray(solution.solved_by) == SolvedBy.FIRST_PASS).all()
    assert solution.residuals.primal.shape == batch
    assert solution.residuals.dual.shape == batch
    assert solution.residuals.gap.shape == batch
    assert solution.solve_seconds >= 0
    if batch:
        assert solution.status.shape == batch
        assert (solution.status == Status.SOLVED).all()
    else:
        assert solution.status is Status.SOLVED


def test_residuals_are_small_and_iterations_positive(rng):
    case = case_named("simplex")
    solution = Layer(*case.build()).solve(rng.normal(size=(5, 6)))
    for residual in (solution.residuals.primal, solution.residuals.dual, solution.residuals.gap):
        assert (residual < 1e-6).all()
    assert (solution.iterations > 0).all()


def test_a_problem_without_parameters_is_a_layer_without_inputs():
    x = cp.Variable(2)
    layer = Layer(cp.Problem(cp.Minimize(cp.sum_squares(x - [1.0, 2.0]))), [], [x])
    np.testing.assert_allclose(layer()[0], [1.0, 2.0], atol=1e-7)
    assert layer()[0].dtype == np.float64


def test_values_may_be_given_by_name():
    expected = between()(np.array([2.0, 0.5]), np.zeros(2), np.ones(2))[0]
    by_name = between()(upper=np.ones(2), point=np.array([2.0, 0.5]), lower=np.zeros(2))[0]
    mixed = between()(np.array([2.0, 0.5]), upper=np.ones(2), lower=np.zeros(2))[0]
    np.testing.assert_array_equal(by_name, expected)
    np.testing.assert_array_equal(mixed, expected)


def test_solver_args_of_a_call_override_those_of_the_layer(rng):
    case = case_named("simplex")
    values = rng.normal(size=(3, 6))
    layer = Layer(*case.build(), solver_args={"eps": 1e-4})
    rough = layer.solve(values).iterations.sum()
    assert layer.solve(values, solver_args={"eps": 1e-10}).iterations.sum() > rough
    assert layer.solve(values).iterations.sum() == rough


@pytest.mark.parametrize("solver", SOLVERS)
def test_verbose_logs_one_line_per_call(solver, caplog):
    values = np.array([2.0, 0.5]), np.array([[0.0, 0.0], [3.0, 0.0]]), np.ones(2)
    with caplog.at_level("INFO", logger="cvxlayer"):
        between(solver=solver, on_failure="nan")(*values)
        assert caplog.messages == []
        between(solver=solver, on_failure="nan", verbose=True)(*values)
    (message,) = caplog.messages
    assert message.startswith(f"{solver}: 2 rows (1 SOLVED, 1 INFEASIBLE), at most ")


def test_threads_of_the_solver_do_not_change_the_answer(rng):
    case = case_named("box")
    values = case.sample_batch(rng, 40)
    layer = Layer(*case.build())
    one = layer(*values, solver_args={"threads": 1})[0]
    np.testing.assert_array_equal(one, layer(*values, solver_args={"threads": 2})[0])


def test_the_same_call_twice_gives_the_same_bits(rng):
    case = case_named("portfolio")
    values = case.sample_batch(rng, 9)
    layer = Layer(*case.build())
    np.testing.assert_array_equal(layer(*values)[0], layer(*values)[0])


def test_a_compiled_program_makes_the_same_layer(rng):
    case = case_named("ridge")
    problem, parameters, variables = case.build()
    program = cvxlayer.compile(problem, parameters, variables)
    values = case.sample(rng)
    expected = Layer(problem, parameters, variables)(*values)[0]
    np.testing.assert_array_equal(Layer(program)(*values)[0], expected)


# --- dtypes ------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("right", [np.float16, np.float32, np.int8, np.int64, np.bool_])
def test_results_have_the_dtype_the_inputs_promote_to(left, right):
    point, upper = np.array([2.0, 0.25]).astype(left), np.ones(2).astype(right)
    output = between()(point, np.zeros(2, dtype=left), upper)[0]
    assert output.dtype == np.result_type(left, right)
    np.testing.assert_allclose(output, [1.0, 0.25], atol=1e-2)


def test_integers_and_lists_become_float64():
    assert between()(np.array([2, 0]), [0, 0], [1, 1])[0].dtype == np.float64
    np.testing.assert_allclose(between()([2, -1], [0, 0], [1, 1])[0], [1, 0], atol=1e-6)


def test_python_numbers_do_not_widen_the_dtype():
    layer = Layer(*case_named("ball").build())
    assert layer(np.array([3.0, 0, 0, 0], dtype=np.float32), 1.0)[0].dtype == np.float32


def test_values_are_neither_changed_nor_shared_with_results(rng):
    case = case_named("hyperplane_by_norm")
    value = rng.normal(size=(3, 4))
    kept = value.copy()
    layer = Layer(*case.build())
    solution = layer.solve(value)
    solution.variables[0][:] = np.nan
    np.testing.assert_array_equal(value, kept)
    assert np.isfinite(layer(value)[0]).all()
    assert np.isfinite(solution.value).all()


# --- failures ----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_failed_rows_are_named_and_good_rows_kept(solver):
    lower = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
    point, upper = np.array([2.0, 0.5]), np.ones(2)
    with pytest.raises(SolverError, match=r"2 instance.*1: INFEASIBLE, 3: INFEASIBLE") as caught:
        between(solver=solver)(point, lower, upper)
    assert caught.value.indices == [1, 3]
    assert caught.value.statuses == [Status.INFEASIBLE] * 2
    np.testing.assert_allclose(caught.value.solution.variables[0][2], [1.0, 0.5], atol=1e-5)
    solution = between(solver=solver, on_failure="nan").solve(point, lower, upper)
    assert np.isnan(solution.variables[0][[1, 3]]).all()
    np.testing.assert_allclose(solution.variables[0][[0, 2]], [[1.0, 0.5]] * 2, atol=1e-5)
    assert list(solution.value[[1, 3]]) == [np.inf, np.inf]
    assert list(solution.status) == [0, Status.INFEASIBLE, 0, Status.INFEASIBLE]


def test_indices_of_failures_follow_the_batch_shape():
    lower = np.zeros((2, 2, 2))
    lower[1, 0] = 5.0
    with pytest.raises(SolverError) as caught:
        between()(np.zeros(2), lower, np.ones(2))
    assert caught.value.indices == [(1, 0)]
    with pytest.raises(SolverError) as caught:
        between()(np.zeros(2), lower[1, 0], np.ones(2))
    assert caught.value.indices == [()]


def test_the_value_of_an_infeasible_maximization_is_minus_infinity():
    x, bound = cp.Variable(), cp.Parameter()
    problem = cp.Problem(cp.Maximize(-cp.square(x)), [x >= bound, x <= -1])
    layer = Layer(problem, [bound], [x], on_failure="nan")
    assert layer.solve(0.0).value == -np.inf
    np.testing.assert_allclose(layer.solve(-3.0).value, -1.0, atol=1e-6)


# --- options and problems ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solvr": "native"}, r"`Layer` has no option `solvr`. Did you mean `solver`\?"),
        ({"solver": "clarable"}, r"Did you mean `clarabel`\?"),
        ({"solver_args": {"ep": 1e-3}}, r"no option `ep` for the solver `native`. Did you mean"),
        ({"solver_args": {"eps": -1.0}}, r"`eps` is -1.0; it must be a positive number"),
        ({"on_failure": "Nan"}, r"`on_failure` is 'Nan'; it must be 'raise' or 'nan'"),
        ({"derivative": "lpdg"}, r"`derivative` is 'lpdg'; .* Did you mean `lpgd`"),
    ],
)
def test_unknown_options_are_refused_with_the_nearest_valid_one(options, message):
    with pytest.raises(OptionError, match=message):
        between(**options)


def test_unknown_options_of_a_call_are_refused():
    values = np.zeros(2), np.zeros(2), np.ones(2)
    with pytest.raises(OptionError, match=r"Did you mean `max_iters`\?"):
        between()(*values, solver_args={"max_iter": 3})


def test_a_problem_is_judged_by_the_rules_asked_for():
    with pytest.raises(NotDppError, match="In a geometric program all are"):
        between(gp=True)


def test_a_problem_needs_its_parameters_and_variables():
    problem, parameters, variables = case_named("relu").build()
    with pytest.raises(ParameterValueError, match="without `parameters`"):
        Layer(problem)
    with pytest.raises(ParameterValueError, match="without `variables`"):
        Layer(problem, parameters)
    program = cvxlayer.compile(problem, parameters, variables)
    with pytest.raises(ParameterValueError, match="the program has its own"):
        Layer(program, parameters, variables)


def test_a_problem_that_is_not_dpp_is_refused():
    x, a, b = cp.Variable(), cp.Parameter(name="a"), cp.Parameter(name="b")
    problem = cp.Problem(cp.Minimize(cp.square(x)), [a * b * x >= 1])
    with pytest.raises(NotDppError):
        Layer(problem, [a, b], [x])


def test_a_parameter_the_problem_does_not_have_is_refused():
    problem, parameters, variables = case_named("relu").build()
    with pytest.raises(ValueError, match="stranger"):
        Layer(problem, [*parameters, cp.Parameter(name="stranger")], variables)


def test_the_dual_of_a_constraint_of_another_problem_is_refused():
    solution = between().solve(np.zeros(2), np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match="constraint"):
        solution.dual(cp.Variable() >= 0)


# --- values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.zeros(3), ShapeError, r"`point` has shape \(3,\)"),
        (np.array([0.0, np.nan]), ParameterValueError, r"`point` contains NaN"),
        (np.array([[0, 0], [0, np.inf]]), ParameterValueError, r"`point` at batch index 1"),
        (np.zeros(2, dtype=complex), ParameterValueError, r"`point` has the dtype complex128"),
        (np.array(["a", "b"]), ParameterValueError, r"`point` has the dtype <U1"),
        (np.zeros(2, dtype=np.longdouble), ParameterValueError, r"dtype (float128|longdouble)"),
        ([[1.0], [1.0, 2.0]], ParameterValueError, r"`point` is not an array of numbers"),
        (np.ma.masked_array([0.0, 1.0], [True, False]), ParameterValueError, "masked array"),
        (None, ParameterValueError, r"`point` has the dtype object"),
    ],
    ids=str,
)
def test_bad_values_are_refused_before_anything_is_solved(value, error, message):
    with pytest.raises(error, match=message):
        between()(value, np.zeros(2), np.ones(2))


def test_values_of_the_wrong_count_are_refused():
    with pytest.raises(ParameterValueError, match="called with 4 values; it has 3"):
        between()(*[np.zeros(2)] * 4)
    with pytest.raises(ParameterValueError, match="No value was given for `upper`"):
        between()(np.zeros(2), np.zeros(2))


def test_a_value_outside_the_declared_domain_is_refused():
    layer = Layer(*case_named("ball").build())
    with pytest.raises(ParameterValueError, match=r"`radius` at batch index 2.*`nonneg=True`"):
        layer(np.zeros(4), np.array([1.0, 0.0, -1.0]))


# --- the object --------------------------------------------------------------------------


def test_a_layer_survives_pickle_and_deepcopy(rng):
    case = case_named("halfspace_and_dual")
    problem, parameters, variables = case.build()
    layer, values = Layer(problem, parameters, variables), case.sample(rng)
    expected = layer(*values)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        for left, right in zip(other(*values), expected, strict=True):
            np.testing.assert_array_equal(left, right)
        # Constraints are still known to the copy.
        dual = other.solve(*values).dual(problem.constraints[0])
        np.testing.assert_array_equal(dual, expected[1])


def test_a_solution_survives_pickle(rng):
    case = case_named("simplex")
    problem, parameters, variables = case.build()
    solution = Layer(problem, parameters, variables).solve(*case.sample(rng))
    restored = pickle.loads(pickle.dumps(solution))
    np.testing.assert_array_equal(restored.variables[0], solution.variables[0])
    constraint = problem.constraints[-1]
    np.testing.assert_array_equal(restored.dual(constraint), solution.dual(constraint))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_layer_works_in_a_forked_process(rng):
    import multiprocessing

    case = case_named("box")
    layer, values = Layer(*case.build()), case.sample_batch(rng, 20)
    expected = layer(*values)[0]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply_async(layer, values).get(timeout=60)
    np.testing.assert_array_equal(found[0], expected)


def test_threads_get_the_answers_of_serial_calls(rng):
    case = case_named("box")
    layer = Layer(*case.build())
    batches = [case.sample_batch(rng, 10) for _ in range(8)]
    expected = [layer(*batch)[0] for batch in batches]
    found: dict[int, np.ndarray] = {}

    def work(index: int) -> None:
        for _ in range(5):
            found[index] = layer(*batches[index])[0]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, wanted in enumerate(expected):
        np.testing.assert_array_equal(found[index], wanted)


def test_the_representation_names_inputs_outputs_and_solver():
    assert repr(between()) == "Layer((point[2], lower[2], upper[2]) -> (x[2]), solver='native')"
