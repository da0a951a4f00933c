# SPDX-License-Identifier: Apache-2.0
"""A report of `run.py` (JSON) → a page, docs/benchmarks.md or that of another instruction set.

Also alone: `python -m tests.benchmarks.figures REPORT.json [PAGE.md]`.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.catalog import workloads
from tests.benchmarks.derivative_tables import render_derivatives
from tests.benchmarks.tables import error_text, number_text, table_text
from tests.benchmarks.targets import Table, is_ours, reached, speedup
from tests.benchmarks.timing import FEWEST_TURNS, MOST_TURNS

_TITLES = {
    "forward": "Forward: the same data in, solutions out",
    "backward": "Backward alone: gradients of all of P, q, A, b",
    "step": "The torch step: forward and backward through the layer",
    "layer backward": "Backward alone, through the layer",
}
_TITLE = "# Benchmarks"
_TITLE_WITHOUT_AVX512 = """# Benchmarks without AVX-512

Our engine and some of its peers use AVX-512 where the processor has it. The one that this page was
measured on has not; [the other page](benchmarks.md) is of one that has.
"""
_INTRODUCTION = """
`make bench` measures everything on this page side by side in one run, saves it as JSON and prints
it; `python -m tests.benchmarks --markdown` writes it here. `--quick` takes two minutes,
`--only WORKLOAD` measures one. The page is never edited by hand.

**How it is measured.** Each workload runs in a process bound to one core, with every library's
thread count set to one; our side once more on two cores. The contenders take turns on the same
data, over {sets} data sets, as many as the time of a cell allows, so that no
cache favours anyone. Each has {turns} turns, equally long if a call is not longer, and quick ones
more between the calls of slow ones, over the same stretch of time: a machine that changes its speed
changes it for all of them. Compared are the medians of the turns' median calls. Times are
microseconds per instance: processor time on one core (the wall time of an idle machine), wall time
on two. × is the peer's time over ours: more is better for us. All solvers are asked for {tolerance}
where that can be set; what each was told and what it reached stands at the end.

**Who is right.** Before anything is timed, each contender's answer is compared with Clarabel at
1e-10 and its gradient with central differences of it, in every block of data by itself. One that
misses (KKT residual > 1e-7, solution > 1e-3 or gradient > 1e-2, relative) is listed as wrong and
not timed.

