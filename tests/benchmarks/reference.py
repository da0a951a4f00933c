# SPDX-License-Identifier: Apache-2.0
"""Trusted solutions and derivatives, against which every engine is checked before timing.

Solutions come from Clarabel at 1e-10 or less; derivatives are central differences of them, taken
at two step lengths so that points where the solution map has a kink are recognised and
left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import clarabel
import numpy as np

from cvxlayer.cones.product import ConeProduct
from cvxlayer.program.batch import ConeProgramBatch
from tests.benchmarks.forms import UpperTriangles
from tests.benchmarks.workloads import Values, Workload

STEP = 1e-4
KINK_TOLERANCE = 1e-3


def clarabel_cones(cones: ConeProduct) -> list[object]:
    """The cones in Clarabel's own types."""
    listed: list[object] = []
    if cones.zero:
        listed.append(clarabel.ZeroConeT(cones.zero))
    if cones.nonnegative:
        listed.append(clarabel.NonnegativeConeT(cones.nonnegative))
    listed += [clarabel.SecondOrderConeT(size) for size in cones.second_order]
    listed += [clarabel.PSDTriangleConeT(order) for order in cones.semidefinite]
    listed += [clarabel.ExponentialConeT() for _ in range(cones.exponential)]
    return listed + [clarabel.PowerConeT(alpha) for alpha in cones.power]


def clarabel_settings(tolerance: float) -> clarabel.DefaultSettings:
    """One thread, quiet, one tolerance for gap and feasibility."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
    return settings


def solve(batch: ConeProgramBatch, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (x, y) of every instance; raises if one is not solved."""
    settings = clarabel_settings(tolerance)
    cones = clarabel_cones(batch.structure.cones)
    points, duals = [], []
    upper = UpperTriangles.of(batch)
    for index in range(batch.size):
        P, q, A, b = upper.batch.instance(index)
        solution = clarabel.DefaultSolver(P, q, A, b, cones, settings).solve()
        if str(solution.status) not in ("Solved", "AlmostSolved"):
            raise RuntimeError(f"reference: instance {index} ended as {solution.status}")
        points.append(solution.x)
        duals.append(solution.z)
    return np.array(points), upper.restore(np.array(duals))


def relative_error(answer: np.ndarray, truth: np.ndarray) -> float:
    """Largest ‖answer − truth‖∞ / (1 + ‖truth‖∞) of the batch."""
    answer, truth = answer.reshape(len(truth), -1), truth.reshape(len(truth), -1)
    error = np.abs(answer - truth).max(axis=1) / (1 + np.abs(truth).max(axis=1))
    return float(np.where(np.isnan(error), np.inf, error).max())


@dataclasses.dataclass(frozen=True, eq=False)
class Directions:
    """Directions θ̇ of the check and the derivative of the loss along each of them.

    Attributes:
        weights: the loss is Σ weights · output, (B, *shape of the output).
        tangents: one tuple of arrays per direction, shaped as the parameters.
        slopes: (directions, B) derivatives by central differences; NaN at kinks.
    """

    weights: np.ndarray
    tangents: list[Values]
    slopes: np.ndarray

    def error(self, gradients: list[np.ndarray | None]) -> float:
        """‖gradient · θ̇ − slope‖₂ / ‖slope‖₂ over all directions and instances."""
        predicted = np.array(
            [
                sum(
                    (gradient * part).reshape(len(part), -1).sum(axis=1)
                    for gradient, part in zip(gradients, tangent, strict=True)
                    if gradient is not None
                )
                for tangent in self.tangents
            ]
        )
        regular = np.isfinite(self.slopes)
        difference = np.linalg.norm((predicted - self.slopes)[regular])
        error = float(difference / np.linalg.norm(self.slopes[regular]))
        return error if np.isfinite(error) else float("inf")


def _slopes(
    loss: Callable[[Values], np.ndarray], values: Values, tangents: list[Values]
) -> np.ndarray:
    slopes = []
    for tangent in tangents:
        estimates = []
        for step in (STEP, STEP / 2):
            ahead, behind = (
                loss(tuple(v + sign * step * t for v, t in zip(values, tangent, strict=True)))
                for sign in (1, -1)
            )
            estimates.append((ahead - behind) / (2 * step))
        coarse, fine = estimates
        kink = np.abs(coarse - fine) > KINK_TOLERANCE * (np.abs(fine) + np.abs(fine).mean())
        slopes.append(np.where(kink, np.nan, fine))
    return np.array(slopes)


def _one_block_directions(
    rng: np.random.Generator, values: Values, symmetric: tuple[int, ...] = ()
) -> list[Values]:
    """For each nonempty block one direction that moves this block alone."""
    tangents = []
    for chosen in range(len(values)):
        if not values[chosen].size:
            continue
        blocks = [np.zeros_like(v) for v in values]
        blocks[chosen] = rng.standard_normal(values[chosen].shape)
        if chosen in symmetric:
            blocks[chosen] = 0.5 * (blocks[chosen] + blocks[chosen].transpose(0, 2, 1))
        tangents.append(tuple(blocks))
    return tangents


def parameter_directions(workload: Workload, values: Values, seed: int = 9173) -> Directions:
    """Slopes of a random linear loss of the output along one direction per parameter."""
    rng = np.random.default_rng(seed)

    def output_at(moved: Values) -> np.ndarray:
        program = workload.cone_program(moved)
        return workload.output(solve(program, workload.reference_tolerance)[0])

    base = output_at(values)
    weights = rng.standard_normal(base.shape)

    def loss(moved: Values) -> np.ndarray:
        output = output_at(moved)
        return (weights * output).reshape(len(output), -1).sum(axis=1)

    tangents = _one_block_directions(rng, values, workload.symmetric)
    return Directions(weights, tangents, _slopes(loss, values, tangents))


def data_directions(batch: ConeProgramBatch, tolerance: float, seed: int = 9173) -> Directions:
    """The same for the data (P, q, A, b) of a cone program; P is its upper triangle."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((batch.size, batch.structure.num_variables))

    def loss(moved: Values) -> np.ndarray:
        program = ConeProgramBatch(batch.structure, batch.size, *moved)
        return (weights * solve(program, tolerance)[0]).sum(axis=1)

    values = tuple(
        np.repeat(block, batch.size, axis=0) if len(block) == 1 else block
        for block in (batch.P, batch.q, batch.A, batch.b)
    )
    tangents = _one_block_directions(rng, values)
    return Directions(weights, tangents, _slopes(loss, values, tangents))
