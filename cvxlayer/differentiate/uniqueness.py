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
from jaxtyping import Float, Int

from cvxlayer.cones.margin import margins
from cvxlayer.differentiate.relevance import Relevance
from cvxlayer.differentiate.trial import ExaminingDerivative, Trial
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.derivative_report import DerivativeTest
from cvxlayer.program.solution import ConeSolution

WEAK = 1e-9
"""A margin, relative to the solution, within which a constraint may be on either side."""
_TINY = 1e-300


@dataclasses.dataclass(frozen=True, eq=False)
class Judgment:
    """What the tests say of each instance.

    Attributes:
        margin, condition, residual, failed: see `DerivativeReport`.
        instance, row: of each row of a cone program that makes a test fail.
    """

    margin: Float[np.ndarray, " batch"]
    condition: Float[np.ndarray, " batch"]
    residual: Float[np.ndarray, " batch"]
    failed: Int[np.ndarray, " batch"]
    instance: Int[np.ndarray, " involved"]
    row: Int[np.ndarray, " involved"]


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
    cones, has_solution = batch.structure.cones, found.point.has_solution
    distance, is_singular = margins(cones, found.position), found.is_singular
    margin = distance.min(axis=1, initial=np.inf)
    condition = found.largest / np.maximum(found.smallest, _TINY)
    condition[is_singular] = np.inf
    failed = np.zeros(batch.size, np.int64)
    instance, row = np.zeros((2, 0), np.int64)
    # Equality rows have no margin; those that depend on others are as doubtful as weak ones.
    is_dependent = found.point.is_active[:, : cones.zero] == 0
    rows = np.flatnonzero(
        has_solution & ((margin <= WEAK) | is_singular | is_dependent.any(axis=1))
    )
    if len(rows):
        is_near = np.concatenate([is_dependent[rows], distance[rows] <= WEAK], axis=1)
        trial = Trial(
            primitives,
            prepared,
            threads,
            batch.select(rows),
            found.select(rows),
            relevance,
            distance[rows],
            failed[rows],
            np.zeros((len(rows), batch.structure.num_rows), bool),
        )
        trial.try_null_vectors()
        trial.try_linear(is_near[:, : cones.num_linear])
        trial.try_curved(is_near[:, cones.num_linear :])
        margin[rows], failed[rows] = trial.distance.min(axis=1, initial=np.inf), trial.failed
        instance, row = np.nonzero(trial.involved)
        instance = rows[instance]
    residual = found.point.residual
    if not has_solution.all():
        failed[~has_solution] = int(DerivativeTest.SOLUTION)
        margin, condition, residual = (
            np.where(has_solution, figure, np.nan) for figure in (margin, condition, residual)
        )
    return Judgment(margin, condition, residual, failed, instance, row)
