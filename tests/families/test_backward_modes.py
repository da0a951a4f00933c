# SPDX-License-Identifier: Apache-2.0
"""Each choice of `backward=` against its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cvxlayer.errors import ConvergenceError, UnsupportedDerivativeError
from tests.catalog.frameworks import Kit

TOLERANCE = 1e-11
W = 0.4 * np.random.default_rng(0).standard_normal((4, 4))
B, V = np.random.default_rng(1).standard_normal((2, 4))


def layer(kit: Kit, backward: Any, solver: Any = None) -> Any:
    """b ↦ z with z = tanh(W z + b)."""
    weight = kit.array(W)
    solve = kit.implicit.fixed_point(
        lambda z, b: kit.numpy.tanh(weight @ z + b),
        solver=solver,
        backward=backward,
        tolerance=1e-13,
    )
    return lambda b: solve(kit.array(np.zeros(4)), b)


def linearization() -> tuple[np.ndarray, np.ndarray]:
    """The Jacobians of the map in z and in b at the fixed point."""
    z = np.zeros(4)
    for _ in range(500):
        z = np.tanh(W @ z + B)
    slope = np.diag(1.0 - z**2)
    return slope @ W, slope


def gradient(kit: Kit, function: Any) -> np.ndarray:
    cotangent = kit.array(V)
    loss = kit.grad(lambda b: kit.numpy.sum(cotangent * function(b)))
    return kit.to_numpy(kit.compile(loss)(kit.array(B)))


@pytest.mark.parametrize(
    ("name", "arguments", "tau", "count"),
    [
        ("OneStep", (), 1.0, 1),
        ("Neumann", (1,), 1.0, 1),
        ("Neumann", (4,), 1.0, 4),
        ("Phantom", (0.5, 3), 0.5, 3),
    ],
)
def test_a_series_has_as_many_terms_as_it_says(
    kit: Kit, name: str, arguments: tuple[Any, ...], tau: float, count: int
) -> None:
    J, slope = linearization()
    power = np.eye(4) - tau * (np.eye(4) - J)
    series = tau * sum(np.linalg.matrix_power(power, i) for i in range(count))
    found = gradient(kit, layer(kit, getattr(kit.implicit, name)(*arguments)))
    np.testing.assert_allclose(found, slope.T @ series.T @ V, atol=TOLERANCE)


def test_a_series_in_forward_mode_is_the_transpose(kit: Kit) -> None:
    function = layer(kit, kit.implicit.Neumann(3))
    compiled = kit.compile(lambda b: (kit.jacfwd(function)(b), kit.jacrev(function)(b)))
    forward, reverse = (kit.to_numpy(part) for part in compiled(kit.array(B)))
    np.testing.assert_allclose(forward, reverse, atol=TOLERANCE)


@pytest.mark.parametrize("make", ["OneStep()", "Neumann(2)", "Phantom(0.5, 2)"])
def test_an_approximate_gradient_has_no_second_derivative(kit: Kit, make: str) -> None:
    function = layer(kit, eval(f"kit.implicit.{make}"))
    with pytest.raises(UnsupportedDerivativeError, match="was differentiated again"):
        kit.jacrev(kit.jacrev(function))(kit.array(B))


def test_a_diverging_series_gives_no_finite_gradient(kit: Kit) -> None:
    # The fixed point of an expansive map, found by Newton's method.
    solve = kit.implicit.fixed_point(
        lambda z, b: 3.0 * z + b, solver=kit.implicit.Newton(), backward=kit.implicit.Neumann(5)
    )
    loss = kit.grad(lambda b: kit.numpy.sum(solve(kit.array(np.zeros(2)), b)))
    if kit.name == "torch":
        with pytest.raises(ConvergenceError, match="Neumann series diverges"):
            loss(kit.array([1.0, 2.0]))
    else:
        assert np.all(np.isnan(kit.to_numpy(loss(kit.array([1.0, 2.0])))))


@pytest.mark.parametrize("last", [None, 3, 1000])
def test_unrolling_is_autodiff_of_the_loop(kit: Kit, last: int | None) -> None:
    solver = kit.implicit.Picard(max_iterations=60)
    backward = kit.implicit.Unroll(last=last if last != 1000 else 60)
    weight = kit.array(W)
    solve = kit.implicit.fixed_point(
        lambda z, b: kit.numpy.tanh(weight @ z + b), solver=solver, backward=backward
    )
    start = kit.array(np.full(4, 0.1))
    total = int(kit.to_numpy(solve.solve(start, kit.array(B)).iterations))
    recorded = total if last is None else min(last, total)
    assert total > 10

    def by_hand(b: Any) -> Any:
        z = start
        for step in range(total):
            inputs = b if step >= total - recorded else kit.array(B)
            z = kit.numpy.tanh(weight @ z + inputs)
        return z

    found = gradient(kit, lambda b: solve(start, b))
    np.testing.assert_allclose(found, gradient(kit, by_hand), atol=1e-14)


def test_unrolling_all_of_a_loop_differentiates_the_initial_guess(kit: Kit) -> None:
    halve = kit.implicit.fixed_point(
        lambda z: 0.5 * z,
        solver=kit.implicit.Picard(tolerance=1e-3, max_iterations=20),
        backward=kit.implicit.Unroll(),
    )
    start = kit.array([1.0])
    steps = int(kit.to_numpy(halve.solve(start).iterations))
    slope = kit.to_numpy(kit.grad(lambda z: kit.numpy.sum(halve(z)))(start))
    np.testing.assert_allclose(slope, [0.5**steps], rtol=1e-14)


def test_the_exact_gradient_is_the_limit_of_unrolling(kit: Kit) -> None:
    exact = gradient(kit, layer(kit, kit.implicit.Exact()))
    solver = kit.implicit.Picard(max_iterations=100)
    unrolled = gradient(kit, layer(kit, kit.implicit.Unroll(last=60), solver))
    np.testing.assert_allclose(unrolled, exact, atol=1e-10)


def test_newton_unrolled_once_from_the_solution_is_exact(kit: Kit) -> None:
    exact = gradient(kit, layer(kit, kit.implicit.Exact()))
    newton = gradient(kit, layer(kit, kit.implicit.Unroll(last=1), kit.implicit.Newton()))
    # Its last step starts where the residual is still 1e-7 or so.
    np.testing.assert_allclose(newton, exact, atol=1e-5)
