# SPDX-License-Identifier: Apache-2.0
"""`make bench`: measure everything side by side, save JSON, print or write the tables.

Every workload runs in a process of its own, bound to one core, then once more on two
cores; cold starts and memory need fresh processes anyway.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.derivative_tables import render_derivatives, replace_section
from tests.benchmarks.figures import render
from tests.benchmarks.limits import lacks_memory
from tests.benchmarks.progress import is_stuck
from tests.benchmarks.worker import BATCHES, MEASURES

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_OTHERS = ROOT / "docs" / "others.md"
DEFAULT_OUTPUT = ROOT / "output" / "benchmarks.json"
PACKAGES = (
    "cvxlayer", "cvxpy", "torch", "numpy", "scipy", "cvxpylayers", "diffcp", "moreau", "clarabel",
    "scs", "ecos", "qoco", "piqp", "daqp", "proxsuite", "qpth",
)  # fmt: skip
QUICK_WORKLOADS = ("simplex100", "qp10", "qp50-qh", "mpc20", "portfolio30")
COLD_LAYERS = ("cvxlayer", "cvxpylayers moreau auto", "cvxpylayers diffcp")
COLD_WORKLOADS = ("qp10-qh", "mpc20-start")
MEMORY_WORKLOADS = ("simplex100", "qp50", "mpc20", "portfolio30")
MEMORY_LAYERS = ("cvxlayer", "cvxpylayers moreau ipm", "proxsuite", "qpth")
MEMORY_BATCH = 1024
MEMORY_SECONDS = 180
#: So often the measurement of derivatives goes on after its process has died.
MOST_DEATHS = 10
SECONDS_BETWEEN_LOOKS = 5.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in under three minutes")
    parser.add_argument("--only", nargs="+", metavar="WORKLOAD", help="these workloads alone")
    parser.add_argument(
        "--others", nargs="*", metavar="PROBLEM",
        help="instead: problems made by others (Maros-Meszaros, SDPLIB), all or these",
    )  # fmt: skip
    parser.add_argument(
        "--derivatives", action="store_true",
        help="instead: every other derivative and what the adapters cost, in five minutes",
    )  # fmt: skip
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--batches", nargs="+", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None, help="for one cell")
    parser.add_argument("--solver", default=None, help="backend of our side (default: native)")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, metavar="JSON")
    parser.add_argument(
        "--markdown", type=Path, nargs="?", const=default_page(), default=None,
        help="also write the tables into this file (default: the page in docs of our kernels here)",
    )  # fmt: skip
    return parser.parse_args()


def _module(
    name: str,
    *arguments: str,
    seconds: float = 900,
    is_stuck: Callable[[], bool] = lambda: False,
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *arguments]
    pipe, deadline = subprocess.PIPE, time.monotonic() + seconds
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
    ) as process:
        while True:
            wait = min(SECONDS_BETWEEN_LOOKS, max(0.0, deadline - time.monotonic()))
            try:
                output, errors = process.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline and not is_stuck():
                    continue
                process.kill()
                process.communicate()
                return subprocess.CompletedProcess(
                    command, -signal.SIGKILL, "", f"over {seconds:g} s"
                )
            return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _failure(found: subprocess.CompletedProcess[str]) -> str:
    lines = found.stderr.strip().splitlines()
    return lines[-1][:300] if lines else f"exit code {found.returncode}"


def _measure(names: list[str], cores: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One worker process for these workloads."""
    batches = options.batches if cores == 1 else [b for b in options.batches if b >= 64]
    if not batches:
        return []
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.json"
        arguments = ["--workloads", *names, "--cores", str(cores), "--output", str(part)]
        arguments += ["--batches", *map(str, batches), "--measures", *options.measures]
        arguments += ["--seconds", str(options.seconds if cores == 1 else options.seconds / 3)]
        arguments += ["--longest-call", "0.4" if options.quick else "1.5"]
        arguments += ["--solver", options.solver] if options.solver else []
        arguments += ["--ours-only"] if cores > 1 else []
        found = _module("worker", *arguments)
        if found.returncode:
            print(f"  worker for {', '.join(names)}: {_failure(found)}", file=sys.stderr)
        return json.loads(part.read_text()) if part.exists() else []


def _cold_starts(repetitions: int) -> list[dict[str, Any]]:
    rows = []
    for _ in range(repetitions):
        for workload in COLD_WORKLOADS:
            for layer in COLD_LAYERS:
                found = _module("cold_start", layer, workload)
                times = {"failure": _failure(found)}
                if found.returncode == 0:
                    times = json.loads(found.stdout.splitlines()[-1])
                rows.append({"layer": layer, "workload": workload, **times})
    return rows


def _memory(names: list[str], ours: str) -> list[dict[str, Any]]:
    rows = []
    for workload in (name for name in MEMORY_WORKLOADS if name in names):
        for layer in (ours, *MEMORY_LAYERS[1:]):
            if workload == "portfolio30" and layer in ("proxsuite", "qpth"):
                continue
            found = _module("memory", layer, workload, str(MEMORY_BATCH), seconds=MEMORY_SECONDS)
            rows.append({
                "layer": layer, "workload": workload, "batch": MEMORY_BATCH, **used(found)
            })  # fmt: skip
    return rows


