# SPDX-License-Identifier: Apache-2.0
"""A call that nothing but the layer itself looks at: one visit to the core there, one back.

What is out of the ordinary (another backend, complex numbers, infinite bounds, failing rows) takes
the longer way of `evaluation`, which has the words for bad input too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cvxlayer.evaluation import Evaluation, Evaluator
from cvxlayer.inputs import InputRule, check_value
from cvxlayer.notices import LARGE_ADJOINT_RESIDUAL, warn_not_unique
from cvxlayer.program.derivative_report import DerivativeReport
from cvxlayer.program.engine import count_threads
from cvxlayer.program.native_program import CoreSettings, NativeRun
from cvxlayer.program.solution import ConeSolution
from cvxlayer.reading import Reading
from cvxlayer.reporting import report_derivative
from cvxlayer.solve.backend import Settings


# Not frozen: that would take as long as a small solve's iteration.
@dataclasses.dataclass(eq=False)
class PlainCall:
    """A call all of whose rows were solved in the core.

    Attributes:
        evaluator: what was called.
        inputs: the values it was called with; they must not change as long as this is used.
        epsilons: machine epsilon of the dtype each came in.
        run: what the core keeps.
        settings: those of the solve.
        batch_shape: the leading dimensions of all inputs, broadcast.
        theta: what the core was given, the inputs themselves unless it is their logarithms.
        factors: for each output, itself where the core knows its logarithm; empty if it knows none.
    """

    evaluator: Evaluator
    inputs: tuple[np.ndarray, ...]
    epsilons: Sequence[float]
    run: NativeRun
    settings: Settings
    batch_shape: tuple[int, ...]
    theta: tuple[np.ndarray, ...]
    factors: tuple[np.ndarray | None, ...]

    @property
    def cone(self) -> ConeSolution:
        """The solutions, in canonical scaling."""
        return self.run.cone

    def read_outputs(self) -> Reading:
        """Return the requested variables and duals."""
        return Reading(self.run.outputs, self.pull_back_outputs)

    def pull_back_outputs(
        self, cotangents: Sequence[np.ndarray | None], needs: Sequence[bool]
    ) -> list[np.ndarray | None]:
        """Return the cotangents of the inputs; the `PullBack` of `read_outputs`."""
        coordinates = self.evaluator.program.coordinates
        if not coordinates.is_identity:
            needs = coordinates.spread(needs)
        bars = [
            np.empty(value.shape) if need else None
            for value, need in zip(self.theta, needs, strict=True)
        ]
        if self.factors:
            pairs = zip(cotangents, self.factors, strict=True)
            cotangents = [
                bar if bar is None or factor is None else np.asarray(bar * factor)
                for bar, factor in pairs
            ]
        residual = self.run.pull_back(cotangents, bars, LARGE_ADJOINT_RESIDUAL)
        if residual is not None:
            warn_of(
                residual, self.batch_shape, self.evaluator, self.inputs, self.epsilons, self.cone
            )
        return list(coordinates.pull_back(self.inputs, bars))


def warn_of(
    residual: np.ndarray,
    batch_shape: tuple[int, ...],
    evaluator: Evaluator,
    inputs: Sequence[np.ndarray],
    epsilons: Sequence[float],
    cone: ConeSolution,
) -> None:
    """Warn that the derivative of a call is not unique; see `warn_not_unique`, `PlainCall`."""
    # Whoever asks for the report may have changed the inputs by then.
    own = [value.copy() for value in inputs]

    def make_report() -> DerivativeReport:
        made = evaluator.evaluate(own, epsilons, known=cone)
        return report_derivative(made.solution, batch_shape)

    warn_not_unique(residual, batch_shape, make_report)


def core_settings(settings: Settings) -> CoreSettings:
    """Return settings as the core takes them."""
    return (
        settings.eps_abs,
        settings.eps_rel,
        settings.max_iters or 0,
        settings.extra.get("polish", True),
        count_threads(settings.threads),
        settings.extra.get("width", 0),
    )


def evaluate_plainly(
    evaluator: Evaluator,
    arrays: Sequence[np.ndarray],
    epsilons: Sequence[float],
    solver_args: Mapping[str, Any] | None = None,
    warm_start: Any = None,
) -> PlainCall | Evaluation:
    """Do what `Evaluator.evaluate` does, by the short way if it can; arguments and errors are its.

    A `PlainCall` has outputs and their adjoint alone, not the value or other duals.
    """
    settings = evaluator.settings_of(solver_args)
    if warm_start is None and evaluator.is_all_in_core and not settings.verbose:
        batch_shape = _common_batch(evaluator.rules, arrays)
        run, theta = None, ()
        if batch_shape is not None:
            run, theta = _run(evaluator, arrays, epsilons, settings, batch_shape)
        if run is not None and batch_shape is not None:
            if run.is_solved:
                inputs, factors = tuple(arrays), _factors(evaluator, run)
                return PlainCall(
                    evaluator, inputs, epsilons, run, settings, batch_shape, theta, factors
                )
            return evaluator.evaluate(arrays, epsilons, solver_args, begun=run.cone)
    return evaluator.evaluate(arrays, epsilons, solver_args, warm_start)


def _run(
    evaluator: Evaluator,
    arrays: Sequence[np.ndarray],
    epsilons: Sequence[float],
    settings: Settings,
    batch_shape: tuple[int, ...],
) -> tuple[NativeRun | None, tuple[np.ndarray, ...]]:
    """Return what the core made of the values, None if one is not finite, and θ."""
    core = core_settings(settings)
    for rule, array, epsilon in zip(evaluator.rules, arrays, epsilons, strict=True):
        if rule.has_domain:
            check_value(rule, array, epsilon, count_threads(settings.threads))
    theta = evaluator.program.coordinates.apply(arrays)
    outputs = tuple([np.empty(batch_shape + spec.shape) for spec in evaluator.program.outputs])
    size = math.prod(batch_shape)
    run = NativeRun.of(evaluator.program.native, theta, outputs, size, core)
    return run, theta


def _factors(evaluator: Evaluator, run: NativeRun) -> tuple[np.ndarray | None, ...]:
    """Return the `factors` of a call, copied: its outputs belong to whoever reads them."""
    if evaluator.program.is_linear:
        return ()
    pairs = zip(run.outputs, evaluator.program.recovery.outputs, strict=True)
    return tuple([array.copy() if output.is_log else None for array, output in pairs])


def _common_batch(
    rules: Sequence[InputRule], arrays: Sequence[np.ndarray]
) -> tuple[int, ...] | None:
    """Return the batch dimensions, if values that have some have the same; None at any fault."""
    common: tuple[int, ...] = ()
    for rule, array in zip(rules, arrays, strict=True):
        own, shape = rule.spec.shape, array.shape
        num_batch = len(shape) - len(own)
        if num_batch < 0 or shape[num_batch:] != own or array.dtype != np.float64:
            return None
        if num_batch and shape[:num_batch] != common:
            if common or 0 in shape:
                return None
            common = shape[:num_batch]
    return common
