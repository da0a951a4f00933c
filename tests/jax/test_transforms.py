# SPDX-License-Identifier: Apache-2.0
"""The JAX layer under transforms, in loops, over devices, and inside modules of others."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

from tests.catalog.smooth_problems import SMOOTH, smooth_case  # noqa: E402
from tests.jax.differences import ROUNDING, assert_close, flat, layer_of, values_of  # noqa: E402

each_case = pytest.mark.parametrize("case", SMOOTH, ids=str)
each_of_a_few = pytest.mark.parametrize(
    "case", [smooth_case(name) for name in ("linear", "second_order", "geometric")], ids=str
)


def test_vmap_may_take_any_axis_and_leave_values_out(rng):
    case = smooth_case("maximize")
    layer = layer_of(case)
    weights, limits = values_of(case, rng, 3)
    found = jax.vmap(layer, in_axes=(1, None), out_axes=(1, 0))(weights.T, limits[0])
    assert_close(found[0].T, layer(weights, limits[0])[0], ROUNDING)


def test_vmap_of_a_batch_multiplies_the_rows(rng):
    case = smooth_case("maximize")
    layer = layer_of(case)
    weights, limits = values_of(case, rng, 4, 3)
    found = jax.vmap(layer, in_axes=(0, None))(weights, limits[0])
    expected = [layer(rows, limits[0])[0] for rows in weights]
    assert_close(found[0], jnp.stack(expected), ROUNDING)


@each_of_a_few
def test_scan_equals_a_loop(case, rng):
    layer, values = layer_of(case), values_of(case, rng, 3)

    @jax.jit
    def total(values):
        def step(carry, row):
            outputs = flat(layer(*row))
            return carry + outputs.sum(), outputs

        return jax.lax.scan(step, 0.0, values)

    carry, rows = total(values)
    expected = [flat(layer(*[value[row] for value in values])) for row in range(3)]
    assert_close(rows, jnp.stack(expected), ROUNDING)
    assert_close(carry, jnp.stack(expected).sum(), ROUNDING)


def test_gradients_through_scan_equal_those_of_a_loop(rng):
    case = smooth_case("second_order")
    layer, (c, radius) = layer_of(case), values_of(case, rng)

    def by_scan(c):
        def step(x, _):
            return layer(c + 0.1 * x, radius)[0], None

        return jnp.sum(jax.lax.scan(step, c, None, length=3)[0] ** 3)

    def by_loop(c):
        x = c
        for _ in range(3):
            x = layer(c + 0.1 * x, radius)[0]
        return jnp.sum(x**3)

    assert_close(jax.grad(by_scan)(c), jax.grad(by_loop)(c), ROUNDING)


@each_of_a_few
def test_map_equals_a_batch(case, rng):
    layer, values = layer_of(case), values_of(case, rng, 3)
    assert_close(jax.lax.map(lambda row: layer(*row), values), layer(*values), ROUNDING)


@each_of_a_few
def test_checkpoint_changes_no_gradient(case, rng):
    layer, values = layer_of(case), values_of(case, rng)

    def loss(values):
        return jnp.sum(flat(layer(*values)) ** 2)

    plain, again = jax.grad(loss)(values), jax.grad(jax.checkpoint(loss))(values)
    assert_close(again, plain, ROUNDING)


def test_cond_runs_one_branch(rng):
    case = smooth_case("maximize")
    layer, values = layer_of(case), values_of(case, rng)

    @jax.jit
    def choose(flag, *values):
        return jax.lax.cond(flag, lambda v: layer(*v)[0], lambda v: v[0], values)

    assert_close(choose(True, *values), layer(*values)[0], ROUNDING)
    assert_close(choose(False, *values), values[0], 0)


ON_TWO_DEVICES = """
    import functools
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import NamedSharding, PartitionSpec
    from tests.catalog.smooth_problems import smooth_case
    from tests.jax.differences import ROUNDING, assert_close, layer_of, values_of

    assert len(jax.devices()) == 2
    jax.config.update("jax_enable_x64", True)
    case, rng = smooth_case("second_order"), np.random.default_rng(0)
    layer, (c, radius) = layer_of(case), values_of(case, rng, 4)
    for kind in (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit):
        mesh = jax.make_mesh((2,), ("i",), axis_types=(kind,))
        spec, whole = PartitionSpec("i"), PartitionSpec()
        over, everywhere = NamedSharding(mesh, spec), NamedSharding(mesh, whole)
        rows = jax.device_put(c, over)

        def loss(c, radius):
            return jnp.sum(layer(c, radius)[0] ** 3)

        with jax.set_mesh(mesh):
            {body}