def used(found: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a process of `memory.py` measured, or how it ended."""
    if found.returncode == 0:
        return json.loads(found.stdout.splitlines()[-1])
    status = "too much" if lacks_memory(found.stderr) else "failed"
    if found.returncode == -signal.SIGKILL:
        status = "too slow"
    return {"failure": _failure(found), "status": status}


def kernels() -> str:
    """The instruction set that our engine uses here."""
    from cvxlayer._native import instruction_set

    return instruction_set()


def default_page() -> Path:
    """Where the tables belong: one page for each instruction set, that of AVX-512 the first."""
    suffix = "" if kernels() == "avx512" else f"-{kernels()}"
    return ROOT / "docs" / f"benchmarks{suffix}.md"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        model = next((one.split(":")[1].strip() for one in lines if "model name" in one), model)
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "kernels": kernels(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.stdout.strip() or "unknown"


def _settle(options: argparse.Namespace) -> None:
    """Fill in what `--quick` and its absence mean."""
    options.batches = options.batches or ([1, 64] if options.quick else list(BATCHES))
    options.seconds = options.seconds or (0.6 if options.quick else 4.0)


def _run_others(options: argparse.Namespace) -> None:
    from tests.benchmarks.others import measure_all, render, render_page
    from tests.benchmarks.worker import bind

    bind(1)
    records = measure_all(options.others)
    rows = [dataclasses.asdict(record) for record in records]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine(), "others": rows}, indent=1))
    print(render(records))
    if options.markdown is not None:
        page = DEFAULT_OTHERS if options.markdown == default_page() else options.markdown
        page.write_text(render_page(records, machine()))


def _derivatives(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the section about derivatives in a process of its own, or in the next if it dies.

    What was measured is kept beside the output until all is; `failure` says what ended it.
    """
    part = options.output.with_suffix(".derivatives.json")
    part.parent.mkdir(parents=True, exist_ok=True)
    for old in (part, part.with_suffix(".turn")):
        old.unlink(missing_ok=True)
    chosen = ["--only", *options.only] if options.only else []
    chosen += ["--seconds", str(options.seconds)] if options.derivatives and options.seconds else []
    for _ in range(MOST_DEATHS):
        found = _module(
            "every_derivative", "--output", str(part), *chosen,
            seconds=3600, is_stuck=functools.partial(is_stuck, part),
        )  # fmt: skip
        if found.returncode >= 0:
            break
        print(f"  derivatives: {_failure(found)}; the next process goes on", file=sys.stderr)
    measured = json.loads(part.read_text()) if part.exists() else {"cells": [], "overheads": []}
    failure = found.stderr if found.returncode else None
    if failure is None:
        part.unlink(missing_ok=True)
    return measured | {"commit": _commit(), "failure": failure}


def _end_if_failed(measured: dict[str, Any] | None) -> None:
    if measured and measured["failure"]:
        raise SystemExit(f"{measured['failure']}\nThe derivatives were not all measured.")


def _run_derivatives(options: argparse.Namespace) -> None:
    """Measure that section alone, and put it where the rest already is."""
    measured = _derivatives(options)
    report = json.loads(options.output.read_text()) if options.output.exists() else {}
    report |= {"machine": report.get("machine") or machine(), "derivatives": measured}
    options.output.write_text(json.dumps(report, indent=1))
    _end_if_failed(measured)
    section = render_derivatives(measured)
    if options.markdown is None:
        print(section)
    else:
        options.markdown.write_text(replace_section(options.markdown.read_text(), section))


def main() -> None:
    """Run, save, render."""
    options = _arguments()
    if options.derivatives:
        _run_derivatives(options)
        return
    if options.others is not None:
        _run_others(options)
        return
    _settle(options)
    from tests.benchmarks.catalog import workloads

    names = options.only or list(QUICK_WORKLOADS if options.quick else workloads())
    unknown = sorted(set(names) - set(workloads()))
    if unknown:
        raise SystemExit(f"No workload {', '.join(unknown)}. There are: {', '.join(workloads())}.")
    start = time.perf_counter()
    cells: list[dict[str, Any]] = []
    for group in [names] if options.quick else [[name] for name in names]:
        print(f"{time.perf_counter() - start:6.0f} s  {', '.join(group)}", file=sys.stderr)
        for cores in (1,) if options.quick or machine()["cores"] < 2 else (1, 2):
            cells += _measure(group, cores, options)
    print(
        f"{time.perf_counter() - start:6.0f} s  cold starts, memory, derivatives", file=sys.stderr
    )
    ours = f"cvxlayer ({options.solver})" if options.solver else "cvxlayer"
    report = {
        "machine": machine(),
        "seconds": None,
        "cells": cells,
        "cold_start": [] if options.only or options.quick else _cold_starts(3),
        "memory": [] if options.quick else _memory(names, ours),
        "derivatives": None if options.only or options.quick else _derivatives(options),
    }
    report["seconds"] = time.perf_counter() - start
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1))
    text = render(report)
    if options.markdown is None:
        print(text)
    else:
        options.markdown.write_text(text)
    _end_if_failed(report["derivatives"])


if __name__ == "__main__":
    main()
