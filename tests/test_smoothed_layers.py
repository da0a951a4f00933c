# SPDX-License-Identifier: Apache-2.0
"""`derivative=Smoothed(…)`: the derivative of the barrier problem in the user's own units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import brentq

import cvxlayer
from cvxlayer.errors import OptionError
from tests.catalog.hard_derivatives import HARD_CASES, HardCase
from tests.catalog.smoothed_problems import PROBLEMS, SmoothedProblem

MU = 0.05
STEP, DIFFERENCE = 1e-5, 1e-7
HARD = [case for case in HARD_CASES if case.is_solvable and case.pieces]
# 1e-9 is not small beside an objective of 1e-6 or an interval of 1e-6; the projection onto a power
# cone of exponent ½ has its limit only logarithmically.
FAR = ("objective-1e-6", "narrow-interval", "power-ray-half")
by_name = {problem.name: problem for problem in PROBLEMS}


def layer_of(problem: SmoothedProblem, **options: Any) -> cvxlayer.Layer:
    built, parameters, variables = problem.build()
    return cvxlayer.Layer(built, parameters, variables, **options)


def gradients(
    problem: SmoothedProblem, weights: np.ndarray, derivative: Any = None
) -> tuple[np.ndarray | None, ...]:
    """Gradients of the weighted sum of the first output."""
    layer = layer_of(problem, derivative=derivative or cvxlayer.Smoothed(mu=MU))
    evaluation = layer._evaluator.evaluate(list(problem.values), [0.0] * len(problem.values))
    reading = evaluation.read_outputs()
    bars = [weights, *[None] * (len(reading.arrays) - 1)]
    return reading.pull_back(bars, [True] * len(problem.values))


def slopes(
    function: Callable[..., np.ndarray], values: tuple[np.ndarray, ...], weights: np.ndarray
) -> list[np.ndarray]:
    """The same by differences of solutions of the barrier problem."""
    found = []
    for place, value in enumerate(values):
        slope = np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * STEP
                ends.append(function(*values[:place], moved, *values[place + 1 :]))
            slope[index] = (weights * (ends[0] - ends[1])).sum() / (2 * STEP)
        found.append(slope)
    return found


def assert_gradients_are_slopes(
    problem: SmoothedProblem, function: Callable[..., np.ndarray], rng: np.random.Generator
) -> None:
    weights = rng.normal(size=function(*problem.values).shape)
    ours = gradients(problem, weights)
    expected = slopes(function, problem.values, weights)
    for bar, slope in zip(ours, expected, strict=True):
        np.testing.assert_allclose(bar, slope, atol=DIFFERENCE * (1.0 + np.abs(slope).max()))


def on_the_simplex(cost: np.ndarray) -> np.ndarray:
    """cᵀx − μ Σ log x: x = μ/(c − ν) with Σ x = 1."""
    nu = brentq(lambda nu: (MU / (cost - nu)).sum() - 1.0, cost.min() - 10, cost.min() - MU / 2)
    return MU / (cost - nu)


def in_the_polyhedron(A: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The largest value of cᵀx − 0.1 ‖x‖² + μ Σ log(b − Ax), by Newton's method."""
    x = np.zeros(2)
    for _ in range(60):
        inverse = 1.0 / (b - A @ x)
        slope = c - 0.2 * x - MU * A.T @ inverse
        step = np.linalg.solve(0.2 * np.eye(2) + MU * (A.T * inverse**2) @ A, slope)
        while np.any(A @ (x + step) >= b):
            step *= 0.5
        x = x + step
    return x


def in_the_ball(p: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """½‖x − p‖² − ½μ log(r² − ‖x‖²): along p, as far as one equation says."""
    size = np.linalg.norm(p)
    far = float(radius)
    length = brentq(lambda t: t - size + MU * t / (far**2 - t**2), 0.0, far * (1 - 1e-12))
    return p * length / size


def correlation(C: np.ndarray) -> np.ndarray:
    """tr CX − μ log det X: X = μ (C + diag ν)⁻¹ with a diagonal of ones.

    Newton's method on Σν − μ log det(C + diag ν), whose minimum is that.
    """
    C, nu = 0.5 * (C + C.T), np.full(3, 3.0)
    for _ in range(60):
        X = MU * np.linalg.inv(C + np.diag(nu))
        step = np.linalg.solve(X * X / MU, np.diag(X) - 1.0)
        while np.linalg.eigvalsh(C + np.diag(nu + step))[0] <= 0.0:
            step *= 0.5
        nu = nu + step
    return MU * np.linalg.inv(C + np.diag(nu))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("simplex", on_the_simplex),
        ("polyhedron", in_the_polyhedron),
        ("ball", in_the_ball),
        ("correlation", correlation),
    ],
)
def test_the_gradient_is_that_of_the_barrier_problem(
    name: str, function: Callable[..., np.ndarray], rng: np.random.Generator
) -> None:
    assert_gradients_are_slopes(by_name[name], function, rng)


def test_the_answers_are_not_smoothed() -> None:
    for problem in PROBLEMS:
        inputs = list(problem.values), [0.0] * len(problem.values)
        ours, exact = (
            layer_of(problem, **options)._evaluator.evaluate(*inputs).read_outputs().arrays
            for options in ({"derivative": "smoothed"}, {})
        )
        for mine, other in zip(ours, exact, strict=True):
            np.testing.assert_array_equal(mine, other)


def test_at_a_vertex_it_is_not_zero_as_the_exact_one_is() -> None:
    problem, weights = by_name["simplex"], np.array([1.0, 0.0, -1.0, 0.0])
    (exact,) = gradients(problem, weights, "exact")
    np.testing.assert_allclose(exact, 0.0, atol=1e-8)
    (smoothed,) = gradients(problem, weights)
    assert smoothed[0] < -0.1
    assert smoothed[2] > 0.1


