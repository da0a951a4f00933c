# SPDX-License-Identifier: Apache-2.0
"""Every linear solver, through the derivative of an equation whose Jacobian is a given matrix."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from tests.catalog.frameworks import Kit, TorchKit

TOLERANCE = 1e-10
SIZE = 8
RNG = np.random.default_rng(7)
ROOT = RNG.standard_normal((2, SIZE, SIZE))
GENERAL = 3.0 * np.eye(SIZE) + 0.5 * ROOT
DEFINITE = np.eye(SIZE) + np.einsum("bij,bkj->bik", ROOT, ROOT)
RIGHT = RNG.standard_normal((2, SIZE))
FOR_GENERAL = ("LU", "GMRES", "BiCGStab", "LSMR")
CASES = [*((name, GENERAL) for name in FOR_GENERAL), ("Cholesky", DEFINITE), ("CG", DEFINITE)]

each_solver = pytest.mark.parametrize(("name", "matrices"), CASES, ids=[case[0] for case in CASES])


def equation(kit: Kit, matrices: np.ndarray, solver: Any, told: list[Any]) -> Any:
    """θ ↦ z with A z = θ, one matrix for each of the batch."""
    held = kit.array(matrices)
    solve = kit.implicit.root(
        lambda z, theta: kit.numpy.einsum("bij,bj->bi", held, z) - theta,
        backward=kit.implicit.Exact(solver=solver, listener=lambda *report: told.append(report)),
        batch_dims=1,
    )
    return lambda theta: solve(kit.array(np.zeros((2, SIZE))), theta)


@each_solver
def test_a_derivative_solves_with_the_transposed_jacobian(
    kit: Kit, name: str, matrices: np.ndarray
) -> None:
    told: list[Any] = []
    function = equation(kit, matrices, getattr(kit.implicit, name)(), told)
    weights = kit.array(RIGHT)
    gradient = kit.compile(kit.grad(lambda theta: kit.numpy.sum(weights * function(theta))))
    found = kit.to_numpy(gradient(kit.array(np.ones((2, SIZE)))))
    expected = np.linalg.solve(matrices.transpose(0, 2, 1), RIGHT[..., None])[..., 0]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    # And it says how well, for each instance.
    ((residual, iterations),) = told
    residual = np.asarray(residual)
    assert residual.shape == (1, 2)
    assert np.all(residual <= TOLERANCE)
    is_dense = name in ("LU", "Cholesky")
    assert np.all((np.asarray(iterations) == 0) == is_dense)


@pytest.mark.parametrize("name", ["CG", "GMRES", "BiCGStab", "LSMR"])
def test_a_preconditioner_saves_products(torch_kit: TorchKit, name: str) -> None:
    scales = torch_kit.array(np.logspace(0.0, 3.0, SIZE))
    counts: list[float] = []
    for preconditioner in (None, lambda r, theta: r / scales):
        told: list[Any] = []
        options = {"restart": 3, "max_iterations": 1000} if name == "GMRES" else {}
        solver = getattr(torch_kit.implicit, name)(preconditioner=preconditioner, **options)
        backward = torch_kit.implicit.Exact(
            solver=solver, listener=lambda *r, told=told: told.append(r)
        )
        solve = torch_kit.implicit.root(
            lambda z, theta: scales * z + 0.01 * torch_kit.numpy.roll(z, 1) - theta,
            backward=backward,
        )
        start = torch_kit.array(np.zeros(SIZE))
        if name == "CG":
            solve = torch_kit.implicit.argmin(
                lambda z, theta: torch_kit.numpy.sum(0.5 * scales * z**2 - theta * z),
                backward=backward,
            )
        total = functools.partial(
            lambda solve, *args: torch_kit.numpy.sum(solve(*args)), solve, start
        )
        slope = torch_kit.grad(total)(start + 1.0)
        assert torch_kit.numpy.isfinite(slope).all()
        counts.append(float(told[0][1].max()))
    assert counts[1] < counts[0]


def test_many_cotangents_share_one_factorization(torch_kit: TorchKit) -> None:
    told: list[Any] = []
    function = equation(torch_kit, GENERAL, None, told)
    jacobian = torch_kit.jacrev(function)(torch_kit.array(np.ones((2, SIZE))))
    np.testing.assert_allclose(
        torch_kit.to_numpy(jacobian)[0, :, 0], np.linalg.inv(GENERAL[0]), atol=TOLERANCE
    )
    ((residual, _),) = told
    assert tuple(residual.shape) == (2 * SIZE, 2)


def test_iterations_that_do_not_converge_are_not_believed(torch_kit: TorchKit) -> None:
    solver = torch_kit.implicit.GMRES(restart=2, max_iterations=1)
    function = equation(torch_kit, GENERAL, solver, [])
    with pytest.raises(RuntimeError, match=r"row\(s\) \[0, 1\]: its relative residual"):
        torch_kit.grad(lambda theta: torch_kit.numpy.sum(function(theta)))(torch_kit.array(RIGHT))


def test_large_systems_are_solved_without_a_matrix(torch_kit: TorchKit) -> None:
    told: list[Any] = []
    size = 600
    solve = torch_kit.implicit.fixed_point(
        lambda z, b: 0.5 * torch_kit.numpy.tanh(torch_kit.numpy.roll(z, 1)) + b,
        backward=torch_kit.implicit.Exact(listener=lambda *report: told.append(report)),
    )
    start = torch_kit.array(np.zeros(size))
    gradient = torch_kit.grad(lambda b: torch_kit.numpy.sum(solve(start, b)))(start)
    np.testing.assert_allclose(torch_kit.to_numpy(gradient), np.full(size, 2.0), atol=TOLERANCE)
    assert 0.0 < float(told[0][1].max()) < size
