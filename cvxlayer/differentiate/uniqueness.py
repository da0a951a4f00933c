# SPDX-License-Identifier: Apache-2.0
"""Whether the derivative of a layer exists and is unique: three tests for each instance.

Comes in: solutions, what the layer returns of them, and how the data depend on its parameters.
Goes out: which tests fail, and the rows of the cone program that make them fail. All instances
cost one pass of the core; only those where a constraint is on the verge, or the linear system
singular, are looked at more closely.

Source: docs/derivations/derivative.md, "Where no derivative exists".
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayer.cones.margin import margins
from cvxlayer.differentiate.examination import Examination
from cvxlayer.differentiate.relevance import Relevance
from cvxlayer.differentiate.trial import ExaminingDerivative, Trial
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.derivative_report import DerivativeTest
from cvxlayer.program.solution import ConeSolution

WEAK = 1e-9
"""A margin, relative to the solution, within which a constraint may be on either side."""


@dataclasses.dataclass(frozen=True, eq=False)
class Judgment:
    """What the tests say of each instance.

    Attributes:
        margin, condition, residual, failed: see `DerivativeReport`.
        involved: the rows of the cone program that make a test fail.
    """

    margin: Float[np.ndarray, " batch"]
    condition: Float[np.ndarray, " batch"]
    residual: Float[np.ndarray, " batch"]
    failed: Int[np.ndarray, " batch"]
    involved: Bool[np.ndarray, "batch m"]


def judge(
    primitives: ExaminingDerivative,
    prepared: Any,
    relevance: Relevance,
    batch: ConeProgramBatch,
    solution: ConeSolution,
    *,
    threads: int | None = None,
) -> Judgment:
    """Judge the derivative of what a layer returns in its parameters.

    Args:
        primitives: the engine.
        prepared: what it prepared for the structure.
        relevance: what is returned, and how the data depend on the parameters.
        batch: the data.
        solution: its solutions.
        threads: threads over the batch; None for all cores.
    """
    found = primitives.examine(prepared, batch, solution, threads=threads)
    cones, has_solution = batch.structure.cones, found.has_solution
    distance = margins(cones, found.position)
    # Equality rows have no margin; those that depend on others are as doubtful as weak ones.
    is_dependent = found.is_active[:, : cones.zero] == 0
    is_near = has_solution[:, None] & np.concatenate([is_dependent, distance <= WEAK], axis=1)
    failed = np.where(has_solution, 0, int(DerivativeTest.SOLUTION))
    involved = np.zeros((batch.size, batch.structure.num_rows), bool)
    is_singular = found.is_singular
    rows = np.flatnonzero(is_near.any(axis=1) | is_singular)
    if len(rows):
        own = batch.select(rows)
        trial = Trial(
            primitives,
            prepared,
            threads,
            own,
            primitives.refine(prepared, own, solution.select(rows), threads=threads),
            _select(found, rows),
            relevance,
            distance[rows],
            failed[rows],
            involved[rows],
        )
        trial.try_null_vectors()
        trial.try_linear(is_near[rows, : cones.num_linear])
        trial.try_curved(is_near[rows, cones.num_linear :])
        distance[rows], failed[rows], involved[rows] = trial.distance, trial.failed, trial.involved
    with np.errstate(divide="ignore"):
        condition = found.largest / np.where(is_singular, 0.0, found.smallest)
    return Judgment(
        np.where(has_solution, distance.min(axis=1, initial=np.inf), np.nan),
        np.where(has_solution, condition, np.nan),
        np.where(has_solution, found.residual, np.nan),
        failed,
        involved,
    )


def _select(found: Examination, rows: np.ndarray) -> Examination:
    fields = (getattr(found, field.name) for field in dataclasses.fields(Examination))
    return Examination(*(field[rows] for field in fields))
