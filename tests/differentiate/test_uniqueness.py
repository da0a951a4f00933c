# SPDX-License-Identifier: Apache-2.0
"""The three tests of a derivative: right about hard cases, and silent about regular ones."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import Layer
from cvxlayer.canonicalize.constraint_names import name_of
from cvxlayer.differentiate.reference import ReferenceDerivative
from cvxlayer.program.derivative_report import DerivativeReport, DerivativeTest
from cvxlayer.reporting import report_derivative
from tests.catalog.hard_derivatives import HARD_CASES, HardCase

# Its loss is of a part of the solution that is unique, but the layer returns all of it.
_RETURNS_MORE = ("lp-edge-relevant",)
_KINK = DerivativeTest.STRICT_COMPLEMENTARITY | DerivativeTest.DUAL_UNIQUENESS
_SMALL = [case for case in HARD_CASES if case.name != "l1-ball"]


def _verdict(report: DerivativeReport) -> str:
    failed = report.tests_failed()
    if DerivativeTest.SOLUTION in failed:
        return "no solution"
    if DerivativeTest.CONSISTENCY in failed:
        return "not unique"
    return "kink" if failed & _KINK else "exists"


def _truth(case: HardCase) -> str:
    if not case.is_solvable:
        return "no solution"
    if case.name in _RETURNS_MORE:
        return "not unique"
    return {0: "not unique", 1: "exists"}.get(len(case.pieces), "kink")


@pytest.mark.parametrize("case", HARD_CASES, ids=str)
def test_hard_cases_get_the_right_verdict(case: HardCase) -> None:
    built = case.build()
    report = Layer(*built, gp=case.gp, on_failure="nan").solve(*case.values).derivative
    assert _verdict(report) == _truth(case)
    assert bool(report.exists) == (_truth(case) == "exists")
    # Each problem in which something is wrong has one constraint.
    is_wrong = _truth(case) in ("kink", "not unique")
    assert report.constraints() == tuple(map(name_of, built[0].constraints if is_wrong else ()))


@pytest.mark.parametrize("case", _SMALL, ids=str)
def test_the_specification_gives_the_same_verdict(case: HardCase) -> None:
    layer = Layer(*case.build(), gp=case.gp, on_failure="nan")
    native = layer.solve(*case.values).derivative
    evaluation = layer._evaluator.evaluate(list(case.values), [0.0] * len(case.values))
    dense = report_derivative(evaluation.solution, (), primitives=ReferenceDerivative())
    assert int(dense.failed) == int(native.failed)
    np.testing.assert_array_equal(dense.involved, native.involved)


def test_only_what_is_returned_has_to_be_unique() -> None:
    x, cost = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cost @ x), [x >= 0, x <= 1])
    first = cp.Variable()
    seen = cp.Problem(problem.objective, [*problem.constraints, first == x[0]])
    values = np.array([1.0, 0.0])
    assert Layer(problem, [cost], [x]).solve(values).derivative.tests_failed() == (
        DerivativeTest.CONSISTENCY
    )
    assert Layer(seen, [cost], [first]).solve(values).derivative.exists


@pytest.mark.parametrize("is_shared", [True, False])
def test_repeated_constraints_matter_if_they_can_part(is_shared: bool) -> None:
    x, point = cp.Variable(2, name="x"), cp.Parameter(2)
    bounds = [cp.Parameter(name="b"), cp.Parameter(name="c")]
    second = bounds[0] if is_shared else bounds[1]
    constraints = [cp.sum(x) <= bounds[0], cp.sum(x) <= second]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), constraints)
    parameters = [point, bounds[0], *([] if is_shared else [second])]
    report = Layer(problem, parameters, [x]).solve(*([1.0, 1.0], 1.0, 1.0)[: len(parameters)])
    assert bool(report.derivative.exists) == is_shared
    if not is_shared:
        assert report.derivative.tests_failed() == DerivativeTest.DUAL_UNIQUENESS
        assert len(report.derivative.constraints()) == 2


def test_duals_of_repeated_constraints_are_not_unique() -> None:
    x, point, bound = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    constraints = [cp.sum(x) <= bound, cp.sum(x) <= bound]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), constraints)
    layer = Layer(problem, [point, bound], [x, constraints[0].dual_variables[0]])
    report = layer.solve(np.ones(2), 1.0).derivative
    assert DerivativeTest.CONSISTENCY in report.tests_failed()


def test_a_kink_that_no_parameter_moves_does_not_matter() -> None:
    """The constraint x₂ ≥ 0 holds without force, and nothing can make it felt."""
    x, point = cp.Variable(2), cp.Parameter()
    objective = cp.Minimize(cp.square(x[0] - point) + cp.square(x[1]))
    problem = cp.Problem(objective, [x[1] >= 0])
    assert Layer(problem, [point], [x]).solve(1.0).derivative.exists


def test_a_kink_that_no_output_shows_does_not_matter() -> None:
    x, point = cp.Variable(2), cp.Parameter(2)
    shown = cp.Variable()
    constraints = [x[1] >= 0, shown == x[0]]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), constraints)
    values = np.array([1.0, 0.0])
    assert Layer(problem, [point], [shown]).solve(values).derivative.exists
    assert Layer(problem, [point], [x]).solve(values).derivative.has_kink


def test_an_exchange_of_constraints_that_no_output_shows_does_not_matter() -> None:
    """Three constraints meet in a vertex of (x₁, x₂); x₃ has nothing to do with them."""
    x, bound, point = cp.Variable(3), cp.Parameter(3), cp.Parameter()
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    objective = cp.Minimize(np.array([-1.0, -1.5, 0.0]) @ x + cp.square(x[2] - point))
    shown = cp.Variable()
    problem = cp.Problem(objective, [rows @ x <= bound, shown == x[2]])
    values = np.array([1.0, 1.0, 2.0]), 0.5
    assert Layer(problem, [bound, point], [shown]).solve(*values).derivative.exists
    report = Layer(problem, [bound, point], [x]).solve(*values).derivative
    assert report.tests_failed() == DerivativeTest.DUAL_UNIQUENESS


def _random_kink(rng: np.random.Generator) -> tuple[Layer, np.ndarray]:
    """Project onto a polyhedron, with rows active without force, and perhaps too many of them.

    The parameter moves the point in one or two directions, which some of these rows may not
    feel, and only some of the variables are returned.
    """
    n = 5
    shared = int(rng.integers(2, 4))
    # Rows of the first variables and of the others have nothing to do with each other.
    rows = rng.normal(size=(8, n))
    rows[:4, shared:] = 0.0
    rows[4:, :shared] = 0.0
    solution = rng.normal(size=n)
    force = np.where(rng.random(8) < 0.3, rng.uniform(0.5, 1.0, 8), 0.0)
    slack = np.where((force > 0) | (rng.random(8) < 0.4), 0.0, rng.uniform(0.5, 1.0, 8))
    point, bound = solution + rows.T @ force, rows @ solution + slack
    directions = np.zeros((n, 2))
    moved = rng.permutation(n)[:2]
    directions[moved, [0, 1]] = 1.0
    x, shift = cp.Variable(n), cp.Parameter(2)
    objective = cp.Minimize(0.5 * cp.sum_squares(x - point - directions @ shift))
    seen = cp.Variable()
    constraints = [rows @ x <= bound, seen == x[int(rng.integers(n))]]
    return Layer(cp.Problem(objective, constraints), [shift], [seen]), np.zeros(2)


# In the last four several constraints are on the verge, and only together do they no harm.
@pytest.mark.parametrize("seed", [*range(30), 108, 110, 129, 215])
def test_the_verdict_is_what_nearby_gradients_say(seed: int) -> None:
    layer, at = _random_kink(np.random.default_rng(seed))
    report = layer.solve(at).derivative
    directions = np.random.default_rng(seed).normal(size=(60, 2))
    evaluation = layer._evaluator.evaluate([at + 1e-5 * directions], [0.0])
    program, solution = evaluation.solution.program, evaluation.solution
    wide, _ = program.vjp(solution, [np.ones((60, 1))])
    assert wide[0] is not None
    is_smooth = np.ptp(wide[0], axis=0).max() < 1e-6
    assert bool(report.exists) == is_smooth, (report, np.unique(wide[0].round(6), axis=0))


@pytest.mark.parametrize(
    ("moved", "shown", "exists"),
    [
        ((0, 0), (0, 0), True),
        ((1, 1), (1, 1), False),
        ((1, 1), (0, 0), True),
        ((0, 1), (0, 1), True),
    ],
    ids=["elsewhere", "kink", "unseen", "second order"],
)
def test_a_zero_eigenvalue_matters_if_it_is_moved_and_seen(
    moved: tuple[int, int], shown: tuple[int, int], exists: bool
) -> None:
    """Projects diag(2, 0, −1) and its neighbours; X₁₂ moves by all of a change of C₁₂."""
    direction = np.zeros((3, 3))
    direction[moved] = direction[moved[::-1]] = 1.0
    X, shift, seen = cp.Variable((3, 3), symmetric=True), cp.Parameter(), cp.Variable()
    center = np.diag([2.0, 0.0, -1.0]) + shift * direction
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(X - center)), [X >> 0, seen == X[shown]])
    report = Layer(problem, [shift], [seen]).solve(0.0).derivative
    assert bool(report.exists) == exists, report


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_a_solution_of_zeros_has_a_kink_and_one_beside_it_has_none(size: float) -> None:
    x, point = cp.Variable(4), cp.Parameter(4)
    layer = Layer(cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [x >= 0]), [point], [x])
    values = np.stack([np.zeros(4), size * np.array([1.0, -1.0, 2.0, -3.0])])
    assert layer.solve(values).derivative.has_kink.tolist() == [True, False]
