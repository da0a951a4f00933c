# SPDX-License-Identifier: Apache-2.0
"""What the project set out to reach, as ratios of medians, and what was reached."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterable
from typing import Any

Cell = dict[str, Any]


def seconds_of(cell: Cell) -> float | None:
    """The time to compare, for one instance.

    On one core the processor time of the call: the process is bound to that core and
    never waits, so it is the wall time of an idle machine. On more cores the wall time.
    """
    if "seconds" not in cell:
        return None
    total = cell["seconds"]
    if cell["cores"] == 1:
        total = min(total, cell["processor_seconds"])
    return total / cell["batch"]


def is_ours(name: str) -> bool:
    """Whether a contender is this library (with any backend)."""
    return name.split(" ")[0] == "cvxlayer"


def speedup(cell: Cell | None) -> float | None:
    """Two threads against one, both wall times of the same process."""
    if cell is None or "one_thread_seconds" not in cell:
        return None
    return cell["one_thread_seconds"] / cell["seconds"]


def share_of_available(cell: Cell | None) -> float | None:
    """The speedup over that of two threads which make the same calls, each for itself."""
    reached, available = speedup(cell), (cell or {}).get("available_speedup")
    return reached / available if reached and available else None


class Table:
    """The cells of a report, to be looked up."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.cells = list(cells)
        self._by_key = {
            (c["measure"], c["batch"], c["cores"], c["workload"], self._name(c)): c
            for c in self.cells
        }

    @staticmethod
    def _name(cell: Cell) -> str:
        return "cvxlayer" if is_ours(cell["contender"]) else cell["contender"]

    def names(self, measure: str) -> list[str]:
        """Contenders of a measure, in order."""
        return list(dict.fromkeys(self._name(c) for c in self.cells if c["measure"] == measure))

    def workloads(self) -> list[str]:
        """Workloads, in order."""
        return list(dict.fromkeys(c["workload"] for c in self.cells))

    def batches(self) -> list[int]:
        """Batch sizes, ascending."""
        return sorted({c["batch"] for c in self.cells})

    def cell(
        self, measure: str, batch: int, workload: str, name: str, cores: int = 1
    ) -> Cell | None:
        """The cell, if it was measured."""
        return self._by_key.get((measure, batch, cores, workload, name))

    def seconds(
        self, measure: str, batch: int, workload: str, name: str, cores: int = 1
    ) -> float | None:
        """Seconds per instance, if it was timed."""
        cell = self.cell(measure, batch, workload, name, cores)
        return None if cell is None else seconds_of(cell)

    def best(self, measure: str, batch: int, workload: str, prefix: str) -> float | None:
        """The fastest right contender whose name starts so."""
        times = [
            self.seconds(measure, batch, workload, name)
            for name in self.names(measure)
            if name.startswith(prefix)
        ]
        return min((t for t in times if t is not None), default=None)


@dataclasses.dataclass(frozen=True)
class Target:
    """A ratio to be reached on every workload it applies to.

    Attributes:
        claim: what is compared.
        least: the ratio aimed at.
        batches: the batch sizes it is about.
        ratio: (table, batch, workload) → the ratio; None where it does not apply.
    """

    claim: str
    least: float
    batches: tuple[int, ...]
    ratio: Callable[[Table, int, str], float | None]


def _against(measure: str, peer: str) -> Callable[[Table, int, str], float | None]:
    def ratio(table: Table, batch: int, workload: str) -> float | None:
        ours = table.seconds(measure, batch, workload, "cvxlayer")
        theirs = table.best(measure, batch, workload, peer)
        return theirs / ours if ours and theirs else None

    return ratio


def _for_dense(dense: bool, inner: Callable[..., float | None]) -> Callable[..., float | None]:
    def ratio(table: Table, batch: int, workload: str) -> float | None:
        is_dense = workload.startswith("qp") or workload in ("lipmwalk", "whlipbal")
        if _kind(workload) != "linear or small":
            return None
        return inner(table, batch, workload) if is_dense == dense else None

    return ratio


def _kind(workload: str) -> str:
    """The cones of a workload, as far as an aim depends on them."""
    if workload.startswith(("entropy", "logistic", "gp", "power")):
        return "exponential or power"
    if workload.startswith(("correlation", "maxcut")):
        return "semidefinite"
    return "large second-order" if workload.startswith("ball") else "linear or small"


