# SPDX-License-Identifier: Apache-2.0
"""What every measured engine and layer looks like to the clock."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from cvxlayer.program.batch import ConeProgramBatch
from tests.benchmarks.forms import QuadraticProgram
from tests.benchmarks.workloads import Values, Workload

TOLERANCE = 1e-8


class CannotError(Exception):
    """A contender has no way to do what is measured."""


@dataclasses.dataclass(frozen=True, eq=False)
class DataSet:
    """One batch of instances of a workload, in every form, and a cotangent.

    Attributes:
        workload: the problem family.
        values: parameter values, (B, *shape) each.
        output_bar: cotangent of the output.
        x_bar: cotangent of the natural x.
    """

    workload: Workload
    values: Values
    output_bar: np.ndarray
    x_bar: np.ndarray

    @functools.cached_property
    def program(self) -> QuadraticProgram:
        """The natural QP."""
        assert self.workload.quadratic_program is not None
        return self.workload.quadratic_program(self.values)

    @functools.cached_property
    def cone_program(self) -> ConeProgramBatch:
        """The natural cone program."""
        if self.workload.quadratic_program is not None:
            return self.program.cone_program()
        return self.workload.cone_program(self.values)

    @property
    def size(self) -> int:
        """B."""
        return len(self.values[0])


def moving_blocks(sets: list[DataSet]) -> frozenset[str]:
    """Which of P, q, A, b differ between instances, within a data set or between two."""
    first = sets[0].cone_program
    return frozenset(
        name
        for name in ("P", "q", "A", "b")
        if any(
            len(block := getattr(one.cone_program, name)) > 1
            or not np.array_equal(block, getattr(first, name))
            for one in sets
        )
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What a contender returned for one data set.

    Engines fill x (and y), layers the output; gradients are those of the contender's
    inputs, P (upper triangle), q, A, b for engines and the parameters for layers.
    """

    x: np.ndarray | None = None
    y: np.ndarray | None = None
    output: np.ndarray | None = None
    gradients: list[np.ndarray | None] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A contender made ready for a list of data sets.

    Attributes:
        run: the timed call, for the data set of that index.
        read: result of `run` and index → answer; not timed.
        before: called before each `run`; not timed.
    """

    run: Callable[[int], Any]
    read: Callable[[Any, int], Answer]
    before: Callable[[int], None] = lambda _: None


class AbstractContender(abc.ABC):
    """An engine or layer to be measured."""

    name: str
    settings: str

    def refuses(self, workload: Workload) -> str | None:
        """Why it cannot do this workload, or None."""
        del workload
        return None

    def variant(self, workload: Workload) -> Workload:
        """The workload in the formulation this contender needs."""
        return workload

    @abc.abstractmethod
    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        """Do everything that a user would do once."""


def needs_quadratic_program(workload: Workload) -> str | None:
    """The refusal of solvers that know only linear constraints."""
    return "quadratic programs only" if workload.quadratic_program is None else None
