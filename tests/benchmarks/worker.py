# SPDX-License-Identifier: Apache-2.0
"""Measures some workloads in a process of its own, on a given set of cores.

Run by `run.py`: `python -m tests.benchmarks.worker --cores 1 --output part.json …`. The
process is bound to its cores and the thread counts are set before anything is imported,
since most libraries size their pools then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

BATCHES = (1, 64, 1024)
MEASURES = ("forward", "backward", "step", "layer backward")
#: Our side on one thread, timed beside the same on two.
ONE_THREAD = "one thread"
#: The same on two threads that call it for themselves, so often in a turn: what the machine gives.
AT_ONCE, CALLS_AT_ONCE = "two at once", 4
#: All data sets of a cell together.
MOST_DATA_BYTES = 1.5e9
#: For what a peer prepares and for each of its turns.
PEER_SECONDS = 60.0
MOST_MEMORY_GIBIBYTES = 16
#: Three sets of 1024 are more instances than eight of 64: no cache holds them.
NUM_SETS = {1: 32, 64: 8, 1024: 3}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", nargs="+", required=True)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--measures", nargs="+", default=list(MEASURES))
    parser.add_argument("--seconds", type=float, default=8.0, help="per cell")
    parser.add_argument(
        "--longest-call", type=float, default=1.5,
        help="seconds: who would take longer, judged by a smaller batch, is left out of a larger",
    )  # fmt: skip
    parser.add_argument("--solver", default=None, help="backend of our side; native if absent")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def bind(cores: int) -> None:
    """Bind this process to its last `cores` cores and set every library's thread count."""
    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, available[-cores:])
    for name in ("OMP", "OPENBLAS", "MKL", "RAYON"):
        os.environ[f"{name}_NUM_THREADS"] = str(cores)


def data_sets(workload: Any, batch: int) -> list[Any]:
    """The data sets of a cell: other seeds than the check, as many as fit in memory."""
    import numpy as np

    from tests.benchmarks.contenders import DataSet

    sets, limit = [], NUM_SETS.get(batch, 8)
    while len(sets) < limit:
        rng = np.random.default_rng([2, batch, len(sets)])
        values = workload.sample(rng, batch)
        n = workload.cone_program(tuple(v[:1] for v in values)).structure.num_variables
        x_bar = rng.standard_normal((batch, n))
        sets.append(DataSet(workload, values, rng.standard_normal(
            workload.output(x_bar).shape), x_bar))  # fmt: skip
        # Every form of the data is held about four times, in the layouts of the peers.
        used = 4 * sum(v.nbytes for v in values)
        limit = min(limit, max(2, int(MOST_DATA_BYTES / used)))
    return sets


def contenders_of(measure: str, solver: str | None, *, ours_only: bool) -> list[Any]:
    """Who takes part, ours first."""
    from tests.benchmarks import adjoints, engines, layers, quadratic_engines

    if measure == "forward":
        everyone = engines.engine_contenders(solver) + quadratic_engines.quadratic_contenders()
    elif measure == "backward":
        everyone = adjoints.backward_contenders(solver)
    elif measure == "layer backward":
        everyone = layers.layer_backward_contenders(solver)
    else:
        everyone = layers.step_contenders(solver)
    return everyone[:1] if ours_only else everyone


def at_once(job: Any, num_sets: int) -> Any:
    """The job of calling `job` from two threads, which share nothing but the machine."""
    from concurrent.futures import ThreadPoolExecutor

    from tests.benchmarks.contenders import Job

    other = ThreadPoolExecutor(1)

    def some(first: int) -> None:
        for k in range(CALLS_AT_ONCE):
            job.run((first + k) % num_sets)

    def run(k: int) -> None:
        pending = other.submit(some, k + 1)
        some(k)
        pending.result()

    return Job(run, job.read)


