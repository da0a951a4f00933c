# SPDX-License-Identifier: Apache-2.0
"""The comparison with finite differences passes what is right and catches what is wrong."""

from __future__ import annotations

import dataclasses

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer.checks.gradient import check_gradient, solves_per_instance
from cvxlayer.checks.report import GradientVerdict
from cvxlayer.checks.sampling import Values
from cvxlayer.compiler import CompiledProgram, compile_problem, default_derivative
from cvxlayer.solve.backend import AbstractBackend
from cvxlayer.solve.registry import get_backend
from tests.catalog.problems import PROBLEMS, case_named

# What agreement amounts to in practice: the largest error that `agrees` may hide.
WORST_AGREEMENT = 1e-2


class WrongDerivative:
    """The true derivative with the cotangent of one block changed."""

    def __init__(self, block: str, factor: float):
        self.block, self.factor = block, factor

    def setup(self, structure):
        return default_derivative().setup(structure)

    def vjp(self, *args, **kwargs):
        cotangent = default_derivative().vjp(*args, **kwargs)
        values = getattr(cotangent, self.block)
        return dataclasses.replace(cotangent, **{self.block: self.factor * values})


class CountingBackend(AbstractBackend):
    """The native backend, counting the instances it solves."""

    name = "counting"

    def __init__(self):
        self.inner, self.solved = get_backend(None), 0

    def setup(self, structure):
        return self.inner.setup(structure)

    def solve(self, prepared, batch, settings):
        self.solved += batch.size
        return self.inner.solve(prepared, batch, settings)


def given(program: CompiledProgram, arrays: list[np.ndarray], batch: int) -> Values:
    rows = tuple(
        np.ascontiguousarray(np.asarray(array, dtype=np.float64).reshape(-1, spec.size))
        for array, spec in zip(arrays, program.parameters, strict=True)
    )
    return Values(rows, ("test",) * len(rows), batch, is_given=True)


def compiled_case(name: str, rng: np.random.Generator) -> tuple[CompiledProgram, Values]:
    case = case_named(name)
    problem, parameters, _ = case.build()
    program = compile_problem(problem, parameters, problem.variables())
    return program, given(program, case.sample_batch(rng, 6), 6)


def compare(program, values, derivative=None, **options):
    return check_gradient(
        program, values, get_backend(None), derivative or default_derivative(), **options
    )


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_the_derivative_passes_on_every_problem(case, rng):
    report = compare(*compiled_case(case.name, rng))
    assert report.verdict is GradientVerdict.AGREES
    assert report.error < WORST_AGREEMENT
    assert report.num_directions >= 3
    assert set(report.error_by_parameter) == {spec.name for spec in case_specs(case)}


def case_specs(case):
    problem, parameters, _ = case.build()
    return compile_problem(problem, parameters, problem.variables()).parameters


@pytest.mark.parametrize(
    ("name", "block", "parameter"),
    [
        ("simplex", "q", "point"),
        ("box", "b", "lower"),
        ("affine_set", "A", "A"),
        ("equality_qp_and_dual", "P", "P"),
        ("portfolio", "A", "factor"),
        ("total_variation", "q", "weight"),
    ],
)
@pytest.mark.parametrize("factor", [-1.0, 0.5, 1.05], ids=str)
def test_a_wrong_derivative_is_caught(name, block, parameter, factor, rng):
    program, values = compiled_case(name, rng)
    report = compare(program, values, WrongDerivative(block, factor))
    assert report.verdict is GradientVerdict.DISAGREES
    assert not report.is_good
    assert report.error_by_parameter[parameter] > 0.02


def test_an_error_in_one_parameter_is_not_blamed_on_others(rng):
    program, values = compiled_case("affine_set", rng)
    errors = compare(program, values, WrongDerivative("A", 2.0)).error_by_parameter
    assert errors["A"] > 0.3
    assert errors["point"] < 1e-5
    assert errors["b"] < 1e-5


