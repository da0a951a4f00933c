# SPDX-License-Identifier: Apache-2.0
"""What a layer does about rows that were not solved, or not accurately: alike for every solver."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import Layer, Status
from cvxlayer.errors import DerivativeWarning, InaccurateWarning, SolverError
from tests.catalog.backends import BACKENDS

# Hardly within reach, so that most rows end at the limit or where rounding stops them.
OUT_OF_REACH = {"eps": 1e-16, "max_iters": 200}

each_solver = pytest.mark.parametrize("solver", BACKENDS)


def bounded(solver: str, **options: object) -> Layer:
    """Minimize |x − point|² over [lower, upper]: infeasible where they cross."""
    x = cp.Variable(2, name="x")
    point, lower, upper = (cp.Parameter(2, name=name) for name in ("point", "lower", "upper"))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [lower <= x, x <= upper])
    return Layer(problem, [point, lower, upper], [x], solver=solver, **options)


def fitted(solver: str, **options: object) -> Layer:
    """A least squares in a ball and above a bound."""
    matrix = np.random.default_rng(0).normal(size=(8, 5))
    x, right, cost = cp.Variable(5), cp.Parameter(8), cp.Parameter(5)
    objective = cp.Minimize(cp.sum_squares(matrix @ x - right) + cost @ x)
    problem = cp.Problem(objective, [cp.norm(x) <= 1, x >= -0.3])
    return Layer(problem, [right, cost], [x], solver=solver, **options)


def crossing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of `bounded` whose rows 1 and 3 have no solution."""
    lower = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, -1.0], [0.0, 3.0]])
    return np.array([[2.0, 0.5]] * 4), lower, np.ones((4, 2))


@each_solver
def test_one_error_names_every_failed_row(solver: str) -> None:
    with pytest.raises(SolverError, match="1: INFEASIBLE, 3: INFEASIBLE") as caught:
        bounded(solver)(*crossing())
    assert caught.value.indices == [1, 3]
    assert caught.value.statuses == [Status.INFEASIBLE] * 2
    assert caught.value.solution is not None
    np.testing.assert_allclose(caught.value.solution.variables[0][0], [1.0, 0.5], atol=1e-6)


@each_solver
def test_an_unbounded_row_is_named_as_such(solver: str) -> None:
    x, cost = cp.Variable(2), cp.Parameter(2)
    layer = Layer(cp.Problem(cp.Minimize(cost @ x), [x >= 0]), [cost], [x], solver=solver)
    with pytest.raises(SolverError, match="1: UNBOUNDED"):
        layer(np.array([[1.0, 1.0], [1.0, -1.0]]))
    solution = Layer(
        cp.Problem(cp.Minimize(cost @ x), [x >= 0]), [cost], [x], solver=solver, on_failure="nan"
    ).solve(np.array([[1.0, 1.0], [1.0, -1.0]]))
    np.testing.assert_allclose(solution.value, [0.0, -np.inf], atol=1e-7)


@each_solver
def test_failed_rows_are_nan_and_the_others_as_alone(solver: str) -> None:
    values = crossing()
    (x,) = bounded(solver, on_failure="nan")(*values)
    assert np.isnan(x[[1, 3]]).all()
    for row in (0, 2):
        (alone,) = bounded(solver)(*(value[row] for value in values))
        np.testing.assert_allclose(x[row], alone, atol=1e-7)


@each_solver
def test_failed_rows_have_exactly_zero_gradient_and_the_others_their_own(solver: str) -> None:
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(value, requires_grad=True) for value in crossing()]
    (x,) = bounded(solver, on_failure="nan")(*tensors)
    x.sum().backward()
    point, lower, upper = (tensor.grad.numpy() for tensor in tensors)
    # Entry 0 is at its upper bound and entry 1 at its own point, but for failed rows.
    np.testing.assert_allclose(point, [[0, 1], [0, 0], [0, 1], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(upper, [[1, 0], [0, 0], [1, 0], [0, 0]], atol=1e-6)
    for gradient in (point, lower, upper):
        assert (gradient[[1, 3]] == 0.0).all()


@each_solver
def test_too_few_iterations_are_an_error_that_says_so(
    solver: str, rng: np.random.Generator
) -> None:
    with pytest.raises(SolverError, match=r"0: MAX_ITERATIONS.*larger `max_iters`"):
        fitted(solver, solver_args={"max_iters": 2})(rng.normal(size=(1, 8)), np.ones(5))


@each_solver
def test_rows_nearly_there_are_returned_with_one_warning(
    solver: str, rng: np.random.Generator
) -> None:
    values = rng.normal(size=(4, 8)), rng.normal(size=(4, 5))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InaccurateWarning)
        solution = fitted(solver, solver_args=OUT_OF_REACH).solve(*values)
    ours = [str(item.message) for item in caught if item.category is InaccurateWarning]
    count = int(np.count_nonzero(solution.status == Status.INACCURATE))
    assert count >= 1
    assert len(ours) == 1
    assert f"{count} of 4 rows" in ours[0]
    (accurate,) = fitted("native")(*values)
    np.testing.assert_allclose(solution.variables[0], accurate, atol=1e-4)


@each_solver
def test_a_larger_tolerance_costs_fewer_iterations(solver: str, rng: np.random.Generator) -> None:
    values = rng.normal(size=(4, 8)), rng.normal(size=(4, 5))
    rough = fitted(solver, solver_args={"eps": 1e-3}).solve(*values)
    fine = fitted(solver, solver_args={"eps_abs": 1e-9, "eps_rel": 1e-9}).solve(*values)
    assert (rough.status == Status.SOLVED).all()
    assert (fine.status == Status.SOLVED).all()
    assert rough.iterations.sum() < fine.iterations.sum()


@each_solver
def test_gradients_of_every_solver_equal_finite_differences(
    solver: str, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    right, cost = rng.normal(size=(4, 8)), rng.normal(size=(4, 5))
    weights, direction = rng.normal(size=(4, 5)), rng.normal(size=right.shape)
    tensor = torch.tensor(right, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DerivativeWarning)
        (x,) = fitted(solver)(tensor, torch.tensor(cost))
        (x * torch.tensor(weights)).sum().backward()
    step, accurate = 1e-5, fitted("native")
    ends = [accurate(right + sign * step * direction, cost)[0] for sign in (1.0, -1.0)]
    difference = ((ends[0] - ends[1]) * weights).sum(axis=1) / (2 * step)
    exact = (tensor.grad.numpy() * direction).sum(axis=1)
    np.testing.assert_allclose(exact, difference, atol=2e-4 * np.abs(difference).max())
