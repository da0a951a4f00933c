# SPDX-License-Identifier: Apache-2.0
"""Forward solvers: they find what they should, from where they are started."""

from __future__ import annotations

from typing import Any

import clarabel
import numpy as np
import pytest
import scipy.sparse

from tests.catalog.frameworks import Kit, TorchKit

TOLERANCE = 1e-9


def quadratic_program(rng: np.random.Generator, n: int, p: int, m: int) -> dict[str, np.ndarray]:
    root = rng.standard_normal((n, n))
    inside = rng.standard_normal(n)
    E, G = rng.standard_normal((p, n)), rng.standard_normal((m, n))
    return {
        "P": root @ root.T / n + 0.1 * np.eye(n),
        "q": 3.0 * rng.standard_normal(n),
        "E": E,
        "e": E @ inside,
        "G": G,
        "g": G @ inside + rng.random(m),
    }


def by_clarabel(program: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return x and the multipliers of equalities, then inequalities."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    cones = [clarabel.ZeroConeT(len(program["e"])), clarabel.NonnegativeConeT(len(program["g"]))]
    solver = clarabel.DefaultSolver(
        scipy.sparse.csc_matrix(np.triu(program["P"])),
        program["q"],
        scipy.sparse.csc_matrix(np.vstack([program["E"], program["G"]])),
        np.concatenate([program["e"], program["g"]]),
        cones,
        settings,
    )
    solution = solver.solve()
    return np.array(solution.x), np.array(solution.z)


def test_the_interior_point_method_agrees_with_clarabel(kit: Kit, rng: np.random.Generator) -> None:
    programs = [quadratic_program(rng, 6, 2, 8) for _ in range(4)]
    stacked = {key: kit.array(np.stack([p[key] for p in programs])) for key in programs[0]}
    product = lambda matrix, x: kit.numpy.einsum("bij,bj->bi", matrix, x)  # noqa: E731
    solve = kit.implicit.argmin(
        lambda x, t: kit.numpy.sum(x * (0.5 * product(t["P"], x) + t["q"]), -1),
        equality=lambda x, t: product(t["E"], x) - t["e"],
        inequality=lambda x, t: product(t["G"], x) - t["g"],
        batch_dims=1,
    )
    found = solve.solve(kit.array(np.zeros((4, 6))), stacked)
    for row, program in enumerate(programs):
        x, multipliers = by_clarabel(program)
        np.testing.assert_allclose(kit.to_numpy(found.value)[row], x, atol=1e-7)
        ours = np.concatenate([kit.to_numpy(part)[row] for part in found.multipliers])
        np.testing.assert_allclose(ours, multipliers, atol=1e-6)


def test_a_smooth_convex_program_starts_from_an_infeasible_point(torch_kit: TorchKit) -> None:
    # The largest volume of a box inside an ellipsoid: x_i = 1/√(3 a_i).
    a = np.array([1.0, 2.0, 5.0])
    solve = torch_kit.implicit.argmin(
        lambda x, a: -torch_kit.numpy.sum(torch_kit.numpy.log(x)),
        inequality=lambda x, a: torch_kit.numpy.sum(a * x**2) - 1.0,
    )
    x = torch_kit.to_numpy(solve(torch_kit.array(np.ones(3)), torch_kit.array(a)))
    np.testing.assert_allclose(x, 1.0 / np.sqrt(3.0 * a), atol=TOLERANCE)


def rosenbrock(kit: Kit, x: Any) -> Any:
    return kit.numpy.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


@pytest.mark.parametrize("name", ["Newton", "LBFGS"])
def test_minimizers_get_through_a_curved_valley(torch_kit: TorchKit, name: str) -> None:
    solve = torch_kit.implicit.argmin(
        lambda x: rosenbrock(torch_kit, x),
        solver=getattr(torch_kit.implicit, name)(),
        tolerance=1e-10,
    )
    x = torch_kit.to_numpy(solve(torch_kit.array([-1.2, 1.0, 0.5])))
    np.testing.assert_allclose(x, np.ones(3), atol=TOLERANCE)


def test_many_unknowns_are_minimized_without_a_hessian(torch_kit: TorchKit) -> None:
    scales = torch_kit.array(np.linspace(1.0, 50.0, 600))
    solve = torch_kit.implicit.argmin(
        lambda x, theta: torch_kit.numpy.sum(0.5 * scales * x**2 + 0.1 * x**4 - theta * x)
    )
    theta = torch_kit.array(np.linspace(-1.0, 1.0, 600)).requires_grad_()
    report = solve.solve(torch_kit.array(np.zeros(600)), theta)
    x = report.value
    slope = scales * x + 0.4 * x**3 - theta
    assert float(slope.abs().max()) <= TOLERANCE
    (gradient,) = torch_kit.numpy.autograd.grad(x.sum(), theta)
    expected = 1.0 / (scales + 1.2 * x**2)
    np.testing.assert_allclose(
        torch_kit.to_numpy(gradient), torch_kit.to_numpy(expected), atol=TOLERANCE
    )


def test_newton_shortens_steps_that_overshoot(torch_kit: TorchKit) -> None:
    solve = torch_kit.implicit.root(lambda z, theta: torch_kit.numpy.arctan(z) - theta)
    z = torch_kit.to_numpy(solve(torch_kit.array([10.0]), torch_kit.array([0.3])))
    np.testing.assert_allclose(z, np.tan([0.3]), atol=TOLERANCE)


def test_anderson_takes_fewer_steps_than_plain_iteration(torch_kit: TorchKit) -> None:
    matrix = torch_kit.array(0.9 * np.diag([1.0, 0.9, 0.8]))
    steps = []
    for solver in (torch_kit.implicit.Anderson(), torch_kit.implicit.Picard()):
        solve = torch_kit.implicit.fixed_point(lambda z, b: matrix @ z + b, solver=solver)
        report = solve.solve(torch_kit.array(np.zeros(3)), torch_kit.array(np.ones(3)))
        steps.append(float(report.iterations))
    assert steps[0] < 0.2 * steps[1]


def test_a_users_solver_may_be_anything(torch_kit: TorchKit) -> None:

    def by_numpy(initial: Any, matrix: Any, right: Any) -> Any:
        return torch_kit.array(
            np.linalg.solve(torch_kit.to_numpy(matrix), torch_kit.to_numpy(right))
        )

    solve = torch_kit.implicit.root(lambda z, matrix, right: matrix @ z - right, solver=by_numpy)
    matrix = torch_kit.array([[2.0, 1.0], [0.0, 3.0]])
    inverse = np.linalg.inv(torch_kit.to_numpy(matrix))
    rights = torch_kit.array([[1.0, 2.0], [0.5, -1.0]])
    function = lambda right: solve(torch_kit.array([0.0, 0.0]), matrix, right)  # noqa: E731
    mapped = torch_kit.vmap(torch_kit.jacrev(function))(rights)
    np.testing.assert_allclose(torch_kit.to_numpy(mapped), np.stack([inverse, inverse]), atol=1e-12)
    np.testing.assert_allclose(
        torch_kit.to_numpy(torch_kit.vmap(function)(rights)),
        torch_kit.to_numpy(rights) @ inverse.T,
        atol=1e-12,
    )
