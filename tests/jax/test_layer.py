# SPDX-License-Identifier: Apache-2.0
"""What `cvxlayer.jax.Layer` promises beside its derivatives."""

from __future__ import annotations

import copy
import pickle

import cvxpy as cp
import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

import cvxlayer  # noqa: E402
from cvxlayer.errors import (  # noqa: E402
    InaccurateWarning,
    MissingDependencyError,
    OptionError,
    ParameterValueError,
    ShapeError,
    SolverError,
    Status,
    UnsupportedProblemError,
)
from cvxlayer.jax import Layer, handlers  # noqa: E402
from cvxlayer.solve.clarabel import ClarabelBackend  # noqa: E402
from tests.catalog.problems import case_named  # noqa: E402
from tests.catalog.smooth_problems import SMOOTH, smooth_case  # noqa: E402
from tests.jax.differences import assert_close, layer_of, values_of  # noqa: E402

SINGLE = 2e-6
POINT = [[2.0, 0.0], [0.5, 0.5], [0.25, -3.0]]
LOWER = [[-1.0, -1], [1, 1], [-1, -1]]
UPPER = [[1.0, 1], [-1, -1], [1, 1]]


def between(**options):
    """Project `point` onto lower <= x <= upper: infeasible where lower > upper."""
    x = cp.Variable(2, name="x")
    point, lower, upper = (cp.Parameter(2, name=name) for name in ("point", "lower", "upper"))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [lower <= x, x <= upper])
    return Layer(problem, [point, lower, upper], [x], **options)


def one_infeasible_row():
    """Return three rows of values for `between`; the middle one is infeasible."""
    return [jnp.asarray(rows) for rows in (POINT, LOWER, UPPER)]


# --- values ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_single_precision_rounds_nothing_but_values_and_results(case, rng):
    with jax.enable_x64(False):
        values = [jnp.asarray(value) for value in case.sample(rng, 2)]
        found = layer_of(case).solve(*values)
    assert all(value.dtype in (jnp.float32, jnp.complex64) for value in found.variables)
    wide = [np.asarray(value).astype(np.result_type(value.dtype, np.float64)) for value in values]
    expected = cvxlayer.Layer(*case.build(), gp=case.gp).solve(*wide)
    assert_close(found.variables, expected.variables, SINGLE)
    assert_close(found.value, expected.value, SINGLE)


def test_rows_that_single_precision_would_make_contradict_each_other_are_solved():
    x, b = cp.Variable(2), cp.Parameter()
    rows = [0.1 * (x[0] + x[1]) == 0.03 * b, x[0] + x[1] == 0.3 * b]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), rows)
    with jax.enable_x64(False):
        (found,) = Layer(problem, [b], [x])(jnp.float32(1.0))
    np.testing.assert_allclose(found, [0.15, 0.15], rtol=SINGLE)


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_gradients_in_single_precision_are_those_in_double_precision(case, rng):
    layer, values = layer_of(case), case.sample(rng, 2)

    def loss(values):
        return sum(jnp.sum(jnp.abs(output) ** 2) for output in layer(*values))

    with jax.enable_x64(False):
        narrow = jax.grad(loss)([jnp.asarray(value) for value in values])
        assert all(value.dtype in (jnp.float32, jnp.complex64) for value in narrow)
    wide = jax.grad(loss)([jnp.asarray(value) for value in values])
    assert_close(narrow, wide, 20 * SINGLE)


def test_the_dispatching_layer_gives_differentiable_jax_arrays_for_jax_arrays(rng):
    layer = cvxlayer.Layer(*case_named("relu").build())
    value = jnp.asarray(rng.normal(size=5))
    gradient = jax.grad(lambda value: layer(value)[0].sum())(value)
    assert_close(gradient, (value > 0).astype(float), 1e-9)


def test_tensors_and_jax_arrays_do_not_mix():
    torch = pytest.importorskip("torch")
    layer = cvxlayer.Layer(*case_named("ball").build())
    with pytest.raises(ParameterValueError, match="torch tensor and a JAX array"):
        layer(torch.zeros(4), jnp.asarray(1.0))


