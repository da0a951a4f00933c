# SPDX-License-Identifier: Apache-2.0
"""The list of workloads, in the order of the tables."""

from __future__ import annotations

from tests.benchmarks.control import model_predictive_control, model_predictive_control_start
from tests.benchmarks.curved_workloads import (
    allocation,
    ball_projection,
    entropy,
    logistic,
    max_cut,
    nearest_correlation,
    power_control,
)
from tests.benchmarks.workloads import (
    MPC_DATA,
    Workload,
    dense_qp,
    dense_qp_vectors,
    portfolio,
    robot_controller,
    simplex_projection,
)

ROBOTS = ("lipmwalk", "whlipbal")


def workloads() -> dict[str, Workload]:
    """Every workload by name; the robot controllers only where their data lie beside the repo."""
    listed = [
        simplex_projection(100),
        dense_qp(10, 10, 0),
        dense_qp_vectors(10, 10, 0),
        dense_qp(50, 50, 10),
        dense_qp_vectors(50, 50, 10),
        dense_qp(128, 128, 0, check_batch=3),
        dense_qp_vectors(128, 128, 0, check_batch=3),
        model_predictive_control(),
        model_predictive_control_start(),
        portfolio(30),
        entropy(30),
        logistic(50, 20),
        power_control(8),
        allocation(20),
        nearest_correlation(6),
        nearest_correlation(20),
        max_cut(12),
        ball_projection(200),
        *(robot_controller(name) for name in ROBOTS if (MPC_DATA / f"{name}.npz").exists()),
    ]
    return {workload.name: workload for workload in listed}
