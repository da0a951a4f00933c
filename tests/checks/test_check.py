# SPDX-License-Identifier: Apache-2.0
"""The whole report of a problem."""

from __future__ import annotations

import json

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer.checks import Report, check_problem
from cvxlayer.checks.report import GradientVerdict
from cvxlayer.errors import OptionError
from tests.catalog.problems import PROBLEMS, case_named


def denoiser() -> cp.Problem:
    x, signal = cp.Variable(6, name="x"), cp.Parameter(6, name="signal")
    weight = cp.Parameter(nonneg=True, name="weight")
    objective = cp.sum_squares(x - signal) + weight * cp.norm1(cp.diff(x))
    return cp.Problem(cp.Minimize(objective), [x >= 0])


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_every_problem_of_the_catalog_is_good_at_its_own_values(case, rng, tmp_path):
    problem, parameters, _ = case.build()
    arrays = dict(zip([p.name() for p in parameters], case.sample_batch(rng, 8), strict=True))
    path = tmp_path / "values.npz"
    np.savez(path, **arrays)
    report = check_problem(problem, values=path)
    assert report.is_good
    assert report.solve is not None
    assert report.solve.statuses == {"SOLVED": 8}
    assert report.solve.is_given
    assert max(report.solve.primal_residual, report.solve.dual_residual) < 1e-6


def test_the_report_tells_which_data_depend_on_which_parameters():
    problem, _, _ = case_named("ridge").build()
    report = check_problem(problem, samples=4)
    assert report.program is not None
    assert "b" in report.program.depends["b"] + report.program.depends["q"]
    assert "A" in report.program.depends["A"]
    assert "weight" in report.program.depends["P"] + report.program.depends["q"]
    entered = {parameter.name: set(parameter.enters) for parameter in report.parameters}
    for letter, names in report.program.depends.items():
        for name, blocks in entered.items():
            assert (letter in blocks) == (name in names)


def test_parameters_in_the_constant_of_the_objective_are_named():
    report = check_problem(denoiser(), samples=4)
    enters = {parameter.name: parameter.enters for parameter in report.parameters}
    assert enters == {"signal": ("q", "constant"), "weight": ("q",)}
    assert [parameter.domain for parameter in report.parameters] == ["", "nonneg"]


def test_sizes_are_those_of_the_program_and_the_reduction_shows():
    report = check_problem(denoiser(), samples=4)
    program = report.program
    assert program is not None
    assert program.zero + program.nonnegative + sum(program.second_order) == program.size.num_rows
    assert program.size.num_variables < program.cvxpy_size.num_variables
    assert program.size.num_rows < program.cvxpy_size.num_rows
    assert program.variables == {"x": (6,)}


def test_the_first_form_is_the_one_cvxpy_hands_over():
    problem = denoiser()
    for parameter in problem.parameters():
        parameter.value = np.ones(parameter.shape)
    handed_over = problem.get_problem_data(cp.CLARABEL)[0]
    size = check_problem(problem, samples=2).program.cvxpy_size
    assert (size.num_rows, size.num_variables) == handed_over["A"].shape
    assert size.nonzeros_A == handed_over["A"].nnz


@pytest.mark.parametrize(
    ("constraint", "is_dcp", "message"),
    [
        (lambda x, a, b: cp.norm(x) >= a, False, "constraint 0|Constraint 0"),
        (lambda x, a, b: a * b * x[0] <= 1, True, "`a` and `b`"),
        (lambda x, a, b: cp.Variable(integer=True) + x[0] <= b, True, "integer"),
    ],
)
def test_a_problem_outside_the_rules_gets_only_its_verdict(constraint, is_dcp, message):
    x = cp.Variable(2, name="x")
    a, b = cp.Parameter(name="a", nonneg=True), cp.Parameter(name="b", nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [constraint(x, a, b)])
    report = check_problem(problem)
    assert not report.is_good
    assert report.verdict.is_dcp is is_dcp
    assert not report.verdict.is_supported
    assert any(words in (report.verdict.message or "") for words in message.split("|"))
    parts = (report.program, report.solve, report.derivative, report.gradient, report.timing)
    assert parts == (None,) * 5


def test_a_geometric_program_is_judged_by_its_own_rules():
    x, a = cp.Variable(pos=True, name="x"), cp.Parameter(pos=True, name="a")
    report = check_problem(cp.Problem(cp.Minimize(a - x)), gp=True)
    assert report.verdict.is_dgp is False
    assert not report.is_good
    assert "DGP has no differences" in (report.verdict.message or "")


