# SPDX-License-Identifier: Apache-2.0
"""Tune a model predictive controller by gradient descent through closed-loop simulations.

A cart is to stop at the origin. Its controller plans ten steps ahead, with bounded force; the
weights of its plan are learned, so that a batch of carts does well by another measure: the
true cost of whole simulations, with a force that is dearer than the plan assumes.

    python examples/mpc_controller.py [--epochs 15]
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import torch

from cvxlayer.torch import Layer

HORIZON, SIMULATED, CARTS = 10, 25, 32
DRIFT = torch.tensor([[1.0, 0.2], [0.0, 1.0]], dtype=torch.float64)
PUSH = torch.tensor([0.02, 0.2], dtype=torch.float64)


def build_controller() -> Layer:
    """(state, weights of position, speed and force) ↦ the planned forces."""
    states = cp.Variable((2, HORIZON + 1), name="states")
    forces = cp.Variable(HORIZON, name="forces")
    state = cp.Parameter(2, name="state")
    weights = cp.Parameter(3, nonneg=True, name="weights")
    cost = weights[0] * cp.sum_squares(states[0]) + weights[1] * cp.sum_squares(states[1])
    cost += weights[2] * cp.sum_squares(forces)
    moves = DRIFT.numpy() @ states[:, :-1] + cp.outer(PUSH.numpy(), forces)
    constraints = [states[:, 0] == state, states[:, 1:] == moves, cp.abs(forces) <= 1]
    problem = cp.Problem(cp.Minimize(cost), constraints)
    return Layer(problem, parameters=[state, weights], variables=[forces])


def simulate(controller: Layer, weights: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Return the true cost of each closed-loop simulation."""
    state, cost = starts, torch.zeros(len(starts), dtype=starts.dtype)
    for _ in range(SIMULATED):
        (forces,) = controller(state, weights)
        force = forces[:, :1]
        cost = cost + (state**2).sum(1) + 2 * force[:, 0] ** 2
        state = state @ DRIFT.T + force * PUSH
    return cost / SIMULATED


def main(epochs: int) -> tuple[float, float]:
    """Print how training goes; return the mean true cost on held-out carts before and after."""
    generator = torch.Generator().manual_seed(0)
    starts = 1.5 * torch.randn(2 * CARTS, 2, dtype=torch.float64, generator=generator)
    train, held_out = starts[:CARTS], starts[CARTS:]
    controller = build_controller()
    logarithms = torch.tensor([0.0, -3.0, -3.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logarithms], lr=0.3)
    before = simulate(controller, logarithms.detach().exp(), held_out).mean().item()
    for epoch in range(epochs):
        loss = simulate(controller, logarithms.exp(), train).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch % 5 == 0:
            print(f"epoch {epoch:2d}   mean true cost {loss.item():.4f}")
    weights = logarithms.detach().exp()
    after = simulate(controller, weights, held_out).mean().item()
    print(f"held-out carts: {before:.4f} before, {after:.4f} after")
    print(
        "weights of position, speed, force: " + ", ".join(f"{w:.3f}" for w in weights / weights[0])
    )
    return before, after


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tune a controller through simulations.")
    parser.add_argument("--epochs", type=int, default=15)
    main(parser.parse_args().epochs)
