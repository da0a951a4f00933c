# SPDX-License-Identifier: Apache-2.0
"""The clock: contenders take turns, over several data sets; medians are kept."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Collection, Generator
from typing import Any

from tests.benchmarks.contenders import Job
from tests.benchmarks.limits import as_peer

#: Below this a turn is repeated, on the next data sets, until it is this long.
SHORTEST_TURN_SECONDS = 2e-3
MOST_CALLS_PER_TURN = 64
FEWEST_TURNS = 5


@dataclasses.dataclass
class Samples:
    """Wall and processor seconds of every timed call of one contender."""

    wall: list[float] = dataclasses.field(default_factory=list)
    processor: list[float] = dataclasses.field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Medians, quartiles and counts, in seconds."""
        quartiles = statistics.quantiles(self.wall, n=4) if len(self.wall) > 1 else self.wall * 3
        return {
            "seconds": statistics.median(self.wall),
            "processor_seconds": statistics.median(self.processor),
            "quartile_low": quartiles[0],
            "quartile_high": quartiles[2],
            "busy": sum(self.wall) / max(sum(self.processor), 1e-12),
            "calls": len(self.wall),
        }


def _call(job: Job, index: int, samples: Samples | None) -> float:
    """Seconds the call took with what had to be done before it; only the call is sampled."""
    begin = time.perf_counter()
    job.before(index)
    processor = time.process_time()
    start = time.perf_counter()
    job.run(index)
    elapsed = time.perf_counter() - start
    if samples is not None:
        samples.wall.append(elapsed)
        samples.processor.append(time.process_time() - processor)
    return time.perf_counter() - begin


@dataclasses.dataclass(frozen=True)
class Peers:
    """Who is a peer, and may fail.

    Attributes:
        names: of the jobs; the errors of all others end the run.
        seconds: which no turn of a peer may exceed.
        announce: called with the name of whose turn it is.
    """

    names: Collection[str] = ()
    seconds: float = 60.0
    announce: Callable[[str], None] = lambda _: None


NO_PEERS = Peers()


class _Turns:
    """What every contender has had so far."""

    def __init__(self, jobs: dict[str, Job], num_sets: int, peers: Peers) -> None:
        self._jobs, self._num_sets, self._peers = jobs, num_sets, peers
        self.samples = {name: Samples() for name in jobs}
        self.spent = dict.fromkeys(jobs, 0.0)
        self.faults: dict[str, dict[str, Any]] = {}
        self._cost: dict[str, float] = {}

    @contextlib.contextmanager
    def _turn_of(self, name: str) -> Generator[None]:
        self._peers.announce(name)
        record: dict[str, Any] = {}
        is_peer = name in self._peers.names
        with as_peer(record, self._peers.seconds) if is_peer else contextlib.nullcontext():
            yield
        if record:
            self.faults[name] = record

    def warm_up(self, name: str) -> None:
        """Call it once, which warms caches and pools up."""
        with self._turn_of(name):
            self._cost[name] = _call(self._jobs[name], 0, None)

    def take(self, name: str) -> None:
        """Call it for at least the shortest turn."""
        samples = self.samples[name]
        with self._turn_of(name):
            for _ in range(
                min(MOST_CALLS_PER_TURN, 1 + int(SHORTEST_TURN_SECONDS / self._cost[name]))
            ):
                index = (len(samples.wall) + 1) % self._num_sets
                self.spent[name] += _call(self._jobs[name], index, samples)


def measure(
    jobs: dict[str, Job], num_sets: int, seconds: float, peers: Peers = NO_PEERS
) -> dict[str, dict[str, Any]]:
    """Time the jobs in turns until each has had its share of `seconds`.

    The first call of each is not counted. A contender that used up its share and had its fewest
    turns stops; a very slow one has one turn. A peer that raises or is too slow loses its own
    figures alone: what is returned for it is a status and a note.
    """
    share = seconds / max(len(jobs), 1)
    turns = _Turns(jobs, num_sets, peers)
    for name in jobs:
        turns.warm_up(name)
    active, turn = [name for name in jobs if name not in turns.faults], 0
    gc.collect()
    gc.disable()
    try:
        while active:
            turn += 1
            for name in active:
                turns.take(name)
            active = [
                name
                for name in active[1:] + active[:1]
                if name not in turns.faults
                and (turns.spent[name] < share
                     or (turn < FEWEST_TURNS and turns.spent[name] < 2 * share))
            ]  # fmt: skip
    finally:
        gc.enable()
    return {name: turns.faults.get(name) or one.summary() for name, one in turns.samples.items()}