"""
BODIES = {
    "shard_map": """
            split = functools.partial(jax.shard_map, mesh=mesh)
            shared = jax.device_put(radius[0], everywhere)
            found = jax.jit(split(layer, in_specs=(spec, whole), out_specs=spec))(rows, shared)
            assert found[0].sharding.is_equivalent_to(over, 2), found[0].sharding
            assert_close(jax.device_get(found), layer(c, radius[0]), ROUNDING)
            local = split(
                lambda c, r: jax.lax.psum(loss(c, r), "i"), in_specs=(spec, whole), out_specs=whole
            )
            gradients = jax.jit(jax.grad(local, argnums=(0, 1)))(rows, shared)
            expected = jax.grad(loss, argnums=(0, 1))(c, radius[0])
            assert_close(jax.device_get(gradients), expected, ROUNDING)
    """,
    "sharded values": """
            if kind is jax.sharding.AxisType.Explicit:
                continue
            found = jax.jit(layer)(rows, jax.device_put(radius, over))
            assert_close(jax.device_get(found), layer(c, radius), ROUNDING)
            gradient = jax.jit(jax.grad(loss))(rows, jax.device_put(radius, over))
            assert_close(jax.device_get(gradient), jax.grad(loss)(c, radius), ROUNDING)
    """,
}


@pytest.mark.parametrize("body", BODIES)
def test_a_batch_may_be_spread_over_devices(body):
    code = textwrap.dedent(ON_TWO_DEVICES).replace(
        "        {body}", textwrap.dedent(BODIES[body]).replace("\n", "\n        ")
    )
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    root = Path(__file__).resolve().parents[2]
    environment["PYTHONPATH"] = str(root)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr


def test_many_compiled_calls_at_once_do_not_wait_for_each_other(rng):
    from concurrent.futures import ThreadPoolExecutor

    case = smooth_case("second_order")
    layer, values = layer_of(case, on_failure="nan"), values_of(case, rng, 8)
    expected = layer(*values)
    function = jax.jit(layer)

    def run(_):
        # The setting of this test is one of its thread.
        with jax.enable_x64(True):
            return function(*values)

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(run, range(32)):
            assert_close(found, expected, ROUNDING)


def test_code_that_compiled_in_one_process_runs_in_another(tmp_path):
    """JAX's cache on disk keeps compiled code, which finds the same program by its digest."""
    code = """
        import jax, jax.numpy as jnp, numpy as np
        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        from tests.catalog.smooth_problems import smooth_case
        from tests.jax.differences import layer_of, values_of
        for name in ("second_order", "exponential"):
            case = smooth_case(name)
            values = values_of(case, np.random.default_rng(0), 2)
            print(np.asarray(jax.jit(layer_of(case))(*values)[0]).tobytes().hex())
    """
    root = Path(__file__).resolve().parents[2]
    environment = dict(os.environ, JAX_COMPILATION_CACHE_DIR=str(tmp_path), PYTHONPATH=str(root))
    outputs = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=root,
        ).stdout
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1] != ""


def test_a_layer_is_a_field_of_an_equinox_module(rng):
    eqx = pytest.importorskip("equinox")
    case = smooth_case("maximize")
    weight, limit = values_of(case, rng)

    class Model(eqx.Module):
        linear: eqx.nn.Linear
        layer: object

        def __call__(self, value):
            return self.layer(self.linear(value), limit)[0]

    model = Model(eqx.nn.Linear(2, 2, key=jax.random.key(0)), layer_of(case))
    gradients = eqx.filter_jit(eqx.filter_grad(lambda model: jnp.sum(model(weight) ** 2)))(model)
    assert gradients.linear.weight.shape == (2, 2)
    assert bool(jnp.any(gradients.linear.weight != 0))


def test_a_layer_is_a_part_of_a_flax_module(rng):
    nn = pytest.importorskip("flax.linen")
    case = smooth_case("maximize")
    weight, limit = values_of(case, rng)

    class Model(nn.Module):
        layer: object

        @nn.compact
        def __call__(self, value):
            return self.layer(nn.Dense(2)(value), limit)[0]

    model = Model(layer_of(case))
    parameters = model.init(jax.random.key(0), weight)
    gradients = jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, weight) ** 2)))(parameters)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
    assert any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradients))


def test_a_layer_has_no_leaves(rng):
    assert jax.tree.leaves(layer_of(smooth_case("maximize"))) == []


def test_global_settings_stay_as_they_are(rng):
    case = smooth_case("maximize")
    with jax.enable_x64(False):
        before = dict(jax.config.values)
        layer = layer_of(case)
        values = [jnp.asarray(value) for value in case.sample(rng, 2)]
        jax.jit(jax.grad(lambda v: jnp.sum(layer(*v)[0])))(values)
        assert dict(jax.config.values) == before
        assert np.asarray(layer(*values)[0]).dtype == np.float32
