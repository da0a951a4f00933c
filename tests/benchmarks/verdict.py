# SPDX-License-Identifier: Apache-2.0
"""Is a contender right? Its answer and gradient against the trusted ones, before timing."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.contenders import AbstractContender, DataSet
from tests.benchmarks.reference import (
    Directions,
    data_directions,
    parameter_directions,
    relative_error,
    solve,
)
from tests.benchmarks.workloads import Workload
from tests.catalog.residuals import kkt_residual

KKT_LIMIT = 1e-7
SOLUTION_LIMIT = 1e-3
GRADIENT_LIMIT = 1e-2
CHECK_SEED = 1


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Errors that were reached (None where they do not apply) and what follows from them."""

    status: str
    note: str = ""
    kkt: float | None = None
    solution_error: float | None = None
    gradient_error: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return dataclasses.asdict(self)


class Examiner:
    """Holds the trusted answers of a workload, so that they are computed once."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload

    @functools.cached_property
    def values(self) -> tuple[np.ndarray, ...]:
        """The instances of the check."""
        return self._workload.sample(np.random.default_rng(CHECK_SEED), self._workload.check_batch)

    @functools.cached_property
    def x(self) -> np.ndarray:
        """Their solutions."""
        program = self._workload.cone_program(self.values)
        return solve(program, self._workload.reference_tolerance)[0]

    @functools.cached_property
    def data(self) -> Directions:
        """Slopes in the natural data."""
        program = self._workload.cone_program(self.values)
        return data_directions(program, self._workload.reference_tolerance)

    @functools.cached_property
    def parameters(self) -> Directions:
        """Slopes in the parameters."""
        return parameter_directions(self._workload, self.values)

    def examine(self, contender: AbstractContender, measure: str) -> Verdict:
        """Run the contender on the check set; a crash is a verdict too."""
        output_bar, x_bar = self._workload.output(self.x), self.x
        if measure == "backward":
            x_bar = self.data.weights
        elif measure in ("step", "layer backward"):
            output_bar = self.parameters.weights
        one = DataSet(self._workload, self.values, output_bar, x_bar)
        try:
            job = contender.prepare([one], 1)
            job.before(0)
            answer = job.read(job.run(0), 0)
        except Exception as error:  # noqa: BLE001 (any failure of a peer is its verdict)
            text = f"{type(error).__name__}: {error}".replace(f"{Path.cwd()}/", "")
            return Verdict("failed", text[:300])
        return _judge(self, one, answer)


def _judge(examiner: Examiner, one: DataSet, answer: Any) -> Verdict:
    kkt = solution_error = gradient_error = None
    if answer.x is not None:
        kkt = kkt_residual(one.cone_program, answer.x, answer.y)
        solution_error = relative_error(answer.x, examiner.x)
    if answer.output is not None:
        truth = one.workload.output(examiner.x)
        solution_error = relative_error(answer.output, truth)
    if answer.gradients is not None:
        directions = examiner.parameters if answer.output is not None else examiner.data
        gradient_error = directions.error(answer.gradients)
    faults = [
        f"{name} {value:.1e} > {limit:g}"
        for name, value, limit in (
            ("KKT residual", kkt, KKT_LIMIT),
            ("solution error", solution_error, SOLUTION_LIMIT),
            ("gradient error", gradient_error, GRADIENT_LIMIT),
        )
        if value is not None and not value <= limit
    ]
    return Verdict(
        "wrong" if faults else "right", "; ".join(faults), kkt, solution_error, gradient_error
    )
