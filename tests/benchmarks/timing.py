# SPDX-License-Identifier: Apache-2.0
"""The clock: contenders take turns, over several data sets; medians are kept."""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time

from tests.benchmarks.contenders import Job

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


def measure(jobs: dict[str, Job], num_sets: int, seconds: float) -> dict[str, dict[str, float]]:
    """Time the jobs in turns until each has had its share of `seconds`.

    The first call of each is not counted: it warms caches and pools up. A contender that
    used up its share and had its fewest turns stops; a very slow one has one turn.
    """
    share = seconds / max(len(jobs), 1)
    cost = {name: _call(job, 0, None) for name, job in jobs.items()}
    samples = {name: Samples() for name in jobs}
    spent = dict.fromkeys(jobs, 0.0)
    active, turn = list(jobs), 0
    gc.collect()
    gc.disable()
    try:
        while active:
            turn += 1
            for name in active:
                calls = min(MOST_CALLS_PER_TURN, 1 + int(SHORTEST_TURN_SECONDS / cost[name]))
                for _ in range(calls):
                    index = (len(samples[name].wall) + 1) % num_sets
                    spent[name] += _call(jobs[name], index, samples[name])
            active = [
                name
                for name in active[1:] + active[:1]
                if spent[name] < share or (turn < FEWEST_TURNS and spent[name] < 2 * share)
            ]
    finally:
        gc.enable()
    return {name: one.summary() for name, one in samples.items()}
