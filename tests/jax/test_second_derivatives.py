# SPDX-License-Identifier: Apache-2.0
"""Beyond second derivatives, which `tests/parity` has."""

from __future__ import annotations

import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

from cvxlayer.errors import UnsupportedDerivativeError  # noqa: E402
from tests.catalog.smooth_problems import smooth_case  # noqa: E402
from tests.jax.differences import (  # noqa: E402
    assert_close,
    difference,
    flat,
    layer_of,
    real_function,
    values_of,
)

# Differences of second derivatives, which are as accurate as the refined point.
DIFFERENCE_TOLERANCE = 5e-6


def loss_of(case, rng):
    """Return a smooth function of one real vector that sees every output, and a point."""
    values = values_of(case, rng)
    function = real_function(layer_of(case), values)

    def loss(point):
        outputs = function(point)
        return jnp.sum(jnp.sin(outputs * (1 + jnp.arange(outputs.size))))

    return loss, flat(values)


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