def _for_kind(kind: str, inner: Callable[..., float | None]) -> Callable[..., float | None]:
    def ratio(table: Table, batch: int, workload: str) -> float | None:
        return inner(table, batch, workload) if _kind(workload) == kind else None

    return ratio


_LINEAR = functools.partial(_for_kind, "linear or small")


def _cores(
    measure: str, figure: Callable[[Cell | None], float | None] = speedup
) -> Callable[[Table, int, str], float | None]:
    def ratio(table: Table, batch: int, workload: str) -> float | None:
        return figure(table.cell(measure, batch, workload, "cvxlayer", 2))

    return ratio


LARGE = (64, 1024)
TARGETS = (
    Target("forward, against a Clarabel loop", 10, LARGE, _LINEAR(_against("forward", "clarabel"))),
    Target("forward, against moreau ipm", 10, LARGE, _LINEAR(_against("forward", "moreau ipm"))),
    Target("forward, against QOCO", 4, LARGE, _LINEAR(_against("forward", "qoco"))),
    Target(
        "backward, against moreau's better mode", 10, LARGE,
        _LINEAR(_against("backward", "moreau")),
    ),
    Target(
        "torch step, against cvxpylayers with its best backend, all but small dense QPs",
        10, LARGE, _for_dense(False, _against("step", "cvxpylayers")),
    ),
    Target(
        "torch step, against cvxpylayers with its best backend, small dense QPs",
        2, LARGE, _for_dense(True, _against("step", "cvxpylayers")),
    ),
    Target(
        "forward with exponential or power cones, against a Clarabel loop", 8, LARGE,
        _for_kind("exponential or power", _against("forward", "clarabel")),
    ),
    Target(
        "forward with semidefinite cones, against a Clarabel loop", 4, LARGE,
        _for_kind("semidefinite", _against("forward", "clarabel")),
    ),
    Target(
        "forward with one large second-order cone, against a Clarabel loop", 4, LARGE,
        _for_kind("large second-order", _against("forward", "clarabel")),
    ),
    Target(
        "backward through the layer with these cones, against cvxpylayers with its best backend",
        10, LARGE, _against("layer backward", "cvxpylayers"),
    ),
    Target("torch step, against proxsuite", 3, LARGE, _against("step", "proxsuite")),
    Target("torch step, against qpth", 3, LARGE, _against("step", "qpth")),
    Target("torch step at batch 1, against proxsuite", 1, (1,), _against("step", "proxsuite")),
    Target("torch step at batch 1, against cvxpylayers", 3, (1,), _against("step", "cvxpylayers")),
    Target("forward on two cores against one", 1.7, LARGE, _cores("forward")),
    Target(
        "the same, over what two threads that share nothing reach at that time", 0.85, LARGE,
        _cores("forward", share_of_available),
    ),
    Target("backward on two cores against one", 1.7, LARGE, _cores("backward")),
    Target(
        "the same, over what two threads that share nothing reach at that time", 0.85, LARGE,
        _cores("backward", share_of_available),
    ),
    Target("torch step on two cores against one", 1.7, LARGE, _cores("step")),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Reached:
    """What became of a target: all ratios, by (workload, batch)."""

    target: Target
    ratios: dict[tuple[str, int], float]

    @property
    def median(self) -> float:
        """The middle ratio."""
        return statistics.median(self.ratios.values())

    @property
    def worst(self) -> tuple[tuple[str, int], float]:
        """The smallest ratio and where it is."""
        return min(self.ratios.items(), key=lambda item: item[1])

    @property
    def num_reached(self) -> int:
        """Cells in which the target is reached."""
        return sum(ratio >= self.target.least for ratio in self.ratios.values())


def reached(table: Table) -> list[Reached]:
    """Every target for which something was measured."""
    found = []
    for target in TARGETS:
        ratios = {
            (workload, batch): ratio
            for workload in table.workloads()
            for batch in target.batches
            if (ratio := target.ratio(table, batch, workload)) is not None
        }
        if ratios:
            found.append(Reached(target, ratios))
    return found
