# SPDX-License-Identifier: Apache-2.0
"""Model predictive control with boxes: the sparse workload.

minimize Σₜ ½‖xₜ − r‖² + ½ρ‖uₜ‖²  subject to  xₜ₊₁ = F xₜ + H uₜ, |uₜ| ≤ ū, |xₜ| ≤ x̄.
The natural variables are (u₀, x₁, u₁, x₂, …); the given x₀ is data.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np

from tests.benchmarks.forms import QuadraticProgram, SparseBatch
from tests.benchmarks.workloads import Built, Values, Workload

STATES, INPUTS, HORIZON = 6, 3, 20
STATE_LIMIT, INPUT_LIMIT, INPUT_COST = 1.5, 0.4, 0.1
_STAGE = STATES + INPUTS


def dynamics_pattern() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and source (index into [F, H, −1]) of the equality matrix."""
    entries: list[tuple[int, int, int]] = []
    for t in range(HORIZON):
        for i in range(STATES):
            row = t * STATES + i
            entries += [(row, t * _STAGE + j, STATES**2 + i * INPUTS + j) for j in range(INPUTS)]
            entries.append((row, t * _STAGE + INPUTS + i, STATES * _STAGE))
            if t > 0:
                before = (t - 1) * _STAGE + INPUTS
                entries += [(row, before + j, i * STATES + j) for j in range(STATES)]
    rows, columns, source = np.array(entries).T
    return rows, columns, source


def constant_dynamics() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return tuple(block[0] for block in _sample_dynamics(rng, 1))


def _sample_dynamics(rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray]:
    orthogonal, _ = np.linalg.qr(rng.standard_normal((batch, STATES, STATES)))
    return 0.97 * orthogonal, rng.standard_normal((batch, STATES, INPUTS)) / np.sqrt(STATES)


def _sample_targets(rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray]:
    # ‖x₀‖₂ ≤ x̄ and ‖F‖₂ < 1: u = 0 is strictly feasible, whatever is drawn.
    start = rng.standard_normal((batch, STATES))
    start *= (
        0.9 * STATE_LIMIT * rng.uniform(0.3, 1, (batch, 1)) / np.linalg.norm(start, axis=1)[:, None]
    )
    return start, rng.standard_normal((batch, STATES))


def _problem(F: Any, H: Any, start: Any, target: Any) -> tuple[cp.Problem, Any]:
    x, u = cp.Variable((STATES, HORIZON + 1)), cp.Variable((INPUTS, HORIZON))
    cost = 0.0
    # Two inequalities, not cp.abs: its epigraph variable is not unique, which is degenerate.
    constraints = [x[:, 0] == start, u <= INPUT_LIMIT, u >= -INPUT_LIMIT]
    constraints += [x[:, 1:] <= STATE_LIMIT, x[:, 1:] >= -STATE_LIMIT]
    for t in range(HORIZON):
        cost += 0.5 * cp.sum_squares(x[:, t + 1] - target)
        cost += 0.5 * INPUT_COST * cp.sum_squares(u[:, t])
        constraints.append(x[:, t + 1] == F @ x[:, t] + H @ u[:, t])
    return cp.Problem(cp.Minimize(cost), constraints), u


def _quadratic_program(
    F: np.ndarray, H: np.ndarray, start: np.ndarray, target: np.ndarray
) -> QuadraticProgram:
    size, models = len(start), len(F)
    rows, columns, source = dynamics_pattern()
    entries = np.concatenate(
        [F.reshape(models, -1), H.reshape(models, -1), -np.ones((models, 1))], axis=1
    )
    stage_q = np.concatenate([np.zeros((size, INPUTS)), -target], axis=1)
    b = np.zeros((size, HORIZON * STATES))
    b[:, :STATES] = -np.einsum("bij,bj->bi", np.broadcast_to(F, (size, STATES, STATES)), start)
    limit = np.tile(np.r_[np.full(INPUTS, INPUT_LIMIT), np.full(STATES, STATE_LIMIT)], HORIZON)
    weights = np.tile(np.r_[np.full(INPUTS, INPUT_COST), np.ones(STATES)], HORIZON)
    n = HORIZON * _STAGE
    return QuadraticProgram(
        size,
        SparseBatch.diagonal(weights),
        np.tile(stage_q, (1, HORIZON)),
        SparseBatch((HORIZON * STATES, n), rows, columns, entries[:, source]),
        b,
        SparseBatch.empty(n),
        np.zeros((1, 0)),
        -limit,
        limit,
    )


def _inputs(x: np.ndarray) -> np.ndarray:
    """The output u, (B, INPUTS, HORIZON), of the natural x."""
    stages = x.reshape(len(x), HORIZON, _STAGE)
    return stages[:, :, :INPUTS].transpose(0, 2, 1)


def _workload(name: str, title: str, build: Any, sample: Any, form: Any, names: Any) -> Workload:
    return Workload(
        name,
        title,
        build,
        sample,
        form,
        lambda values: form(values).cone_program(),
        _inputs,
        names,
        is_dense=False,
    )


def model_predictive_control() -> Workload:
    """Dynamics, start and target are parameters."""

    def build() -> Built:
        parameters = [
            cp.Parameter((STATES, STATES), name="F"),
            cp.Parameter((STATES, INPUTS), name="H"),
            cp.Parameter(STATES, name="start"),
            cp.Parameter(STATES, name="target"),
        ]
        problem, u = _problem(*parameters)
        return problem, parameters, [u]

    def sample(rng: np.random.Generator, batch: int) -> Values:
        return (*_sample_dynamics(rng, batch), *_sample_targets(rng, batch))

    title = f"MPC with boxes, T = {HORIZON}, {STATES} states, {INPUTS} inputs; "
    return _workload(
        "mpc20",
        title + "parameters: dynamics, start, target",
        build,
        sample,
        lambda values: _quadratic_program(*values),
        ("F", "H", "start", "target"),
    )


def model_predictive_control_start() -> Workload:
    """Only start and target are parameters: constant matrices."""
    F, H = constant_dynamics()

    def build() -> Built:
        parameters = [cp.Parameter(STATES, name="start"), cp.Parameter(STATES, name="target")]
        problem, u = _problem(F, H, *parameters)
        return problem, parameters, [u]

    title = f"MPC with boxes, T = {HORIZON}, {STATES} states, {INPUTS} inputs; "
    return _workload(
        "mpc20-start",
        title + "parameters: start, target",
        build,
        _sample_targets,
        lambda values: _quadratic_program(F[None], H[None], *values),
        ("start", "target"),
    )
