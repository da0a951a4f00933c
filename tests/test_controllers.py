# SPDX-License-Identifier: Apache-2.0
"""Two real controllers of walking and balancing robots, thirty successive steps as one batch.

The data come from qpsolvers/mpc_qpbenchmark and lie beside the repository, not in it.
"""

from __future__ import annotations

from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import Layer
from cvxlayer.program.solution import SolvedBy

torch = pytest.importorskip("torch")

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "mpc"
CONTROLLERS = ("lipmwalk", "whlipbal")
ACCURACY = 1e-6
TIGHT = {"eps": 1e-11}
# Relative steps of q and of h. The second controller's P has eigenvalues of 1e-3 beside gradients
# of 1e3, so that a solution moves by 5e5 times the relative change of q.
STEPS = {"lipmwalk": (1e-5, 1e-5), "whlipbal": (1e-8, 1e-5)}

needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}")


def controller(name: str, solver: str = "native") -> tuple[Layer, np.ndarray, np.ndarray]:
    """Return the layer with parameters q and h, and their values at all steps."""
    with np.load(DATA / f"{name}.npz") as arrays:
        P, q, G, h = (arrays[key] for key in "PqGh")
    assert (P[0] == P).all()
    assert (G[0] == G).all()
    x = cp.Variable(q.shape[1])
    linear, bound = cp.Parameter(q.shape[1]), cp.Parameter(h.shape[1])
    objective = cp.Minimize(0.5 * cp.quad_form(x, cp.psd_wrap(P[0])) + linear @ x)
    problem = cp.Problem(objective, [G[0] @ x <= bound])
    layer = Layer(problem, [linear, bound], [x], solver=solver)
    return layer, q, h


@needs_data
@pytest.mark.parametrize("name", CONTROLLERS)
def test_all_steps_at_once_equal_clarabel(name: str) -> None:
    layer, q, h = controller(name)
    (ours,) = layer(q, h)
    reference, _, _ = controller(name, solver="clarabel")
    (theirs,) = reference(q, h, solver_args=TIGHT)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ACCURACY * np.abs(theirs).max())


@needs_data
@pytest.mark.parametrize("name", CONTROLLERS)
def test_no_row_of_many_is_less_accurate(name: str, rng: np.random.Generator) -> None:
    """A few in a hundred go on after a first polish on the wrong rows, and are polished again."""
    layer, q, h = controller(name)
    q, h = np.tile(q, (100, 1)), np.tile(h, (100, 1))
    q = q * (1.0 + 0.02 * rng.standard_normal(q.shape))
    (found,) = layer(q, h)
    (expected,) = layer(q, h, solver_args={"eps": 1e-12})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@needs_data
@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_step_can_start_from_the_one_before(name: str) -> None:
    layer, q, h = controller(name)
    (expected,) = layer(q, h)
    solution = layer.solve(q[0], h[0])
    for step in range(1, len(q)):
        solution = layer.solve(q[step], h[step], warm_start=solution)
        assert solution.solved_by is SolvedBy.WARM_START
        found, scale = solution.variables[0], np.abs(expected).max()
        np.testing.assert_allclose(found, expected[step], rtol=0, atol=ACCURACY * scale)


@needs_data
@pytest.mark.parametrize("name", CONTROLLERS)
def test_gradients_equal_finite_differences(name: str, rng: np.random.Generator) -> None:
    layer, q, h = controller(name)
    weights = rng.standard_normal(q.shape)
    tensors = [torch.tensor(value, requires_grad=True) for value in (q, h)]
    (output,) = layer(*tensors)
    (output * torch.tensor(weights)).sum().backward()
    for place, tensor in enumerate(tensors):
        assert tensor.grad is not None
        # Along a direction relative to each entry, so that no bound crosses another.
        direction = rng.standard_normal(tensor.shape) * tensor.detach().numpy()
        ends = []
        for sign in (1.0, -1.0):
            values = [q.copy(), h.copy()]
            values[place] += sign * STEPS[name][place] * direction
            (moved,) = layer(*values, solver_args=TIGHT)
            ends.append((moved * weights).sum(axis=1))
        difference = (ends[0] - ends[1]) / (2 * STEPS[name][place])
        exact = (tensor.grad.numpy() * direction).sum(axis=1)
        close = np.abs(exact - difference) <= 1e-4 * np.abs(difference).max()
        # A step that changes the active set inside the difference has no derivative there.
        assert close.mean() >= 0.9, (exact, difference)