# --- batches and dtypes ------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3), (0,), (2, 0)])
def test_outputs_have_the_batch_dimensions_of_the_values(batch, rng):
    case = smooth_case("complex")
    layer, values = layer_of(case), values_of(case, rng, *batch)
    assert layer(*values)[0].shape == (*batch, 2)
    assert layer.solve(*values).value.shape == batch
    assert jax.jit(layer)(*values)[0].shape == (*batch, 2)


def test_batch_dimensions_broadcast():
    points, lower = jnp.zeros((4, 1, 2)), -jnp.ones((3, 2))
    assert between()(points, lower, jnp.ones(2))[0].shape == (4, 3, 2)


@pytest.mark.parametrize("left", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("right", ["float16", "float32", "float64", "int32"])
def test_results_have_the_dtype_that_jax_promotes_the_values_to(left, right):
    point, bound = jnp.asarray([2.0, 0.0], left), jnp.asarray([1, 1], right)
    (output,) = between()(point, -bound, bound)
    assert output.dtype == jnp.promote_types(left, right)
    gradient = jax.grad(lambda point: between()(point, -bound, bound)[0].sum())(point)
    assert gradient.dtype == point.dtype


def test_integers_become_the_default_float():
    values = jnp.asarray([2, 0]), jnp.asarray([-1, -1]), jnp.asarray([1, 1])
    assert between()(*values)[0].dtype == jnp.float64
    with jax.enable_x64(False):
        assert between()(*values)[0].dtype == jnp.float32


def test_numbers_do_not_widen_the_dtype():
    layer = Layer(*case_named("ball").build())
    point = jnp.asarray([3.0, 0, 0, 0], jnp.float32)
    assert layer(point, 1.0)[0].dtype == jnp.float32
    assert_close(layer(point, 2)[0], 2 * point / 3, SINGLE)


# --- failures ----------------------------------------------------------------------------


def test_one_infeasible_row_raises_one_error_that_carries_the_good_rows():
    with pytest.raises(SolverError, match=r"1 instance.*1: INFEASIBLE.*on_failure") as caught:
        between()(*one_infeasible_row())
    assert caught.value.indices == [1]
    assert caught.value.statuses == [Status.INFEASIBLE]
    (x,) = caught.value.solution.variables
    assert_close(x[0], np.array([1.0, 0.0]), 1e-6)
    assert caught.value.solution.value[1] == jnp.inf


def test_indices_of_failed_rows_are_those_of_the_batch_dimensions():
    values = [value[None] for value in one_infeasible_row()]
    with pytest.raises(SolverError) as caught:
        between()(*values)
    assert caught.value.indices == [(0, 1)]


def test_a_failed_row_raises_also_where_a_gradient_is_taken():
    _, lower, upper = one_infeasible_row()
    with pytest.raises(SolverError, match="1: INFEASIBLE"):
        jax.grad(lambda point: between()(point, lower, upper)[0].sum())(jnp.asarray(POINT))


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, lambda f: jax.jit(jax.vmap(f))])
def test_a_failed_row_raises_with_the_same_sentence_in_compiled_code(transform):
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"1: INFEASIBLE.*on_failure"):
        transform(between())(*one_infeasible_row())[0].block_until_ready()


def test_a_failed_row_of_constants_raises_in_compiled_code():
    values, layer = one_infeasible_row(), between()
    with pytest.raises(jax.errors.JaxRuntimeError, match="1: INFEASIBLE"):
        jax.jit(lambda scale: scale * layer(*values)[0])(2.0).block_until_ready()


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.vmap])
def test_nan_rows_leave_other_rows_alone_and_get_exactly_zero_gradient(transform):
    layer = transform(between(on_failure="nan"))

    def loss(values):
        # The square sends NaN back through the failed row; none of it may come out.
        return jnp.sum(layer(*values)[0] ** 2)

    values = one_infeasible_row()
    (output,) = layer(*values)
    assert bool(jnp.isnan(output[1]).all())
    gradients = jax.grad(loss)(values)
    good = [value[jnp.array([0, 2])] for value in values]
    alone = jax.grad(loss)(good)
    for gradient, expected in zip(gradients, alone, strict=True):
        assert not gradient[1].any()
        assert_close(gradient[jnp.array([0, 2])], expected, 1e-9)


