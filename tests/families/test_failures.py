# SPDX-License-Identifier: Apache-2.0
"""What is not solved is never differentiated with confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cvxlayer.errors import ConvergenceError, OptionError, ParameterValueError, ShapeError
from tests.catalog.frameworks import Kit


def square_root(kit: Kit, **options: Any) -> Any:
    """z² = scale · θ for each of a batch: row i has no solution where θ_i is negative."""
    return kit.implicit.root(
        lambda z, theta, scale: z**2 - scale * theta[:, None], batch_dims=1, **options
    )


@pytest.mark.parametrize("solver", ["Picard", "Anderson"])
def test_a_map_without_a_fixed_point_raises(kit: Kit, solver: str) -> None:
    chosen = getattr(kit.implicit, solver)(max_iterations=30)
    shift = kit.implicit.fixed_point(lambda z, theta: z + theta, solver=chosen)
    with pytest.raises(ConvergenceError, match="did not converge after 30 steps") as caught:
        shift(kit.array([0.0]), kit.array([1.0]))
    assert caught.value.indices == [0]


def test_an_expansive_map_raises_under_plain_iteration(kit: Kit) -> None:
    double = kit.implicit.fixed_point(lambda z, b: 2.0 * z + b, solver=kit.implicit.Picard())
    with pytest.raises(ConvergenceError, match="expands has no fixed point"):
        kit.grad(lambda b: kit.numpy.sum(double(kit.array([1.0]), b)))(kit.array([1.0]))


def test_only_the_rows_that_fail_are_named(kit: Kit) -> None:
    theta = kit.array([4.0, -1.0, 9.0])
    with pytest.raises(ConvergenceError, match=r"1 of 3 .* at row\(s\) \[1\]"):
        square_root(kit)(kit.array(np.ones((3, 1))), theta, kit.array(1.0))


def test_failed_rows_are_nan_and_give_exactly_zero_gradients(kit: Kit) -> None:
    solve = square_root(kit, on_failure="nan")
    start = kit.array(np.ones((3, 1)))

    def total(theta: Any, scale: Any) -> Any:
        z = solve(start, theta, scale)
        return kit.numpy.sum(kit.numpy.where(kit.numpy.isnan(z), 0.0 * z, z))

    theta, scale = kit.array([4.0, -1.0, 9.0]), kit.array(1.0)
    values = kit.to_numpy(solve(start, theta, scale))[:, 0]
    np.testing.assert_allclose(values, [2.0, np.nan, 3.0], atol=1e-10)
    each = kit.to_numpy(kit.compile(kit.grad(total))(theta, scale))
    assert each[1] == 0.0
    np.testing.assert_allclose(each[[0, 2]], [1 / 4, 1 / 6], atol=1e-10)
    shared = kit.to_numpy(kit.compile(kit.grad(lambda s: total(theta, s)))(scale))
    np.testing.assert_allclose(shared, 1.0 + 1.5, atol=1e-10)


def singular(kit: Kit, **options: Any) -> Any:
    """Two copies of one equation: a solution, but no derivative."""

    def residual(z: Any, theta: Any) -> Any:
        value = z[0] + z[1] - theta[0]
        return kit.numpy.stack([value, 2.0 * value])

    def solver(initial: Any, theta: Any) -> Any:
        return kit.numpy.stack([0.5 * theta[0], 0.5 * theta[0]])

    solve = kit.implicit.root(residual, solver=solver, **options)
    return lambda theta: kit.numpy.sum(solve(kit.array([0.0, 0.0]), theta)[0])


def test_a_singular_jacobian_gives_no_finite_gradient(kit: Kit) -> None:
    theta = kit.array([1.0])
    gradient = kit.grad(singular(kit))
    if kit.name == "torch":
        with pytest.raises(ConvergenceError, match="linear system of a derivative was not solved"):
            gradient(theta)
    else:
        assert np.all(np.isnan(kit.to_numpy(gradient(theta))))


def test_least_squares_differentiates_a_consistent_singular_system(kit: Kit) -> None:
    backward = kit.implicit.Exact(solver=kit.implicit.LSMR())
    tangent = kit.to_numpy(kit.jacfwd(singular(kit, backward=backward))(kit.array([1.0])))
    np.testing.assert_allclose(tangent, [0.5], atol=1e-12)


def test_a_saddle_point_is_not_differentiated_as_a_minimum(kit: Kit) -> None:
    saddle = kit.implicit.argmin(
        lambda x, theta: x[0] ** 2 - x[1] ** 2 + theta[0] * x[0],
        solver=lambda initial, theta: kit.numpy.stack([-0.5 * theta[0], 0.0 * theta[0]]),
        on_failure="nan",
    )
    gradient = kit.grad(lambda theta: saddle(kit.array([0.0, 0.0]), theta)[0])
    if kit.name == "torch":
        with pytest.warns(UserWarning, match="The derivative is NaN there"):
            value = gradient(kit.array([1.0]))
    else:
        value = gradient(kit.array([1.0]))
    assert np.all(np.isnan(kit.to_numpy(value)))


def test_a_users_wrong_answer_raises(kit: Kit) -> None:
    solve = kit.implicit.root(lambda z, theta: z - theta, solver=lambda initial, theta: initial)
    with pytest.raises(ConvergenceError, match=r"residual is 1\.0e\+00 where 1\.0e-06"):
        solve(kit.array([0.0]), kit.array([1.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_failure": "nam"}, "Did you mean `nan`"),
        ({"backward": "exact"}, r"must be `Exact\(\)`"),
        ({"solver": 3}, "must be a solver"),
    ],
    ids=["on_failure", "backward", "solver"],
)
def test_wrong_options_are_refused(kit: Kit, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        kit.implicit.root(lambda z: z, **options)


def test_steps_of_a_users_solver_cannot_be_counted(kit: Kit) -> None:
    with pytest.raises(OptionError, match="steps can be counted"):
        kit.implicit.root(lambda z: z, solver=lambda z: z, backward=kit.implicit.Unroll(last=2))


@pytest.mark.parametrize("make", ["Neumann(0)", "Phantom(2.0, 3)", "Unroll(last=0)"])
def test_backward_modes_check_their_numbers(kit: Kit, make: str) -> None:
    with pytest.raises(OptionError):
        eval(f"kit.implicit.{make}")


def test_a_residual_of_another_shape_is_refused(kit: Kit) -> None:
    with pytest.raises(ShapeError, match=r"The residual has a leaf of shape \(\)"):
        kit.implicit.root(lambda z: kit.numpy.sum(z))(kit.array([0.0, 1.0]))


def test_an_initial_guess_of_integers_is_refused(kit: Kit) -> None:
    with pytest.raises(ParameterValueError, match="real floating-point numbers"):
        kit.implicit.root(lambda z: z)(kit.array([0, 1], np.int64))


def test_an_objective_that_is_no_number_is_refused(kit: Kit) -> None:
    with pytest.raises(ShapeError, match="one number for each instance"):
        kit.implicit.argmin(lambda x: x**2)(kit.array([0.0, 1.0]))


def test_solvers_say_what_they_are_for(kit: Kit) -> None:
    for solver in (kit.implicit.LBFGS(), kit.implicit.InteriorPoint()):
        with pytest.raises(OptionError, match="for `argmin"):
            kit.implicit.root(lambda z: z, solver=solver)(kit.array([0.0]))