@pytest.mark.parametrize("attribute", ["complex", "hermitian", "imag"])
def test_complex_parameters_are_drawn_in_their_domain_and_differentiated(attribute):
    H = cp.Parameter((2, 2), name="H", **{attribute: True})
    X = cp.Variable((2, 2), complex=True, name="X")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - H)), [cp.real(X[0, 1]) <= 0.1])
    report = check_problem(problem, samples=4)
    assert report.is_good
    assert report.gradient.verdict is GradientVerdict.AGREES
    assert report.solve.statuses == {"SOLVED": 4}


def test_a_geometric_program_is_solved_and_differentiated():
    x, y = cp.Variable(pos=True, name="x"), cp.Variable(pos=True, name="y")
    a, power = cp.Parameter(pos=True, name="a"), cp.Parameter(name="power", bounds=[0.5, 2.0])
    problem = cp.Problem(cp.Minimize(a * x**power + 1 / (x * y) + y), [x * y <= 3 * a])
    report = check_problem(problem, samples=4, gp=True)
    assert report.verdict.is_dgp is True
    assert report.is_good
    assert report.gradient.verdict is GradientVerdict.AGREES


def test_infeasible_samples_are_explained():
    x, a = cp.Variable(name="x"), cp.Parameter(name="a", nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.square(x)), [x >= 1 + a, x <= -a])
    report = check_problem(problem, samples=5)
    assert not report.is_good
    assert report.solve is not None
    assert report.solve.statuses == {"INFEASIBLE": 5}
    assert "all are INFEASIBLE" in (report.solve.advice or "")
    assert "--values" in (report.solve.advice or "")
    assert report.gradient is None


def test_some_infeasible_samples_are_forgiven_but_given_values_are_not(tmp_path):
    x, a = cp.Variable(name="x"), cp.Parameter(name="a")
    problem = cp.Problem(cp.Minimize(cp.square(x - 3)), [x >= a, x <= 0])
    sampled = check_problem(problem, samples=32)
    assert sampled.is_good
    assert sampled.solve is not None
    assert 0 < sampled.solve.num_solved < 32
    path = tmp_path / "values.npz"
    np.savez(path, a=np.array([-1.0, 1.0]))
    given = check_problem(problem, values=path)
    assert not given.is_good
    assert given.solve is not None
    assert "at index 1" in (given.solve.advice or "")


def test_values_set_in_the_file_are_sampled_near():
    x, b = cp.Variable(2, name="x"), cp.Parameter(2, name="b")
    b.value = np.array([100.0, 200.0])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [x >= 50])
    report = check_problem(problem, samples=8)
    assert report.parameters[0].source == "near the file's value"
    assert report.solve is not None
    assert report.solve.statuses == {"SOLVED": 8}


def test_a_problem_without_parameters_has_no_gradient_to_check():
    x = cp.Variable(2, name="x")
    report = check_problem(cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [x <= 0]))
    assert report.is_good
    assert report.gradient is None
    assert report.timing is not None
    assert report.timing.backward_seconds is None


def test_times_are_measured():
    timing = check_problem(denoiser(), samples=4).timing
    assert timing is not None
    for seconds in (timing.forward_seconds, timing.backward_seconds,
                    timing.single_forward_seconds, timing.single_backward_seconds):  # fmt: skip
        assert seconds is not None
        assert 0 < seconds < 1


def test_steps_are_announced_in_order():
    steps: list[str] = []
    check_problem(denoiser(), samples=4, progress=steps.append)
    words = ["compiling", "solving 4 instances", "examining", "timing", "comparing the gradient"]
    assert [step[: len(word)] for step, word in zip(steps, words, strict=True)] == words


def test_an_unknown_solver_is_refused():
    with pytest.raises(OptionError, match="There is no solver `clarabell`"):
        check_problem(denoiser(), solver="clarabell")


def test_another_solver_may_be_checked():
    report = check_problem(denoiser(), samples=4, solver="clarabel")
    assert report.gradient is not None
    assert report.gradient.verdict is GradientVerdict.AGREES


def test_the_json_form_is_plain_and_survives_a_round_trip():
    plain = check_problem(denoiser(), samples=4).as_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["gradient"]["verdict"] == "AGREES"


def test_the_json_form_has_null_for_what_is_no_number():
    x, a = cp.Variable(name="x"), cp.Parameter(name="a", nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.square(x)), [x >= 1 + a, x <= -a])
    plain = check_problem(problem, samples=2).as_json()
    assert plain["solve"]["gap"] is None
    json.dumps(plain, allow_nan=False)


def test_reports_are_frozen():
    report = check_problem(denoiser(), samples=2)
    assert isinstance(report, Report)
    with pytest.raises(AttributeError):
        report.verdict = None  # pyright: ignore
