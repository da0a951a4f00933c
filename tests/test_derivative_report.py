# SPDX-License-Identifier: Apache-2.0
"""`solution.derivative` as users see it: shapes, frameworks, names, failed rows."""

from __future__ import annotations

import pickle
import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxlayer
from cvxlayer.errors import DerivativeWarning, SolverError
from cvxlayer.program.derivative_report import DerivativeReport, DerivativeTest
from tests.catalog.dpp_problems import DPP_CASES, DppCase
from tests.catalog.geometric_programs import GEOMETRIC_PROGRAMS
from tests.catalog.problems import PROBLEMS, LayerCase
from tests.catalog.smooth_layers import SMOOTH_LAYERS, SmoothCase

REGULAR = [*PROBLEMS, *DPP_CASES, *SMOOTH_LAYERS]
FIELDS = ("margin", "condition", "residual", "failed")
# Rows: regular, a kink of the second constraint, regular, no solution, a kink of both.
POINTS = np.array([[2.0, 0.5], [-1.0, 0.0], [-1.0, -0.5], [9.0, 9.0], [0.0, 0.0]])


def build_layer(**options: object) -> cvxlayer.Layer:
    """Project onto x₁ ≤ 1, x₂ ≥ 0; with a point that is far away, x₁ ≥ 5 contradicts it."""
    x, point = cp.Variable(2, name="x"), cp.Parameter(2, name="point")
    far = cp.Parameter(name="far")
    constraints = [x[0] <= 1, x[1] >= 0, x[0] >= far]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), constraints)
    return cvxlayer.Layer(problem, [point, far], [x], **options)


FAR = np.array([-9.0, -9.0, -9.0, 5.0, -9.0])


@pytest.mark.parametrize("case", REGULAR, ids=str)
def test_regular_problems_raise_no_alarm(
    case: LayerCase | DppCase | SmoothCase, rng: np.random.Generator
) -> None:
    draws = [case.sample(rng) for _ in range(4)]
    values = [np.stack(draw) for draw in zip(*draws, strict=True)]
    is_geometric = isinstance(case, SmoothCase) and case.gp
    report = cvxlayer.Layer(*case.build(), gp=is_geometric).solve(*values).derivative
    assert report.exists.all(), report
    assert (report.margin > 1e-7).all()
    assert (report.residual < 1e-9).all()
    assert (report.condition > 1 - 1e-12).all()
    assert not report.involved.any()


@pytest.mark.parametrize("case", GEOMETRIC_PROGRAMS, ids=str)
def test_geometric_programs_raise_no_alarm(case: DppCase, rng: np.random.Generator) -> None:
    layer = cvxlayer.Layer(*case.build(), gp=True)
    assert layer.solve(*case.sample(rng)).derivative.exists


def test_every_row_has_its_own_verdict() -> None:
    report = build_layer(on_failure="nan").solve(POINTS, FAR).derivative
    assert report.failed.tolist() == [0, 2, 0, 1, 2]
    assert report.exists.tolist() == [True, False, True, False, False]
    assert report.has_kink.tolist() == [False, True, False, False, True]
    assert report.constraints(0) == ()
    assert report.constraints(1) == ("0.0 <= x[1]",)
    assert report.tests_failed(1) is DerivativeTest.STRICT_COMPLEMENTARITY
    assert report.tests_failed(3) is DerivativeTest.SOLUTION
    for name in ("margin", "condition", "residual"):
        figures = getattr(report, name)
        assert np.isnan(figures).tolist() == [False, False, False, True, False], name


def test_a_failed_batch_can_be_looked_at_in_the_error() -> None:
    with pytest.raises(SolverError) as caught:
        build_layer()(POINTS, FAR)
    assert caught.value.solution is not None
    assert caught.value.solution.derivative.failed[3] == DerivativeTest.SOLUTION


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (0,), (2, 0)])
def test_the_report_has_the_batch_shape(shape: tuple[int, ...]) -> None:
    values = np.broadcast_to(POINTS[0], (*shape, 2))
    report = build_layer().solve(values, -9.0).derivative
    for name in (*FIELDS, "exists"):
        assert np.shape(getattr(report, name)) == shape, name
    assert report.involved.shape == (*shape, len(report.names))


