# SPDX-License-Identifier: Apache-2.0
"""`derivative=` in JAX: the smoothed one as any other, two more that only pull gradients back."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import cvxlayer  # noqa: E402
from cvxlayer.errors import DerivativeWarning, UnsupportedDerivativeError  # noqa: E402
from cvxlayer.jax import Layer  # noqa: E402
from tests.catalog.smoothed_problems import PROBLEMS, SmoothedProblem  # noqa: E402

SMOOTHED = cvxlayer.Smoothed(mu=0.05)
REVERSE = [cvxlayer.LPGD(tau=0.5), "least_squares"]
STEP = 1e-5
each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=str)
each_reverse = pytest.mark.parametrize("derivative", REVERSE, ids=["lpgd", "least_squares"])


def loss_of(problem: SmoothedProblem, derivative: Any) -> Any:
    layer = Layer(*problem.build(), derivative=derivative)

    def loss(*values: Any) -> Any:
        if problem.name == "correlation":
            values = (0.5 * (values[0] + values[0].T),)
        answers = jnp.concatenate([part.reshape(-1) for part in layer(*values)])
        return jnp.sum(answers * jnp.cos(jnp.arange(answers.size)))

    return loss


def numpy_gradients(problem: SmoothedProblem, derivative: Any) -> list[np.ndarray]:
    evaluator = cvxlayer.Layer(*problem.build(), derivative=derivative)._evaluator
    evaluation = evaluator.evaluate(list(problem.values), [0.0] * len(problem.values))
    reading = evaluation.read_outputs()
    sizes = np.cumsum([0, *(part.size for part in reading.arrays)])
    bars = [
        np.cos(start + np.arange(part.size)).reshape(part.shape)
        for part, start in zip(reading.arrays, sizes, strict=False)
    ]
    return [np.asarray(bar) for bar in reading.pull_back(bars, [True] * len(problem.values))]


def values_of(problem: SmoothedProblem) -> tuple[Any, ...]:
    return tuple(jnp.asarray(value) for value in problem.values)


@each_problem
@pytest.mark.parametrize(
    "derivative", [SMOOTHED, *REVERSE], ids=["smoothed", "lpgd", "least_squares"]
)
def test_the_gradient_is_that_of_numpy(problem: SmoothedProblem, derivative: Any) -> None:
    loss, values = loss_of(problem, derivative), values_of(problem)
    places = tuple(range(len(values)))
    expected = numpy_gradients(problem, derivative)
    compiled = jax.jit(jax.grad(loss, places))
    for found in (jax.grad(loss, places)(*values), compiled(*values)):
        for ours, right in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, right, rtol=1e-7, atol=1e-9)


@each_problem
def test_smoothed_forward_reverse_and_second_order_agree(problem: SmoothedProblem) -> None:
    loss, values = loss_of(problem, SMOOTHED), values_of(problem)
    gradient = jax.jit(jax.grad(loss))
    rest = values[1:]
    np.testing.assert_allclose(jax.jacfwd(loss)(*values), gradient(*values), rtol=1e-8, atol=1e-10)
    hessian = jax.jit(jax.hessian(loss))(*values)
    rng = np.random.default_rng(0)
    step = rng.normal(size=values[0].shape)
    ahead, behind = (gradient(values[0] + sign * STEP * step, *rest) for sign in (1, -1))
    expected = (ahead - behind) / (2 * STEP)
    ours = jnp.tensordot(hessian, jnp.asarray(step), axes=step.ndim)
    size = 1.0 + np.abs(expected).max()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * size)
    assert np.abs(expected).max() > 1e-3


@each_reverse
def test_pulling_back_composes_with_vmap_and_shared_parameters(derivative: Any) -> None:
    """Rows of a batch, vmap inside and outside of grad: the same gradients."""
    A, b, c = values_of(PROBLEMS[1])
    layer = Layer(*PROBLEMS[1].build(), derivative=derivative)
    costs = jnp.stack([c, -c, 0.5 * c[::-1]])

    def loss(A: Any, c: Any) -> Any:
        return jnp.sum(layer(A, b, c)[0] ** 2)

    single = [jax.grad(loss, (0, 1))(A, cost) for cost in costs]
    by_rows = jax.grad(loss, (0, 1))(A, costs)
    np.testing.assert_allclose(by_rows[0], sum(part for part, _ in single), atol=1e-9)
    np.testing.assert_allclose(by_rows[1], jnp.stack([part for _, part in single]), atol=1e-9)
    outside = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, 0)))(A, costs)
    for place in (0, 1):
        expected = jnp.stack([part[place] for part in single])
        np.testing.assert_allclose(outside[place], expected, atol=1e-9)
    inside = jax.grad(lambda A, costs: jax.vmap(loss, (None, 0))(A, costs).sum(), (0, 1))(A, costs)
    np.testing.assert_allclose(inside[0], by_rows[0], atol=1e-9)
    np.testing.assert_allclose(inside[1], by_rows[1], atol=1e-9)


@each_reverse
def test_other_derivatives_are_refused_with_advice(derivative: Any) -> None:
    loss, (cost,) = loss_of(PROBLEMS[0], derivative), values_of(PROBLEMS[0])
    for function in (
        lambda: jax.jvp(loss, (cost,), (cost,)),
        lambda: jax.jit(lambda c: jax.jvp(loss, (c,), (c,)))(cost),
        lambda: jax.hessian(loss)(cost),
        lambda: jax.jacrev(jax.grad(loss))(cost),
    ):
        with pytest.raises(UnsupportedDerivativeError, match='derivative="exact"'):
            function()


def test_lpgd_warns_and_is_zero_where_a_perturbed_program_is_unbounded() -> None:
    cost, x = cp.Parameter(), cp.Variable()
    problem = cp.Problem(cp.Minimize(cost * x), [x >= 0])
    layer = Layer(problem, [cost], [x], derivative=cvxlayer.LPGD(tau=10.0))
    with pytest.warns(DerivativeWarning):
        found = jax.grad(lambda c: layer(c)[0].sum())(jnp.array([1.0, 100.0]))
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


@pytest.mark.parametrize("derivative", ["smoothed", *REVERSE], ids=str)
def test_rows_without_a_solution_are_exactly_zero(derivative: Any) -> None:
    u, x = cp.Parameter(), cp.Variable()
    problem = cp.Problem(cp.Minimize(cp.square(x)), [x >= 1, x <= u])
    layer = Layer(problem, [u], [x], derivative=derivative, on_failure="nan")
    found = jax.jit(jax.grad(lambda u: jnp.sum(layer(u)[0])))(jnp.array([2.0, 0.0]))
    assert float(found[1]) == 0.0
    assert bool(jnp.isfinite(found).all())


@pytest.mark.parametrize("derivative", [SMOOTHED, *REVERSE], ids=str)
def test_single_precision_changes_no_more_than_its_digits(derivative: Any) -> None:
    expected = numpy_gradients(PROBLEMS[1], derivative)
    with jax.enable_x64(False):
        loss, values = loss_of(PROBLEMS[1], derivative), values_of(PROBLEMS[1])
        found = jax.jit(jax.grad(loss, (0, 1, 2)))(*values)
        assert all(part.dtype == np.float32 for part in found)
    for ours, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-3, atol=1e-4)
