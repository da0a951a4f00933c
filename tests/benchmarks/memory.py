# SPDX-License-Identifier: Apache-2.0
"""Peak memory of one torch step, per instance, in this fresh process.

Run by `run.py` as `python -m tests.benchmarks.memory CONTENDER WORKLOAD BATCH`; prints
JSON. The data and one step of batch 1 are in place before the peak is reset, so what is
counted is what a step of this batch adds: outputs, gradients and workspaces. Whoever asks for
more address space than there is here ends with an error that says so.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

MOST_GIBIBYTES = 12


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def main() -> None:
    """Run the step and print what it added to the peak."""
    name, workload_name, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    warnings.simplefilter("ignore")
    from tests.benchmarks.worker import bind, data_sets

    bind(1)
    from tests.benchmarks.limits import limit_memory

    limit_memory(MOST_GIBIBYTES)
    from tests.benchmarks.catalog import workloads
    from tests.benchmarks.layers import step_contenders

    solver = name.partition("(")[2].rstrip(")") or None if name.startswith("cvxlayer") else None
    contender = next(one for one in step_contenders(solver) if one.name == name)
    workload = contender.variant(workloads()[workload_name])
    small, large = data_sets(workload, 1)[:1], data_sets(workload, batch)[:1]
    contender.prepare(small, 1).run(0)
    job = contender.prepare(large, 1)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
    result = job.run(0)
    peak = _status("VmHWM") - before
    kept = sum(t.numel() * t.element_size() for t in (result[0], *result[1]))
    print(json.dumps({"bytes_per_instance": peak / batch, "kept_per_instance": kept / batch}))


if __name__ == "__main__":
    main()
