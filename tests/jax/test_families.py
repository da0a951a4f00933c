# SPDX-License-Identifier: Apache-2.0
"""Implicit functions under JAX's transforms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import cvxlayer.jax as cvx  # noqa: E402
from cvxlayer.errors import OptionError  # noqa: E402
from tests.catalog.frameworks import JaxKit  # noqa: E402


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with JaxKit().double_precision():
        yield


def cube_root(theta: Any, **options: Any) -> Any:
    return cvx.root(lambda z, theta: z**3 - theta, **options)(jnp.ones_like(theta), theta)


def test_failures_under_jit_are_nan_and_so_are_their_gradients() -> None:
    solve = cvx.fixed_point(
        lambda z, b: 2.0 * z + b, solver=cvx.Picard(max_iterations=20), batch_dims=1
    )
    total = jax.value_and_grad(lambda b: jnp.sum(solve(jnp.zeros((1, 1)), b)))
    value, gradient = jax.jit(total)(jnp.ones((1, 1)))
    assert np.isnan(value)
    assert np.all(np.isnan(gradient))


def test_the_report_is_arrays_under_jit() -> None:
    solve = cvx.root(lambda z, theta: z**3 - theta, batch_dims=1)
    theta = jnp.asarray([[2.0], [3.0]])
    # A solution is no pytree on purpose: what is asked of it is chosen by name.
    names = ("value", "converged", "residual", "iterations")
    values = jax.jit(
        lambda theta: [getattr(solve.solve(jnp.ones_like(theta), theta), n) for n in names]
    )(theta)
    assert [value.shape for value in values] == [(2, 1), (2,), (2,), (2,)]
    assert bool(values[1].all())


def test_it_may_be_scanned() -> None:
    def body(carry: Any, _: None) -> tuple[Any, Any]:
        carry = cube_root(carry)
        return carry, carry

    total = jax.jit(jax.grad(lambda x: jnp.sum(jax.lax.scan(body, x, None, length=2)[0])))
    np.testing.assert_allclose(total(jnp.asarray([2.0])), [2.0 ** (-8 / 9) / 9], atol=1e-10)


def test_checkpoint_changes_nothing() -> None:
    slope = jax.jit(jax.grad(lambda x: jnp.sum(jax.checkpoint(cube_root)(x))))
    np.testing.assert_allclose(slope(jnp.asarray([2.0])), [2.0 ** (-2 / 3) / 3], atol=1e-10)


def test_third_derivatives_exist() -> None:
    third = jax.jit(jax.grad(jax.grad(jax.grad(lambda x: cube_root(x[None])[0]))))
    np.testing.assert_allclose(third(jnp.asarray(2.0)), 10 / 27 * 2.0 ** (-8 / 3), atol=1e-10)


def test_single_precision_needs_no_setting() -> None:
    with jax.enable_x64(False):
        slope = jax.jit(jax.grad(lambda x: jnp.sum(cube_root(x))))(jnp.asarray([2.0]))
    assert slope.dtype == jnp.float32
    np.testing.assert_allclose(slope, [2.0 ** (-2 / 3) / 3], rtol=1e-4)


def test_a_listener_is_told_from_compiled_code() -> None:
    told: list[Any] = []
    backward = cvx.Exact(listener=lambda residual, iterations: told.append(residual))
    slope = jax.jit(jax.grad(lambda x: jnp.sum(cube_root(x, backward=backward))))
    slope(jnp.asarray([2.0])).block_until_ready()
    jax.effects_barrier()
    assert len(told) == 1
    assert float(np.max(told[0])) <= 1e-12


def test_check_passes_where_the_derivative_is_right() -> None:
    value = cube_root(jnp.asarray([2.0]), check=True)
    np.testing.assert_allclose(value, [2.0 ** (1 / 3)], atol=1e-10)


def test_check_is_refused_under_jit() -> None:
    with pytest.raises(OptionError, match="outside of jit"):
        jax.jit(lambda x: cube_root(x, check=True))(jnp.asarray([2.0]))


def test_integers_among_the_parameters_have_no_derivative() -> None:
    solve = cvx.root(lambda z, power, theta: z**power - theta)
    slope = jax.jit(jax.grad(lambda theta: jnp.sum(solve(jnp.ones(1), jnp.asarray(3), theta))))
    np.testing.assert_allclose(slope(jnp.asarray([2.0])), [2.0 ** (-2 / 3) / 3], atol=1e-10)
