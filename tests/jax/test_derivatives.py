# SPDX-License-Identifier: Apache-2.0
"""First derivatives of the JAX layer: both modes, and under every transform."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

from tests.catalog.problems import PROBLEMS  # noqa: E402
from tests.catalog.smooth_problems import SMOOTH, smooth_case  # noqa: E402
from tests.jax.differences import (  # noqa: E402
    DIFFERENCE_TOLERANCE,
    ROUNDING,
    Layer,
    assert_close,
    difference,
    flat,
    layer_of,
    real_function,
    unflat,
    values_of,
)

each_case = pytest.mark.parametrize("case", SMOOTH, ids=str)


@each_case
def test_jvp_equals_finite_differences(case, rng):
    values = values_of(case, rng)
    function, point = real_function(layer_of(case), values), flat(values)
    direction = jnp.asarray(rng.normal(size=point.shape))
    _, moved = jax.jvp(function, (point,), (direction,))
    assert_close(moved, difference(function, point, direction), DIFFERENCE_TOLERANCE)


@each_case
def test_vjp_is_the_adjoint_of_jvp(case, rng):
    values = values_of(case, rng, 3)
    function, point = real_function(layer_of(case), values), flat(values)
    direction = jnp.asarray(rng.normal(size=point.shape))
    output, moved = jax.jvp(function, (point,), (direction,))
    weights = jnp.asarray(rng.normal(size=output.shape))
    (gradient,) = jax.vjp(function, point)[1](weights)
    assert_close(gradient @ direction, weights @ moved, ROUNDING)


@each_case
def test_the_gradient_of_the_value_equals_finite_differences(case, rng):
    values = values_of(case, rng, 2)
    layer, point = layer_of(case), flat(values)

    def value(vector):
        return layer.solve(*unflat(vector, values)).value.sum()

    direction = jnp.asarray(rng.normal(size=point.shape))
    slope = jax.grad(value)(point) @ direction
    assert_close(slope, difference(value, point, direction), DIFFERENCE_TOLERANCE)


@pytest.mark.parametrize("name", ["linear", "maximize", "second_order", "exponential", "geometric"])
def test_the_gradient_of_a_dual_of_the_solution_equals_finite_differences(name, rng):
    case = smooth_case(name)
    parts = case.build()
    layer = Layer(*parts, gp=case.gp, solver_args={"eps": 1e-12})
    values = values_of(case, rng)

    def dual(vector):
        return jnp.sum(layer.solve(*unflat(vector, values)).dual(parts[0].constraints[0]))

    point = flat(values)
    direction = jnp.asarray(rng.normal(size=point.shape))
    slope = jax.grad(dual)(point) @ direction
    assert_close(slope, difference(dual, point, direction), DIFFERENCE_TOLERANCE)


@each_case
def test_jacobians_of_both_modes_are_equal(case, rng):
    values = values_of(case, rng)
    function, point = real_function(layer_of(case), values), flat(values)
    assert_close(jax.jacfwd(function)(point), jax.jacrev(function)(point), ROUNDING)


@each_case
def test_vmap_of_gradients_equals_a_loop(case, rng):
    values = values_of(case, rng, 3)
    layer = layer_of(case)

    def loss(*values):
        return jnp.sum(flat(layer(*values)) ** 2)

    every = tuple(range(len(values)))
    batched = jax.vmap(jax.grad(loss, argnums=every))(*values)
    for row in range(3):
        alone = jax.grad(loss, argnums=every)(*[value[row] for value in values])
        assert_close([gradient[row] for gradient in batched], list(alone), ROUNDING)


@pytest.mark.parametrize("case", [case for case in SMOOTH if len(case.center) > 1], ids=str)
def test_a_shared_value_gets_the_sum_of_the_gradients_of_the_rows(case, rng):
    values = values_of(case, rng, 3)
    layer, first = layer_of(case), values[0][0]

    def loss(shared, *others):
        return jnp.sum(flat(layer(shared, *others)) ** 2)

    shared = jax.grad(loss)(first, *values[1:])
    spread = jax.grad(loss)(jnp.broadcast_to(first, values[0].shape), *values[1:])
    assert_close(shared, spread.sum(axis=0), ROUNDING)


@each_case
def test_compiled_and_plain_gradients_are_equal(case, rng):
    values = values_of(case, rng, 2)
    function, point = real_function(layer_of(case), values), flat(values)

    def loss(point):
        return jnp.sum(function(point) ** 2)

    assert_close(jax.jit(jax.grad(loss))(point), jax.grad(loss)(point), ROUNDING)


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_gradients_equal_those_of_torch(case, rng):
    torch = pytest.importorskip("torch")
    from cvxlayer.torch import Layer as TorchLayer  # needs torch

    parts, values = case.build(), case.sample_batch(rng, 3)
    tensors = [torch.from_numpy(np.array(value)).requires_grad_() for value in values]
    outputs = TorchLayer(*parts)(*tensors)
    weights = [rng.normal(size=output.shape) for output in outputs]
    terms = [
        (output * torch.from_numpy(w)).sum() for output, w in zip(outputs, weights, strict=True)
    ]
    expected = torch.autograd.grad(sum(terms), tensors)
    layer = Layer(*parts)

    def loss(values):
        return sum((o * w).sum() for o, w in zip(layer(*values), weights, strict=True))

    gradients = jax.grad(loss)([jnp.asarray(value) for value in values])
    # Both refine the solver's answer, and what is left of it is of this size.
    assert_close(gradients, [gradient.numpy() for gradient in expected], 1e-8)