@pytest.mark.parametrize("name", ["ball", "correlation", "entropy", "power"])
def test_it_tends_to_the_exact_gradient(name: str, rng: np.random.Generator) -> None:
    problem = by_name[name]
    weights = rng.normal(size=(3, 3) if name == "correlation" else () if name == "power" else 3)
    exact = gradients(problem, weights, "exact")
    ours = gradients(problem, weights, cvxlayer.Smoothed(mu=1e-8))
    for bar, expected in zip(ours, exact, strict=True):
        np.testing.assert_allclose(bar, expected, atol=1e-5)


@pytest.mark.parametrize("case", HARD, ids=str)
def test_hard_derivatives_are_finite_and_tend_to_the_truth(case: HardCase) -> None:
    """Also at kinks, to an element of the generalized derivative."""
    errors: list[float] = []
    for mu in (1e-2, 1e-9):
        built, parameters, variables = case.build()
        derivative = cvxlayer.Smoothed(mu=mu)
        layer = cvxlayer.Layer(built, parameters, variables, gp=case.gp, derivative=derivative)
        values = [np.asarray(value, float) for value in case.values]
        evaluation = layer._evaluator.evaluate(values, [0.0] * len(values))
        weights = [np.asarray(weight, float) for weight in case.weights]
        bars = evaluation.read_outputs().pull_back(weights, [True] * len(values))
        assert all(np.isfinite(bar).all() for bar in bars)
        errors.append(case.error(bars))
    if case.name not in FAR:
        assert errors[1] <= 1e-3


def test_where_the_exact_derivative_jumps_it_is_between() -> None:
    """min(x, u) at x = u: one half, and every order is finite."""
    u, p, x = cp.Parameter(), cp.Parameter(), cp.Variable()
    problem = cp.Problem(cp.Minimize(0.5 * cp.square(x - p)), [x <= u])
    layer = cvxlayer.Layer(problem, [p, u], [x], derivative="smoothed")
    evaluation = layer._evaluator.evaluate([np.array(1.0), np.array(1.0)], [0.0, 0.0])
    bars = evaluation.read_outputs().pull_back([np.array(1.0)], [True, True])
    np.testing.assert_allclose(bars, 0.5, atol=1e-10)


def test_copies_of_a_constraint_and_redundant_equalities_are_no_obstacle() -> None:
    low, high, x = cp.Parameter(), cp.Parameter(), cp.Variable(2)
    constraints = [x[0] <= low, x[0] <= high, cp.sum(x) == 1, 2 * cp.sum(x) == 2]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 3)), constraints)
    layer = cvxlayer.Layer(problem, [low, high], [x], derivative=cvxlayer.Smoothed(mu=1e-4))
    evaluation = layer._evaluator.evaluate([np.array(0.2), np.array(0.2)], [0.0, 0.0])
    bars = evaluation.read_outputs().pull_back([np.array([1.0, 0.0])], [True, True])
    np.testing.assert_allclose(bars, 0.5, atol=1e-3)
    assert abs(bars[0] - bars[1]) < 1e-9


@pytest.mark.parametrize("name", ["simplex", "correlation", "entropy"])
def test_it_starts_from_the_solutions_of_any_solver(name: str) -> None:
    problem = by_name[name]
    found = []
    for solver in ("native", "clarabel"):
        layer = layer_of(problem, derivative="smoothed", solver=solver)
        reading = layer._evaluator.evaluate(list(problem.values), [0.0]).read_outputs()
        weights = np.cos(np.arange(reading.arrays[0].size)).reshape(reading.arrays[0].shape)
        found.append(reading.pull_back([weights], [True])[0])
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-10)


def test_an_infinite_bound_has_no_gradient() -> None:
    A, b, x = cp.Parameter((2, 2)), cp.Parameter(2), cp.Variable(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [A @ x <= b])
    layer = cvxlayer.Layer(problem, [A, b], [x], derivative=cvxlayer.Smoothed(mu=0.1))
    values = [np.array([[1.0, 0.3], [0.2, 1.0]]), np.array([0.5, np.inf])]
    evaluation = layer._evaluator.evaluate(values, [0.0, 0.0])
    A_bar, b_bar = evaluation.read_outputs().pull_back([np.array([1.0, -0.5])], [True, True])
    assert (A_bar[1] == 0.0).all()
    assert b_bar[1] == 0.0
    assert np.abs(A_bar[0]).min() > 1e-3


def test_rows_without_a_solution_have_gradient_zero() -> None:
    u, x = cp.Parameter(), cp.Variable()
    problem = cp.Problem(cp.Minimize(cp.square(x)), [x >= 1, x <= u])
    layer = cvxlayer.Layer(problem, [u], [x], derivative="smoothed", on_failure="nan")
    evaluation = layer._evaluator.evaluate([np.array([2.0, 0.0])], [0.0])
    (u_bar,) = evaluation.read_outputs().pull_back([np.array([1.0, np.nan])], [True])
    assert u_bar[1] == 0.0
    assert 0.0 < u_bar[0] < 0.1


@pytest.mark.parametrize("mu", [0.0, -1.0, float("inf"), float("nan")])
def test_a_mu_that_is_not_positive_is_refused(mu: float) -> None:
    with pytest.raises(OptionError, match="positive number"):
        cvxlayer.Smoothed(mu=mu)


def test_the_names_of_the_modes_are_told() -> None:
    with pytest.raises(OptionError, match=r"'smoothed'.*`Smoothed\(mu=…\)`"):
        layer_of(PROBLEMS[0], derivative="smooth")