def test_the_value_of_a_failed_row_is_infinite_and_has_zero_gradient():
    values, layer = one_infeasible_row(), between(on_failure="nan")
    assert layer.solve(*values).value[1] == jnp.inf
    for gradient in jax.grad(lambda v: jnp.sum(layer.solve(*v).value[::2] ** 2))(values):
        assert bool(jnp.isfinite(gradient).all())
        assert not gradient[1].any()


def test_rows_that_end_early_are_returned_with_a_warning():
    layer = between(solver_args={"max_iters": 4, "polish": False, "fallback": False})
    values = [value[0] for value in one_infeasible_row()]
    with pytest.warns(InaccurateWarning, match="1 of 1 rows"):
        solution = layer.solve(*values)
    assert solution.status is Status.INACCURATE
    with pytest.warns(InaccurateWarning, match="1 of 1 rows"):
        jax.jit(layer)(*values)[0].block_until_ready()


# --- input -------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_a_wrong_shape_is_refused(transform):
    with pytest.raises(
        ShapeError, match=r"`lower` has shape \(3,\); the parameter has shape \(2,\)"
    ):
        transform(between())(jnp.zeros(2), jnp.zeros(3), jnp.ones(2))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_a_complex_value_of_a_real_parameter_is_refused(transform):
    with pytest.raises(ParameterValueError, match="`point` has the dtype complex128"):
        transform(between())(jnp.zeros(2, complex), jnp.zeros(2), jnp.ones(2))


def test_a_value_that_is_not_finite_is_refused_where_it_is_concrete():
    bad = jnp.asarray(POINT).at[1, 0].set(jnp.nan)
    lower, upper = -jnp.ones(2), jnp.ones(2)
    with pytest.raises(ParameterValueError, match="`point` at batch index 1 contains NaN"):
        between()(bad, lower, upper)
    with pytest.raises(ParameterValueError, match="`point` at batch index 1 contains NaN"):
        jax.grad(lambda point: between()(point, lower, upper)[0].sum())(bad)


def test_a_value_outside_the_declared_domain_is_refused():
    layer = Layer(*case_named("ball").build())
    with pytest.raises(ParameterValueError, match=r"`radius` at batch index 2.*`nonneg=True`"):
        layer(jnp.zeros(4), jnp.asarray([1.0, 0.0, -1.0]))


def test_an_infinite_bound_bounds_nothing_and_has_zero_gradient():
    layer = between()
    point, lower = jnp.asarray([2.0, -3.0]), jnp.asarray([-1.0, -1.0])
    upper = jnp.asarray([jnp.inf, 1.0])
    (output,) = jax.jit(layer)(point, lower, upper)
    assert_close(output, np.array([2.0, -1.0]), 1e-7)
    for argument in range(3):
        gradient = jax.grad(lambda *v: layer(*v)[0].sum(), argnums=argument)(point, lower, upper)
        expected = [np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.zeros(2)][argument]
        assert_close(gradient, expected, 1e-7)


def test_an_unknown_kind_of_value_is_refused():
    with pytest.raises(ParameterValueError, match=r"`point` is a list.*jax\.numpy\.asarray"):
        between()([0.0, 0.0], jnp.zeros(2), jnp.ones(2))


# --- the whole answer --------------------------------------------------------------------