def test_parameters_of_the_same_name_are_both_compared():
    x = cp.Variable(2, name="x")
    first, second = cp.Parameter(2, name="p"), cp.Parameter(2, name="p")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - first)), [x >= second])
    program = compile_problem(problem, [first, second], [x])
    values = given(program, [np.array([1.0, -2.0]), np.array([3.0, -4.0])], 1)
    report = compare(program, values, WrongDerivative("q", 2.0))
    assert set(report.error_by_parameter) == {"p (1)", "p (2)"}
    assert report.error_by_parameter["p (1)"] > 0.3
    assert report.verdict is GradientVerdict.DISAGREES


def test_a_solution_that_is_not_unique_has_no_gradient():
    x, total = cp.Variable(3, name="x"), cp.Parameter(name="total", pos=True)
    problem = cp.Problem(cp.Minimize(cp.sum(x)), [x >= 0, cp.sum(x) == total])
    program = compile_problem(problem, [total], [x])
    report = compare(program, given(program, [np.array([1.0, 2.0])], 2))
    assert report.verdict is GradientVerdict.NOT_UNIQUE
    assert report.num_not_unique == report.num_instances == 2


def test_a_kink_exactly_at_the_values_is_noticed():
    x, point = cp.Variable(name="x"), cp.Parameter(name="point")
    problem = cp.Problem(cp.Minimize(cp.square(x - point)), [x >= 0])
    program = compile_problem(problem, [point], [x])
    report = compare(program, given(program, [np.zeros(1)], 1))
    assert report.verdict is not GradientVerdict.AGREES
    assert report.verdict is not GradientVerdict.DISAGREES


def test_instances_at_a_kink_do_not_spoil_the_others():
    x, point = cp.Variable(name="x"), cp.Parameter(name="point")
    problem = cp.Problem(cp.Minimize(cp.square(x - point)), [x >= 0])
    program = compile_problem(problem, [point], [x])
    report = compare(program, given(program, [np.array([0.0, 1.0, -1.0])], 3))
    assert report.verdict is GradientVerdict.AGREES
    assert report.num_directions == 2


def test_rows_without_a_solution_are_left_out():
    x, lower = cp.Variable(name="x"), cp.Parameter(name="lower")
    problem = cp.Problem(cp.Minimize(cp.square(x - 3 * lower)), [x >= lower, x <= 1])
    program = compile_problem(problem, [lower], [x])
    report = compare(program, given(program, [np.array([2.0, -1.0, 3.0, -2.0])], 4))
    assert report.num_instances == 2
    assert report.verdict is GradientVerdict.AGREES


def test_without_a_solution_or_a_parameter_there_is_nothing_to_compare():
    x, lower = cp.Variable(name="x"), cp.Parameter(name="lower")
    problem = cp.Problem(cp.Minimize(cp.square(x)), [x >= lower, x <= 1])
    program = compile_problem(problem, [lower], [x])
    assert compare(program, given(program, [np.array([2.0])], 1)) is None
    lower.value = 0.0
    assert compare(compile_problem(problem, [], [x]), Values((), (), 1, True)) is None


def test_infinite_bounds_stay_infinite():
    x, point = cp.Variable(3, name="x"), cp.Parameter(3, name="point")
    upper = cp.Parameter(3, name="upper")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [x <= upper])
    program = compile_problem(problem, [point, upper], [x])
    values = given(program, [np.array([1.0, 2.0, -1.0]), np.array([0.5, np.inf, 0.3])], 1)
    report = compare(program, values)
    assert report.verdict is GradientVerdict.AGREES
    assert report.num_directions == 2


def test_the_number_of_solves_is_as_announced(rng):
    program, values = compiled_case("box", rng)
    backend = CountingBackend()
    check_gradient(program, values, backend, default_derivative(), num_instances=4)
    # Beside: one to find instances with a solution; at these, a usual and an exact one.
    expected = 4 * solves_per_instance(len(program.parameters)) + values.batch + 2 * 4
    assert backend.solved == expected
