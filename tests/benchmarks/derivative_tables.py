# SPDX-License-Identifier: Apache-2.0
"""What `every_derivative.py` measured → the section "Every other derivative" of the page."""

from __future__ import annotations

import re
from typing import Any

from tests.benchmarks.every_derivative import (
    BATCH,
    LONGEST_CALL_SECONDS,
    NUM_COTANGENTS,
    PEER_SECONDS,
)
from tests.benchmarks.tables import error_text, number_text, table_text
from tests.benchmarks.targets import is_ours

TITLE = "## Every other derivative"
_MEASURES = {
    "forward mode": "Forward mode: a tangent of every parameter in, that of the output out",
    "jacobian": "The full Jacobian of one instance, in all parameters",
    "hessian product": "A Hessian-vector product of ½‖x‖²",
    "cotangents": f"{NUM_COTANGENTS} cotangents of every instance at one point",
    "jit step": "Forward and backward in one function that JAX has compiled",
}
_INTRODUCTION = f"""{TITLE}

Each layer differentiated in the fastest way it has: a transform (`torch.func`, JAX's), or a
loop of backward passes. Before it is timed, each result is held against differences of Clarabel's
solutions; *wrong* ones (relative error above 1e-2) are not timed, and – means that it has no such
derivative. A peer *fails* where it raises, or its process dies; it is *too slow* where a call takes
{LONGEST_CALL_SECONDS:g} s or its check {PEER_SECONDS:g} s. Microseconds of processor time per
instance on one core; × is the peer's time over that of cvxlayer in the same framework.
`python -m tests.benchmarks --derivatives --markdown` measures this section alone.
"""
_WORDS = {"cannot": "–", "left out": "too slow", "failed": "fails"}


def render_derivatives(report: dict[str, Any] | None) -> str:
    """Return the section, or nothing where it was not measured."""
    if not report or not report["cells"]:
        return ""
    names = dict.fromkeys(cell["workload"] for cell in report["cells"])
    parts = [_INTRODUCTION, f"Measured at commit {report['commit']}, on {', '.join(names)}.\n"]
    for measure, title in _MEASURES.items():
        cells = [cell for cell in report["cells"] if cell["measure"] == measure]
        if cells:
            parts.append(f"### {title}\n\nBatch {BATCH[measure]}.\n\n{_times(cells)}")
    return "\n".join([*parts, _overheads(report["overheads"]), _faults(report["cells"])])


def replace_section(page: str, section: str) -> str:
    """Return a page with its section replaced by this one, or with it before the settings."""
    pattern = re.compile(rf"^{TITLE}$.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    if pattern.search(page):
        return pattern.sub(lambda _: section + "\n", page)
    before, heading, after = page.partition("## Settings and accuracy")
    return before + section + "\n" + heading + after


def _seconds(cell: dict[str, Any] | None) -> float | None:
    if cell is None or "seconds" not in cell:
        return None
    return min(cell["seconds"], cell["processor_seconds"]) / cell["batch"]


def _word(cell: dict[str, Any]) -> str:
    return _WORDS.get(cell["status"], cell["status"])


def _times(cells: list[dict[str, Any]]) -> str:
    found = {(cell["workload"], cell["contender"]): cell for cell in cells}
    names = [
        name
        for name in dict.fromkeys(cell["contender"] for cell in cells)
        if any(c["contender"] == name and c["status"] != "cannot" for c in cells)
    ]
    rows = []
    for workload in dict.fromkeys(cell["workload"] for cell in cells):
        row = [workload]
        for name in names:
            cell = found[workload, name]
            own, ours = _seconds(cell), _seconds(found.get((workload, _ours_beside(name))))
            if own is None:
                row.append(_word(cell))
            elif is_ours(name):
                row.append(f"**{number_text(own * 1e6)}**")
            else:
                ratio = f" ({number_text(own / ours)}×)" if ours else ""
                row.append(number_text(own * 1e6) + ratio)
        rows.append(row)
    return table_text(["µs per instance", *names], rows)


def _ours_beside(name: str) -> str:
    return "cvxlayer jax" if " jax" in name else "cvxlayer"


def _overheads(rows: list[dict[str, Any]]) -> str:
    body = []
    for row in rows:
        engine, batch = row["engine"], row["batch"]
        cells = [row["workload"], str(batch), number_text(engine * 1e6)]
        for name in ("torch", "jax"):
            share = 100 * (row[name] - engine) / row[name]
            cells.append(f"{number_text((row[name] - engine) * 1e6)} ({share:.0f} %)")
        body.append(cells)
    header = ["workload", "batch", "engine", "torch adds", "JAX adds"]
    return (
        "### What the adapters add to the engine\n\n"
        "Microseconds of processor time a call. The engine: its solve and its vjp, called on the\n"
        "reduced cone programs. The rest of a step (forward and backward; in JAX compiled) is "
        "checks, the\nmaps from the parameters and back to them, and the framework; in brackets "
        "its share of the step.\nBelow zero: compiled code calls the engine from C++, and is "
        "spared the microseconds that Python\ntakes to call it.\n\n" + table_text(header, body)
    )


def _faults(cells: list[dict[str, Any]]) -> str:
    faults = [cell for cell in cells if cell["status"] in ("wrong", "failed", "too much")]
    if not faults:
        return ""
    rows = [
        [cell["measure"], cell["contender"], cell["workload"], _word(cell),
         error_text(cell["error"]), cell["note"].replace("|", "/")]
        for cell in faults
    ]  # fmt: skip
    header = ["measure", "contender", "workload", "verdict", "error", "why"]
    return "### Wrong or failed derivatives\n\n" + table_text(header, rows)
