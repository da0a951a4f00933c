# SPDX-License-Identifier: Apache-2.0
"""Gradients of the JAX layer in compiled and plain code; `tests/parity` has all derivatives."""

from __future__ import annotations

import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

from tests.catalog.smooth_problems import SMOOTH  # noqa: E402
from tests.jax.differences import (  # noqa: E402
    ROUNDING,
    assert_close,
    flat,
    layer_of,
    real_function,
    values_of,
)

each_case = pytest.mark.parametrize("case", SMOOTH, ids=str)


@each_case
def test_compiled_and_plain_gradients_are_equal(case, rng):
    values = values_of(case, rng, 2)
    function, point = real_function(layer_of(case), values), flat(values)

    def loss(point):
        return jnp.sum(function(point) ** 2)

    assert_close(jax.jit(jax.grad(loss))(point), jax.grad(loss)(point), ROUNDING)
