# SPDX-License-Identifier: Apache-2.0
"""`derivative=`: gradients by differences of solutions, and the least-squares convention."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxlayer
from cvxlayer.compiler import lagrangian_derivative, least_squares_derivative
from cvxlayer.differentiate import conic
from cvxlayer.differentiate.primitives import refine
from cvxlayer.errors import OptionError, UnsupportedDerivativeError
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.cone_programs import REGULAR, ConeProgramCase

BLOCKS = ("P", "q", "A", "b")
# A difference of solutions that are exact to 1e-12 or so leaves τ² of the third derivative.
SMALL_TAU = 1e-4
DIFFERENCE = 1e-4
SMOOTH = [case for case in REGULAR if "scaled" not in str(case)]
# A step is small beside the objective, which is of order one in these.
UNSCALED = [case for case in SMOOTH if "objective" not in str(case)]


def cotangents(case: ConeProgramCase, rng: np.random.Generator):
    batch = case.build(rng)
    backend = get_backend("native")
    solution = backend.solve(backend.setup(batch.structure), batch, Settings())
    bars = [
        np.where(np.isfinite(part), rng.normal(size=part.shape), 0.0)
        for part in (solution.x, solution.y)
    ]
    return batch, solution, bars


def simplex_layer(**options) -> tuple[cvxlayer.Layer, cp.Problem]:
    """The vertex of the simplex with the least cost."""
    cost, x = cp.Parameter(4), cp.Variable(4)
    problem = cp.Problem(cp.Minimize(cost @ x), [cp.sum(x) == 1, x >= 0])
    return cvxlayer.Layer(problem, [cost], [x], **options), problem


@pytest.mark.parametrize("case", UNSCALED, ids=str)
def test_with_a_small_step_lpgd_is_the_derivative(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch, solution, bars = cotangents(case, rng)
    engine = lagrangian_derivative(SMALL_TAU, get_backend("native"), Settings(1e-11, 1e-11))
    prepared = engine.setup(batch.structure)
    ours = engine.vjp(prepared, batch, solution, *bars, None, needs=(True,) * 4, threads=1)
    expected = conic.vjp(batch, solution, *bars)
    assert (ours.residual == 0.0).all()
    for name in BLOCKS:
        right = getattr(expected, name)
        size = np.abs(right).max(axis=1, initial=1.0, keepdims=True)
        assert (np.abs(getattr(ours, name) - right) <= DIFFERENCE * size).all(), name


def test_lpgd_is_the_difference_of_two_vertices(rng: np.random.Generator) -> None:
    """x(c + τ x̄) − x(c − τ x̄) over 2τ, known by hand."""
    tau, cost = 2.0, np.array([[0.1, 0.5, 0.3, 0.9], [0.4, 0.1, 0.2, 0.3]])
    layer, _ = simplex_layer(derivative=cvxlayer.LPGD(tau=tau))
    x_bar = np.array([[1.0, 0.0, -1.0, 0.0], [0.0, 0.5, 0.0, -0.5]])
    evaluation = layer._evaluator.evaluate([cost], [0.0])
    (cost_bar,) = evaluation.read_outputs().pull_back([x_bar], [True])
    ahead, behind = (np.eye(4)[np.argmin(cost + sign * tau * x_bar, axis=1)] for sign in (1, -1))
    np.testing.assert_allclose(cost_bar, (ahead - behind) / (2 * tau), atol=1e-6)
    assert np.abs(cost_bar).max() > 0.1


def test_the_derivative_of_the_same_program_is_zero() -> None:
    layer, _ = simplex_layer()
    evaluation = layer._evaluator.evaluate([np.array([0.1, 0.5, 0.3, 0.9])], [0.0])
    (cost_bar,) = evaluation.read_outputs().pull_back([np.ones(4)], [True])
    np.testing.assert_allclose(cost_bar, 0.0, atol=1e-8)


def test_lpgd_says_where_a_perturbed_program_has_no_solution() -> None:
    """Minimize c x over x ≥ 0 is unbounded as soon as c is negative."""
    cost, x = cp.Parameter(), cp.Variable()
    problem = cp.Problem(cp.Minimize(cost * x), [x >= 0])
    layer = cvxlayer.Layer(problem, [cost], [x], derivative=cvxlayer.LPGD(tau=10.0))
    evaluation = layer._evaluator.evaluate([np.array([1.0, 100.0])], [0.0])
    with pytest.warns(cvxlayer.errors.DerivativeWarning):
        (cost_bar,) = evaluation.read_outputs().pull_back([np.ones(2)], [True])
    np.testing.assert_allclose(cost_bar, 0.0, atol=1e-6)


@pytest.mark.parametrize("case", [c for c in SMOOTH if "semidefinite" not in str(c)], ids=str)
def test_least_squares_is_the_derivative_where_that_is_unique(
    case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch, solution, bars = cotangents(case, rng)
    engine = least_squares_derivative()
    ours = engine.vjp(None, batch, solution, *bars, None, needs=(True,) * 4, threads=1)
    expected = conic.vjp(batch, solution, *bars)
    for name in BLOCKS:
        np.testing.assert_allclose(
            getattr(ours, name), getattr(expected, name), rtol=1e-9, atol=1e-9
        )


def test_least_squares_shares_among_copies_of_a_constraint() -> None:
    """Two copies of x ≤ u, each with its own u: half of the gradient for either."""
    low, high, x = cp.Parameter(), cp.Parameter(), cp.Variable()
    problem = cp.Problem(cp.Minimize((x - 3) ** 2), [x <= low, x <= high])
    layer = cvxlayer.Layer(problem, [low, high], [x], derivative="least_squares")
    evaluation = layer._evaluator.evaluate([np.array(1.0), np.array(1.0)], [0.0, 0.0])
    bars = evaluation.read_outputs().pull_back([np.array(1.0)], [True, True])
    np.testing.assert_allclose(bars, 0.5, atol=1e-6)


@pytest.mark.parametrize("tau", [0.0, -1.0, float("inf"), float("nan")])
def test_a_step_that_is_not_positive_is_refused(tau) -> None:
    with pytest.raises(OptionError, match="positive number"):
        cvxlayer.LPGD(tau=tau)


@pytest.mark.parametrize("method", ["refine", "apply", "curvature"])
@pytest.mark.parametrize("kind", ["lpgd", "least_squares"])
def test_other_derivatives_are_refused_with_advice(
    method: str, kind: str, rng: np.random.Generator
) -> None:
    layer, _ = simplex_layer(derivative=kind)
    engine = layer._evaluator.derivative(Settings())
    batch, solution, (gx, gy) = cotangents(REGULAR[0], rng)
    point, gx, gy = refine(batch, solution), gx[:, None], gy[:, None]
    arguments = {"refine": (solution,), "apply": (point, gx, gy, gy), "curvature": (point, gy, gy)}
    with pytest.raises(UnsupportedDerivativeError, match='derivative="exact"'):
        getattr(engine, method)(None, batch, *arguments[method], threads=1)


def test_the_mode_reaches_torch() -> None:
    torch = pytest.importorskip("torch")
    from cvxlayer.torch import Layer

    cost, x = cp.Parameter(4), cp.Variable(4)
    problem = cp.Problem(cp.Minimize(cost @ x), [cp.sum(x) == 1, x >= 0])
    layer = Layer(problem, [cost], [x], derivative=cvxlayer.LPGD(tau=2.0))
    values = torch.tensor([0.1, 0.5, 0.3, 0.9], dtype=torch.float64, requires_grad=True)
    (answer,) = layer(values)
    (answer[0] - answer[2]).backward()
    expected = np.array([-0.25, 0.0, 0.25, 0.0])
    np.testing.assert_allclose(values.grad.numpy(), expected, atol=1e-6)