class WorkloadRun:
    """All cells of one workload on one number of cores."""

    def __init__(self, workload: Any, options: argparse.Namespace) -> None:
        self._workload, self._options = workload, options
        self._per_instance: dict[tuple[str, str], float] = {}
        self._examiners: dict[int, Any] = {}

    def _examine(self, contender: Any, measure: str) -> Any:
        from tests.benchmarks.verdict import Examiner, Verdict

        reason = contender.refuses(self._workload)
        if reason is not None:
            return Verdict("not applicable", reason)
        variant = contender.variant(self._workload)
        key = id(variant) if variant is not self._workload else 0
        if key not in self._examiners:
            self._examiners[key] = Examiner(variant)
        return self._examiners[key].examine(contender, measure)

    def cells(self) -> list[dict[str, Any]]:
        """Examine every contender once, then time the right ones at every batch size."""
        found = []
        for measure in self._options.measures:
            everyone = contenders_of(
                measure, self._options.solver, ours_only=self._options.ours_only
            )
            verdicts = {one.name: self._examine(one, measure) for one in everyone}
            for batch in self._options.batches:
                found += self._cell(measure, batch, everyone, verdicts)
        return found

    def _cell(
        self, measure: str, batch: int, everyone: list[Any], verdicts: dict[str, Any]
    ) -> list[dict[str, Any]]:
        from tests.benchmarks.limits import as_peer
        from tests.benchmarks.timing import Peers
        from tests.benchmarks.timing import measure as time_jobs

        records = {one.name: self._record(measure, batch, one, verdicts) for one in everyone}
        sets = data_sets(self._workload, batch)
        jobs: dict[str, Any] = {}
        for one in everyone:
            record = records[one.name]
            expected = batch * self._per_instance.get((measure, one.name), 0.0)
            if record["status"] != "right":
                continue
            is_peer = one is not everyone[0]
            if is_peer and expected > self._options.longest_call:
                record |= {"status": "left out", "note": f"about {expected:.1f} s per call"}
                continue
            variant = one.variant(self._workload)
            own = sets if variant is self._workload else data_sets(variant, batch)
            with as_peer(record, PEER_SECONDS) if is_peer else contextlib.nullcontext():
                jobs[one.name] = one.prepare(own, self._options.cores)
            if self._options.cores > 1:  # in turns with itself, so that the ratio is fair
                jobs[ONE_THREAD] = one.prepare(own, 1)
                if measure in ("forward", "backward"):  # layers hold Python's lock too long
                    jobs[AT_ONCE] = at_once(jobs[ONE_THREAD], len(own))
        peers = Peers([one.name for one in everyone[1:]], PEER_SECONDS)
        times = time_jobs(jobs, len(sets), self._options.seconds, peers)
        alone, both = times.pop(ONE_THREAD, None), times.pop(AT_ONCE, None)
        for name, summary in times.items():
            records[name] |= summary
            if "seconds" not in summary:
                continue
            if alone is not None:
                records[name]["one_thread_seconds"] = alone["seconds"]
            if alone is not None and both is not None:
                available = 2 * CALLS_AT_ONCE * alone["seconds"] / both["seconds"]
                records[name]["available_speedup"] = available
            self._per_instance[measure, name] = summary["seconds"] / batch
            records[name]["per_instance"] = self._per_instance[measure, name]
        return list(records.values())

    def _record(
        self, measure: str, batch: int, one: Any, verdicts: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "workload": self._workload.name,
            "measure": measure,
            "batch": batch,
            "cores": self._options.cores,
            "contender": one.name,
            "settings": one.settings,
            **verdicts[one.name].as_dict(),
        }


def main() -> None:
    """Measure and write the cells after every workload."""
    options = _arguments()
    bind(options.cores)
    import torch

    from tests.benchmarks.limits import limit_memory

    limit_memory(MOST_MEMORY_GIBIBYTES)

    torch.set_num_threads(options.cores)
    warnings.simplefilter("ignore")
    from tests.benchmarks.catalog import workloads

    cells: list[dict[str, Any]] = []
    for name in options.workloads:
        cells += WorkloadRun(workloads()[name], options).cells()
        options.output.write_text(json.dumps(cells))


if __name__ == "__main__":
    main()
