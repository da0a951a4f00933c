# SPDX-License-Identifier: Apache-2.0
"""Where parameters may be: in arguments, pytrees, closures, shared by a batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.catalog.frameworks import Kit

TOLERANCE = 1e-10
W = 0.3 * np.random.default_rng(2).standard_normal((3, 3))
INPUTS = np.random.default_rng(3).standard_normal((4, 3))


def closed_over(kit: Kit, inputs: Any) -> Any:
    """W ↦ Σ z, where the map reaches W and its input through a closure."""

    def total(weight: Any) -> Any:
        solve = kit.implicit.fixed_point(lambda z: kit.numpy.tanh(weight @ z + inputs))
        return kit.numpy.sum(solve(kit.array(np.zeros(3))))

    return total


def given(kit: Kit, inputs: Any) -> Any:
    """The same with W as an argument."""
    solve = kit.implicit.fixed_point(lambda z, weight: kit.numpy.tanh(weight @ z + inputs))
    return lambda weight: kit.numpy.sum(solve(kit.array(np.zeros(3)), weight))


def test_a_captured_array_gets_the_gradient_of_an_argument(kit: Kit) -> None:
    inputs, weight = kit.array(INPUTS[0]), kit.array(W)
    captured = kit.to_numpy(kit.compile(kit.grad(closed_over(kit, inputs)))(weight))
    expected = kit.to_numpy(kit.compile(kit.grad(given(kit, inputs)))(weight))
    assert np.max(np.abs(expected)) > 0.1
    np.testing.assert_allclose(captured, expected, atol=TOLERANCE)


def test_a_captured_array_may_be_mapped(kit: Kit) -> None:
    weights = np.stack([W, 0.5 * W])
    inputs = kit.array(INPUTS[0])
    mapped = kit.compile(kit.vmap(kit.grad(closed_over(kit, inputs))))(kit.array(weights))
    single = kit.compile(kit.grad(given(kit, inputs)))
    for index in range(2):
        expected = kit.to_numpy(single(kit.array(weights[index])))
        np.testing.assert_allclose(kit.to_numpy(mapped)[index], expected, atol=TOLERANCE)


def test_a_captured_array_has_second_derivatives(kit: Kit) -> None:
    def total(b: Any) -> Any:
        solve = kit.implicit.root(lambda z: z**3 - b)
        return kit.numpy.sum(solve(kit.array([1.0])))

    second = kit.to_numpy(kit.compile(kit.hessian(total))(kit.array([2.0])))
    np.testing.assert_allclose(second, [[-2 / 9 * 2.0 ** (-5 / 3)]], atol=TOLERANCE)


def test_gradients_of_shared_parameters_are_summed_over_the_batch(kit: Kit) -> None:
    solve = kit.implicit.fixed_point(
        lambda z, weight, inputs: kit.numpy.tanh(z @ weight.T + inputs), batch_dims=1
    )
    start, inputs = kit.array(np.zeros((4, 3))), kit.array(INPUTS)
    loss = kit.grad(lambda weight: kit.numpy.sum(solve(start, weight, inputs)))
    shared = kit.to_numpy(kit.compile(loss)(kit.array(W)))
    single = kit.compile(kit.grad(lambda weight, one: given(kit, one)(weight)))
    each = [kit.to_numpy(single(kit.array(W), kit.array(one))) for one in INPUTS]
    np.testing.assert_allclose(shared, sum(each), atol=TOLERANCE)


def test_a_batch_equals_its_single_solves(kit: Kit) -> None:
    solve = kit.implicit.root(lambda z, theta: z**3 + z - theta, batch_dims=1)
    theta = kit.array([[-3.0], [0.5], [2.0]])
    report = solve.solve(kit.array(np.zeros((3, 1))), theta)
    for index in range(3):
        alone = solve.solve(kit.array(np.zeros((1, 1))), theta[index : index + 1])
        assert kit.to_numpy(alone.value)[0] == kit.to_numpy(report.value)[index]
        assert kit.to_numpy(alone.iterations)[0] == kit.to_numpy(report.iterations)[index]


def test_unknowns_and_parameters_are_pytrees(kit: Kit) -> None:
    @kit.implicit.root
    def solve(z: Any, theta: Any) -> Any:
        return {
            "sum": z["sum"] - z["parts"][0] - z["parts"][1],
            "parts": [z["parts"][0] - 2.0 * theta["a"], z["parts"][1] - theta["b"][0] ** 2],
        }

    start = {"sum": kit.array([0.0]), "parts": [kit.array([0.0]), kit.array([0.0])]}

    def total(a: Any, b: Any) -> Any:
        return kit.numpy.sum(solve(start, {"a": a, "b": (b, "a string")})["sum"])

    compiled = kit.compile(lambda a, b: [kit.grad(total, i)(a, b) for i in (0, 1)])
    slopes = compiled(kit.array([1.0]), kit.array([3.0]))
    np.testing.assert_allclose([float(slope[0]) for slope in slopes], [2.0, 6.0], atol=TOLERANCE)


def test_multipliers_are_differentiable(kit: Kit) -> None:
    # minimize ½ (x − θ)² subject to x ≤ 1: λ = θ − 1.
    clip = kit.implicit.argmin(
        lambda x, theta: 0.5 * kit.numpy.sum((x - theta) ** 2),
        inequality=lambda x, theta: x - 1.0,
    )

    def multiplier(theta: Any) -> Any:
        return clip.solve(kit.array([0.0]), theta).multipliers[1][0]

    assert abs(float(multiplier(kit.array([3.0]))) - 2.0) <= TOLERANCE
    slope = kit.to_numpy(kit.compile(kit.grad(multiplier))(kit.array([3.0])))
    np.testing.assert_allclose(slope, [1.0], atol=TOLERANCE)
