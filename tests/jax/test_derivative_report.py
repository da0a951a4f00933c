# SPDX-License-Identifier: Apache-2.0
"""The derivative report inside and outside of compiled code."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

import cvxlayer  # noqa: E402
from cvxlayer.program.derivative_report import DerivativeReport, DerivativeTest  # noqa: E402

# Regular, a kink, no solution.
POINTS = np.array([[2.0, 0.5], [-1.0, 0.0], [0.0, 0.0]])
FAR = np.array([-9.0, -9.0, 5.0])


@pytest.fixture(scope="module")
def layer() -> cvxlayer.Layer:
    x, point, far = cp.Variable(2, name="x"), cp.Parameter(2), cp.Parameter()
    constraints = [x[0] <= 1, x[1] >= 0, x[0] >= far]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), constraints)
    return cvxlayer.Layer(problem, [point, far], [x], on_failure="nan")


def check(report: DerivativeReport) -> None:
    assert isinstance(report.margin, jax.Array)
    assert report.failed.tolist() == [0, 2, 1]
    assert report.exists.tolist() == [True, False, False]
    assert report.constraints(1) == ("0.0 <= x[1]",)
    assert report.tests_failed(2) is DerivativeTest.SOLUTION
    assert np.isnan(np.asarray(report.margin)).tolist() == [False, False, True]


def test_outside_of_compiled_code(layer: cvxlayer.Layer) -> None:
    check(layer.solve(jnp.asarray(POINTS), jnp.asarray(FAR)).derivative)


def test_inside_of_compiled_code(layer: cvxlayer.Layer) -> None:
    compiled = jax.jit(lambda points, far: layer.solve(points, far).derivative)
    check(compiled(POINTS, FAR))


def test_after_a_solution_left_compiled_code(layer: cvxlayer.Layer) -> None:
    check(jax.jit(layer.solve)(jnp.asarray(POINTS), jnp.asarray(FAR)).derivative)


def test_the_figures_are_those_of_numpy(layer: cvxlayer.Layer) -> None:
    here = layer.solve(jnp.asarray(POINTS), jnp.asarray(FAR)).derivative
    there = layer.solve(POINTS, FAR).derivative
    np.testing.assert_allclose(here.margin, there.margin, rtol=1e-5)
    np.testing.assert_allclose(here.condition, there.condition, rtol=1e-3)
    np.testing.assert_array_equal(here.involved, there.involved)


@pytest.mark.parametrize("transform", [jax.vmap, lambda f: jax.jit(jax.vmap(f))])
def test_under_vmap(layer: cvxlayer.Layer, transform: object) -> None:
    def failed(point: jax.Array, far: jax.Array) -> jax.Array:
        return layer.solve(point, far).derivative.failed

    found = transform(failed)(jnp.asarray(POINTS), jnp.asarray(FAR))
    assert found.tolist() == [0, 2, 1]


def test_a_loss_may_leave_out_rows_without_a_derivative(layer: cvxlayer.Layer) -> None:
    def loss(points: jax.Array) -> jax.Array:
        solution = layer.solve(points, jnp.asarray(FAR))
        keep = solution.derivative.exists[:, None]
        return jnp.where(keep, solution.variables[0], 0.0).sum()

    for gradient in (jax.grad(loss), jax.jit(jax.grad(loss))):
        np.testing.assert_allclose(
            gradient(jnp.asarray(POINTS)), [[0, 1], [0, 0], [0, 0]], atol=1e-6
        )