def test_the_report_is_made_once_and_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[DerivativeReport] = []

    def count(*args: object) -> DerivativeReport:
        made.append(report(*args))  # pyright: ignore[reportArgumentType]
        return made[-1]

    report = cvxlayer.evaluation.report_derivative
    monkeypatch.setattr("cvxlayer.evaluation.report_derivative", count)
    solution = build_layer().solve(POINTS[:3], -9.0)
    assert not made
    assert solution.derivative is solution.derivative
    assert len(made) == 1


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
def test_other_solvers_get_the_same_verdict(solver: str) -> None:
    report = build_layer(solver=solver, on_failure="nan", solver_args={"eps": 1e-9})
    native = build_layer(on_failure="nan").solve(POINTS, FAR).derivative
    found = report.solve(POINTS, FAR).derivative
    assert found.failed.tolist() == native.failed.tolist()
    np.testing.assert_array_equal(found.involved, native.involved)


def test_a_loaded_layer_reports_the_same() -> None:
    layer = build_layer()
    again = pickle.loads(pickle.dumps(layer))
    first, second = (one.solve(POINTS[:3], -9.0).derivative for one in (layer, again))
    assert first.names == second.names
    np.testing.assert_array_equal(first.failed, second.failed)


def test_a_solution_that_was_sent_elsewhere_still_reports() -> None:
    solution = build_layer(on_failure="nan").solve(POINTS, FAR)
    sent = pickle.loads(pickle.dumps(solution))
    np.testing.assert_array_equal(sent.derivative.failed, solution.derivative.failed)


def test_a_program_without_constraints_or_parameters_has_a_report() -> None:
    x = cp.Variable(2)
    layer = cvxlayer.Layer(cp.Problem(cp.Minimize(cp.sum_squares(x - 1))), [], [x])
    report = layer.solve().derivative
    assert report.exists
    assert report.margin == np.inf


def test_torch_gets_tensors_and_transforms_refuse() -> None:
    torch = pytest.importorskip("torch")
    layer = build_layer(on_failure="nan")
    points, far = torch.tensor(POINTS, requires_grad=True), torch.tensor(FAR)
    solution = layer.solve(points, far)
    report = solution.derivative
    assert all(isinstance(getattr(report, name), torch.Tensor) for name in FIELDS)
    assert report.failed.tolist() == [0, 2, 0, 1, 2]
    assert report.constraints(1) == ("0.0 <= x[1]",)
    # What it is for: leave out the rows whose gradient means nothing.
    solution.variables[0][report.exists].sum().backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()
    assert points.grad[~report.exists].count_nonzero() == 0

    def ask(point: object) -> object:
        return layer.solve(point, -9.0).derivative.margin

    with pytest.raises(NotImplementedError, match=r"torch\.func"):
        torch.func.vmap(ask)(points)


def test_what_backward_warns_of_the_report_says() -> None:
    """An edge of solutions: the gradient of what differs along it, and the verdict before."""
    torch = pytest.importorskip("torch")
    x, cost = cp.Variable(2, name="x"), cp.Parameter(2)
    box = [x >= 0, x <= 1]
    layer = cvxlayer.Layer(cp.Problem(cp.Minimize(cost @ x), box), [cost], [x])
    costs = torch.tensor([[1.0, 0.0], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    solution = layer.solve(costs)
    assert solution.derivative.exists.tolist() == [False, True]
    assert solution.derivative.tests_failed(0) is DerivativeTest.CONSISTENCY
    assert set(solution.derivative.constraints(0)) == {"0.0 <= x", "x <= 1.0"}
    with pytest.warns(DerivativeWarning, match="1 of 2") as caught:
        solution.variables[0].sum().backward()
    warning = caught[0].message
    assert isinstance(warning, DerivativeWarning)
    assert warning.report is not None
    assert set(warning.report.constraints(0)) == {"0.0 <= x", "x <= 1.0"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(costs[1:])[0].sum().backward()
