# SPDX-License-Identifier: Apache-2.0
"""The clock: contenders take turns of one length, over several data sets; medians are kept."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Generator
from typing import Any

from tests.benchmarks.contenders import Job
from tests.benchmarks.limits import as_peer

#: A turn is at least so long: its calls are repeated, each on the next data set.
SHORTEST_TURN_SECONDS = 2e-3
FEWEST_TURNS, MOST_TURNS = 3, 8
#: Whoever has waited for so many of its own turns has one in between.
PATIENCE = 15


@dataclasses.dataclass
class Samples:
    """Wall and processor seconds of every timed call of one contender, by turns."""

    wall: list[list[float]] = dataclasses.field(default_factory=list)
    processor: list[list[float]] = dataclasses.field(default_factory=list)

    @property
    def calls(self) -> int:
        """How many calls were timed."""
        return sum(map(len, self.wall))

    def summary(self) -> dict[str, float]:
        """Medians and quartiles of the turns' medians, in seconds, and counts.

        Each turn counts once: where the machine changes its speed, a slow stretch holds fewer
        calls than a fast one, and the more so the faster the contender is.
        """
        wall, processor = (
            [statistics.median(turn) for turn in turns] for turns in (self.wall, self.processor)
        )
        quartiles = statistics.quantiles(wall, n=4) if len(wall) > 1 else wall * 3
        return {
            "seconds": statistics.median(wall),
            "processor_seconds": statistics.median(processor),
            "quartile_low": quartiles[0],
            "quartile_high": quartiles[2],
            "busy": sum(map(sum, self.wall)) / max(sum(map(sum, self.processor)), 1e-12),
            "turns": len(wall),
            "calls": self.calls,
        }


def _call(job: Job, index: int, wall: list[float], processor: list[float]) -> None:
    """Call it, and sample what the call took without what had to be done before it."""
    job.before(index)
    processor_start = time.process_time()
    start = time.perf_counter()
    job.run(index)
    wall.append(time.perf_counter() - start)
    processor.append(time.process_time() - processor_start)


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
        self.faults: dict[str, dict[str, Any]] = {}
        self._ended: dict[str, float] = {}
        self._shortest: dict[str, float] = {}

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
            _call(self._jobs[name], 0, [], [])

    def take(self, name: str, seconds: float) -> None:
        """Call it for so long, and once at least; a peer that has failed never again."""
        if name in self.faults:
            return
        samples, start = self.samples[name], time.perf_counter()
        samples.wall.append([])
        samples.processor.append([])
        with self._turn_of(name):
            while not samples.wall[-1] or time.perf_counter() < start + seconds:
                index = (samples.calls + 1) % self._num_sets
                _call(self._jobs[name], index, samples.wall[-1], samples.processor[-1])
        self._ended[name] = end = time.perf_counter()
        self._shortest[name] = min(end - start, self._shortest.get(name, end - start))

    def take_in_between(self, names: list[str], seconds: float) -> None:
        """A turn for everyone whose last one is long ago, compared with what it took."""
        for name in names:
            since = time.perf_counter() - self._ended.get(name, math.inf)
            if since > PATIENCE * self._shortest.get(name, 0.0):
                self.take(name, seconds)


def measure(
    jobs: dict[str, Job], num_sets: int, seconds: float, peers: Peers = NO_PEERS
) -> dict[str, dict[str, Any]]:
    """Time the jobs in turns, which take about `seconds` together.

    The first call of each is not counted. All have equally many rounds of turns, equally long
    where one call is not longer, and so over the same stretch of time: a machine that changes its
    speed changes it for everyone. While slow contenders have theirs, which may take a second,
    quick ones have turns in between. Slow contenders have the fewest turns, even where these take
    longer than `seconds`. A peer that raises or is too slow loses its own figures alone: what is
    returned for it is a status and a note.
    """
    turns = _Turns(jobs, num_sets, peers)
    for name in jobs:
        turns.warm_up(name)
    active = [name for name in jobs if name not in turns.faults]
    length = max(SHORTEST_TURN_SECONDS, seconds / (MOST_TURNS * max(len(active), 1)))
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for num_turns in range(1, MOST_TURNS + 1):
            for name in active:
                turns.take(name, length)
                turns.take_in_between(active, length)
            active = active[1:] + active[:1]
            spent = time.perf_counter() - start
            if num_turns >= FEWEST_TURNS and spent * (1 + 0.5 / num_turns) > seconds:
                break
    finally:
        gc.enable()
    return {name: turns.faults.get(name) or one.summary() for name, one in turns.samples.items()}