def test_status_and_statistics_are_arrays_in_compiled_code():
    values, layer = one_infeasible_row(), between(on_failure="nan")

    @jax.jit
    def summarize(values):
        solution = layer.solve(*values)
        solved = solution.status == Status.SOLVED
        worst = jnp.max(jnp.where(solved, solution.residuals.primal, 0.0))
        return solved, worst, solution.iterations.sum(), solution.solve_seconds

    solved, worst, iterations, seconds = summarize(values)
    np.testing.assert_array_equal(solved, [True, False, True])
    assert worst < 1e-6
    assert iterations > 0
    assert seconds > 0


def test_a_solution_may_leave_compiled_code_with_its_duals(rng):
    case = case_named("halfspace_and_dual")
    problem, parameters, variables = case.build()
    layer, values = Layer(problem, parameters, variables), case.sample_batch(rng, 3)
    solution = jax.jit(layer.solve)(*values)
    assert_close(solution.dual(problem.constraints[0]), solution.variables[1], 1e-12)


def test_a_warm_start_saves_iterations_and_changes_nothing_else(rng):
    case = smooth_case("norms")
    layer, values = layer_of(case), values_of(case, rng, 4)
    cold = layer.solve(*values)
    near = [value + 1e-6 for value in values]
    warm = jax.jit(lambda values, start: layer.solve(*values, warm_start=start))(near, cold)
    assert int(warm.iterations.sum()) < int(cold.iterations.sum())
    assert_close(warm.variables, layer(*near), 1e-7)


def test_a_warm_start_of_another_problem_is_refused(rng):
    other = smooth_case("power")
    start = layer_of(other).solve(*values_of(other, rng))
    case = smooth_case("norms")
    with pytest.raises(OptionError, match="another problem"):
        layer_of(case)(*values_of(case, rng), warm_start=start)


@pytest.mark.parametrize("solver", ["clarabel", ClarabelBackend()], ids=["named", "own"])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_other_solvers_are_called_from_compiled_code(solver, transform, rng):
    case = smooth_case("second_order")
    values = values_of(case, rng, 2)
    found = transform(Layer(*case.build(), solver=solver))(*values)
    assert_close(found, layer_of(case)(*values), 1e-5)


def test_options_of_a_call_override_those_of_the_layer():
    values, layer = [value[0] for value in one_infeasible_row()], between(on_failure="nan")
    options = {"max_iters": 1, "fallback": False, "polish": False}
    stopped = jax.jit(lambda *values: layer.solve(*values, solver_args=options).status)
    assert int(stopped(*values)) == Status.MAX_ITERATIONS
    assert int(jax.jit(lambda *values: layer.solve(*values).status)(*values)) == Status.SOLVED


# --- the object --------------------------------------------------------------------------


def test_a_layer_survives_pickle_and_deepcopy(rng):
    case = smooth_case("maximize")
    layer, values = layer_of(case), values_of(case, rng)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert_close(other(*values), layer(*values), 0)


def test_copies_share_compiled_code(rng):
    case = smooth_case("maximize")
    layer, values = layer_of(case), values_of(case, rng)
    calls = []

    @jax.jit
    def function(layer, values):
        calls.append(layer)
        return layer(*values)

    function(layer, values)
    function(copy.deepcopy(layer), values)
    assert len(calls) == 1


def test_the_same_problem_built_twice_is_the_same_program_in_the_core():
    from cvxlayer.jax.plan import plan_of

    first, second = (plan_of(between()._evaluator).registered for _ in range(2))
    assert first == second
    other = plan_of(Layer(*case_named("ball").build())._evaluator).registered
    assert first != other


def test_a_core_without_handlers_says_how_to_build_them(monkeypatch):
    monkeypatch.setattr(handlers, "xla_handlers", dict)
    with pytest.raises(MissingDependencyError, match=r"--no-build-isolation"):
        handlers.register_handlers.__wrapped__()


def test_another_platform_is_refused_with_what_to_do():
    layer = between()
    values = [value[0] for value in one_infeasible_row()]
    with pytest.raises(UnsupportedProblemError, match=r"platform tpu; it runs on the CPU"):
        jax.jit(layer).trace(*values).lower(lowering_platforms=("tpu",))
