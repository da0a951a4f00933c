# SPDX-License-Identifier: Apache-2.0
"""Second derivatives of the JAX layer, in every composition of modes."""

from __future__ import annotations

import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

from cvxlayer.errors import UnsupportedDerivativeError  # noqa: E402
from tests.catalog.smooth_problems import SMOOTH, smooth_case  # noqa: E402
from tests.jax.differences import (  # noqa: E402
    assert_close,
    difference,
    flat,
    layer_of,
    real_function,
    unflat,
    values_of,
)

each_case = pytest.mark.parametrize("case", SMOOTH, ids=str)
# Differences of first derivatives, which are as accurate as the refined point.
DIFFERENCE_TOLERANCE = 5e-6
ROUNDING = 1e-8


def loss_of(case, rng):
    """Return a smooth function of one real vector that sees every output, and a point."""
    values = values_of(case, rng)
    function = real_function(layer_of(case), values)

    def loss(point):
        outputs = function(point)
        return jnp.sum(jnp.sin(outputs * (1 + jnp.arange(outputs.size))))

    return loss, flat(values)


@each_case
def test_the_hessian_equals_differences_of_gradients(case, rng):
    loss, point = loss_of(case, rng)
    direction = jnp.asarray(rng.normal(size=point.shape))
    expected = difference(jax.jit(jax.grad(loss)), point, direction)
    assert_close(jax.jit(jax.hessian(loss))(point) @ direction, expected, DIFFERENCE_TOLERANCE)


@each_case
def test_hessians_of_every_composition_are_equal_and_symmetric(case, rng):
    loss, point = loss_of(case, rng)
    hessian = jax.jit(jax.jacfwd(jax.grad(loss)))(point)
    assert_close(hessian, hessian.T, ROUNDING)
    assert_close(jax.jit(jax.jacrev(jax.grad(loss)))(point), hessian, ROUNDING)
    assert_close(jax.jit(jax.jacfwd(jax.jacfwd(loss)))(point), hessian, ROUNDING)
    assert_close(jax.jit(jax.jacrev(jax.jacfwd(loss)))(point), hessian, ROUNDING)


@pytest.mark.parametrize("name", ["linear", "maximize", "second_order", "geometric"])
def test_the_hessian_of_the_value_equals_differences_of_gradients(name, rng):
    case = smooth_case(name)
    values, layer = values_of(case, rng), layer_of(case)
    point = flat(values)

    def value(point):
        return layer.solve(*unflat(point, values)).value

    direction = jnp.asarray(rng.normal(size=point.shape))
    expected = difference(jax.jit(jax.grad(value)), point, direction)
    assert_close(jax.jit(jax.hessian(value))(point) @ direction, expected, DIFFERENCE_TOLERANCE)


@pytest.mark.parametrize("name", ["quadratic", "second_order", "semidefinite", "geometric"])
def test_vmap_of_hessian_vector_products_equals_a_loop(name, rng):
    loss, point = loss_of(smooth_case(name), rng)
    points = point + 0.01 * jnp.asarray(rng.normal(size=(3, *point.shape)))
    directions = jnp.asarray(rng.normal(size=points.shape))

    def product(point, direction):
        return jax.jvp(jax.grad(loss), (point,), (direction,))[1]

    found = jax.jit(jax.vmap(product))(points, directions)
    for row in range(3):
        assert_close(found[row], product(points[row], directions[row]), ROUNDING)


def test_problems_with_linear_constraints_have_third_derivatives(rng):
    loss, point = loss_of(smooth_case("quadratic"), rng)
    along = jnp.asarray(rng.normal(size=point.shape))

    def second(point):
        return jax.jvp(jax.grad(loss), (point,), (along,))[1]

    _, found = jax.jit(lambda point: jax.jvp(second, (point,), (along,)))(point)
    assert_close(found, difference(jax.jit(second), point, along), DIFFERENCE_TOLERANCE)


def test_third_derivatives_of_curved_cones_are_refused(rng):
    loss, point = loss_of(smooth_case("second_order"), rng)
    with pytest.raises(UnsupportedDerivativeError, match="differentiated three times"):
        jax.jacfwd(jax.jacfwd(jax.jacfwd(loss)))(point)