qpth is measured only where it is installed, which takes `pip install --no-deps
--no-build-isolation qpth`: it asks for NumPy 1, though it works with NumPy 2.
"""


def _targets(table: Table) -> str:
    rows = []
    for one in reached(table):
        (workload, batch), ratio = one.worst
        rows.append([
            one.target.claim,
            f"≥ {one.target.least:g}×",
            f"{one.median:.3g}×",
            f"{ratio:.3g}× ({workload}, batch {batch})",
            f"{one.num_reached} of {len(one.ratios)}",
        ])  # fmt: skip
    header = ["compared", "aim", "median", "worst", "aim reached in"]
    return "## What was aimed at, and what was reached\n\n" + table_text(header, rows)


def _status_mark(cell: dict[str, Any] | None) -> str:
    if cell is None or cell["status"] == "not applicable":
        return "–"
    return "too slow" if cell["status"] == "left out" else cell["status"]


def _times(table: Table, measure: str, batch: int) -> str:
    names = table.names(measure)
    peers = [name for name in names if name != "cvxlayer"]
    rows = []
    for workload in table.workloads():
        ours = table.seconds(measure, batch, workload, "cvxlayer")
        own = table.cell(measure, batch, workload, "cvxlayer")
        row = [workload, f"**{number_text(ours * 1e6)}**" if ours else _status_mark(own)]
        for peer in peers:
            theirs = table.seconds(measure, batch, workload, peer)
            if theirs is None:
                row.append(_status_mark(table.cell(measure, batch, workload, peer)))
            else:
                ratio = f" ({number_text(theirs / ours)}×)" if ours else ""
                row.append(number_text(theirs * 1e6) + ratio)
        rows.append(row)
    return table_text(["µs per instance", "cvxlayer", *peers], rows)


def _two_cores_text(seconds: float | None, cell: dict[str, Any] | None) -> str:
    ratio = speedup(cell)
    if seconds is None or cell is None or ratio is None:
        return "–"
    available = cell.get("available_speedup")
    limit = f" / {available:.2f}×" if available else ""
    return f"{number_text(seconds * 1e6)} ({ratio:.2f}×{limit})"


def _two_cores(table: Table) -> str:
    rows = []
    for workload in table.workloads():
        row = [workload]
        for measure in _TITLES:
            for batch in (b for b in table.batches() if b >= 64):
                two = table.seconds(measure, batch, workload, "cvxlayer", cores=2)
                cell = table.cell(measure, batch, workload, "cvxlayer", cores=2)
                row.append(_two_cores_text(two, cell))
        rows.append(row)
    columns = [f"{m}, batch {b}" for m in _TITLES for b in table.batches() if b >= 64]
    if all(cell == "–" for row in rows for cell in row[1:]):
        return ""
    text = (
        "## Ours on two cores\n\nµs per instance, wall time (× faster than with `threads=1` in "
        "the same process, timed in turns; after the stroke how many times as much two threads do "
        "that make the same calls, each with `threads=1` and for itself: what the machine gives to "
        "two cores at that moment).\n\n"
    )
    return text + table_text(["workload", *columns], rows)


def _cold_start(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    stages = ["import_torch", "import_cvxpy", "import_layer", "construct", "first_call",
              "second_call"]  # fmt: skip
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["workload"], row["layer"]), []).append(row)
    body = []
    for (workload, layer), found in groups.items():
        good = [one for one in found if "failure" not in one]
        medians = [statistics.median(one[s] for one in good) if good else None for s in stages]
        body.append([workload, layer, *(f"{1e3 * m:.1f}" if m else "failed" for m in medians)])
    header = ["workload", "layer", *(stage.replace("_", " ") for stage in stages)]
    return (
        "## Cold start\n\nMilliseconds in a fresh process, median of three, batch 8, forward and "
        "backward. torch and CVXPY are imported first: every layer needs them.\n\n"
        + table_text(header, body)
    )


def _memory(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    body = []
    for row in rows:
        if "failure" in row:
            body.append([row["workload"], row["layer"], row["status"], row["failure"]])
            continue
        sizes = (f"{row[key] / 1024:.1f}" for key in ("bytes_per_instance", "kept_per_instance"))
        body.append([row["workload"], row["layer"], *sizes])
    return (
        f"## Memory\n\nKiB per instance that one torch step of batch {rows[0]['batch']} adds to "
        "the peak of the process, and how much of it is the result (output and gradients).\n\n"
        + table_text(["workload", "layer", "peak", "of it the result"], body)
    )


def _accuracy(table: Table) -> str:
    """The least accurate figures of each contender, and everything that was wrong."""
    rows, faults = [], []
    for measure in _TITLES:
        for name in table.names(measure):
            cells = [
                c for c in table.cells
                if c["measure"] == measure and c["cores"] == 1
                and (c["contender"] == name or (name == "cvxlayer" and is_ours(c["contender"])))
            ]  # fmt: skip
            right = [c for c in cells if c["status"] in ("right", "left out")]
            worst = (
                max((c[key] for c in right if c[key] is not None), default=None)
                for key in ("kkt", "solution_error", "gradient_error")
            )
            settings = cells[0]["settings"] if cells else ""
            rows.append([measure, name, settings, *map(error_text, worst)])
            notes = {
                (c["workload"], c["status"], c["note"].replace("|", "/"))
                for c in cells
                if c["status"] in ("wrong", "failed", "too much")
            }
            faults += [[measure, name, *note] for note in sorted(notes)]
    header = ["measure", "contender", "settings", "KKT", "solution", "gradient"]
    text = (
        "## Settings and accuracy\n\nWorst of all workloads on which the contender is right.\n\n"
        + table_text(header, rows)
    )
    if faults:
        header = ["measure", "contender", "workload", "verdict", "why"]
        text += "\n### Wrong or failed\n\n" + table_text(header, faults)
    return text


def _setting_of(report: dict[str, Any]) -> str:
    machine = report["machine"]
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items())
    busy = [c["busy"] for c in report["cells"] if c["cores"] == 1 and "busy" in c]
    kernels = f"our kernels for {machine['kernels']}, " if "kernels" in machine else ""
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {kernels}{machine['system']}, Python "
        f"{machine['python']}. {packages}. Commit {machine['commit']}. The run took "
        f"{report['seconds'] / 60:.0f} minutes.",
    ]
    if busy and statistics.mean(busy) > 1.1:
        lines.append(
            f"\n**The machine was busy**: wall time was {statistics.mean(busy):.2f} times "
            "processor time on average, so the two-core figures are too low."
        )
    return "\n".join(lines) + "\n"


def render(report: dict[str, Any]) -> str:
    """The whole page."""
    table = Table(report["cells"])
    catalog = workloads()
    described = [[n, catalog[n].title] for n in table.workloads() if n in catalog]
    has_avx512 = report["machine"].get("kernels", "avx512") == "avx512"
    parts = [
        _TITLE if has_avx512 else _TITLE_WITHOUT_AVX512.rstrip(),
        _INTRODUCTION.format(
            sets="up to 8 (3 of batch 1024)",
            turns=f"{FEWEST_TURNS} to {MOST_TURNS}",
            tolerance="1e-8",
        ),
        _setting_of(report),
        _targets(table),
        "## Workloads\n\n" + table_text(["name", "what it is"], described),
    ]
    for measure, title in _TITLES.items():
        for batch in table.batches():
            if any(c["measure"] == measure and c["batch"] == batch for c in table.cells):
                heading = f"## {title}\n\n" if batch == table.batches()[0] else ""
                parts.append(f"{heading}### Batch {batch}\n\n" + _times(table, measure, batch))
    parts += [
        _two_cores(table),
        _cold_start(report["cold_start"]),
        _memory(report["memory"]),
        render_derivatives(report.get("derivatives")),
        _accuracy(table),
    ]
    return "\n".join(part for part in parts if part)


def main() -> None:
    """Render a saved report."""
    text = render(json.loads(Path(sys.argv[1]).read_text()))
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
