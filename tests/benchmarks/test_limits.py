# SPDX-License-Identifier: Apache-2.0
"""A peer that raises, takes too long, eats the memory or kills the process costs its own cells."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.benchmarks.contenders import Answer, CannotError, Job
from tests.benchmarks.limits import as_peer
from tests.benchmarks.progress import HANGING_SECONDS, Progress, is_stuck
from tests.benchmarks.run import used
from tests.benchmarks.timing import FEWEST_TURNS, Peers, measure

ROOT = Path(__file__).resolve().parents[2]
PLACE = ("qp10", "jacobian", "peer")


def _job(run: Any) -> Job:
    return Job(run, lambda *_: Answer())


def _raise_after(calls: int) -> Any:
    seen = []

    def run(_: int) -> None:
        seen.append(0)
        if len(seen) > calls:
            raise RuntimeError("no cached state\nand a stack")

    return run


def _spin(_: int) -> NoReturn:
    """Never return, and catch what a library would."""
    while True:
        with contextlib.suppress(Exception):
            while True:
                sum(range(1000))


@pytest.mark.parametrize("calls", [0, 1, 100])
def test_a_peer_that_raises_loses_its_own_figures_alone(calls: int) -> None:
    jobs = {"cvxlayer": _job(lambda _: None), "peer": _job(_raise_after(calls))}
    found = measure(jobs, 4, 0.05, Peers(["peer"]))
    assert found["peer"] == {"status": "failed", "note": "no cached state"}
    assert found["cvxlayer"]["calls"] >= FEWEST_TURNS


@pytest.mark.parametrize("calls", [0, 1, 100])
def test_an_error_of_ours_ends_the_run(calls: int) -> None:
    jobs = {"cvxlayer": _job(_raise_after(calls)), "peer": _job(lambda _: None)}
    with pytest.raises(RuntimeError, match="no cached state"):
        measure(jobs, 4, 0.05, Peers(["peer"]))


def test_a_peer_that_failed_between_turns_is_not_called_again() -> None:
    calls: list[str] = []

    def wait(name: str) -> None:
        calls.append(name)
        time.sleep(0.1)

    def peer(_: int) -> None:
        if calls.count("other") == 1 + FEWEST_TURNS:  # one to warm up; its own turn comes last
            calls.append("failure")
            raise RuntimeError("no cached state")

    jobs = {
        "cvxlayer": _job(lambda _: wait("cvxlayer")),
        "peer": _job(peer),
        "other": _job(lambda _: wait("other")),
    }
    found = measure(jobs, 4, 0.01, Peers(["peer", "other"]))
    assert found["peer"] == {"status": "failed", "note": "no cached state"}
    assert calls.count("failure") == 1


def test_a_peer_that_does_not_come_back_is_too_slow() -> None:
    jobs = {"peer": _job(_spin), "cvxlayer": _job(lambda _: None)}
    found = measure(jobs, 4, 0.05, Peers(["peer"], seconds=0.2))
    assert found["peer"] == {"status": "left out", "note": "over 0.2 s"}
    assert found["cvxlayer"]["calls"] >= FEWEST_TURNS


def test_a_limit_counts_though_a_library_makes_another_error_of_it() -> None:
    def library() -> None:
        try:
            _spin(0)
        except BaseException as error:
            raise RuntimeError("callback failed") from error

    record: dict[str, Any] = {}
    with as_peer(record, 0.1):
        library()
    assert record["status"] == "left out"


def test_the_clock_of_processor_time_keeps_its_resolution_under_a_limit() -> None:
    steps = []
    with as_peer({}, 10.0):
        end = time.process_time() + 0.05
        while (before := time.process_time()) < end:
            sum(range(1000))
            steps.append(time.process_time() - before)
    assert 0.0 < statistics.median(steps) < 1e-3


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CannotError("quadratic programs only"), "cannot"),
        (MemoryError("std::bad_alloc"), "too much"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "too much"),
        (ValueError("shape"), "failed"),
    ],
)
def test_errors_have_their_words(error: Exception, status: str) -> None:
    record: dict[str, Any] = {}
    with as_peer(record, 10.0):
        raise error
    assert record["status"] == status


def _run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _die(path: Path, contender: str) -> None:
    code = (
        "import os; from pathlib import Path; from tests.benchmarks.progress import Progress\n"
        f"progress = Progress(Path({str(path)!r}))\n"
        "progress.add(cells=[{'workload': 'qp10', 'measure': 'forward mode'}])\n"
        f"progress.announce('qp10', 'jacobian', {contender!r}); os.abort()"
    )
    assert _run(code).returncode < 0


def test_where_a_process_died_the_next_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    _die(path, "peer")
    progress = Progress(path)
    assert progress.has("qp10", "forward mode")
    assert not progress.has(*PLACE[:2])
    assert progress.death(*PLACE) == {
        "status": "failed", "note": "the process died", "error": None,
    }  # fmt: skip
    assert progress.death("qp10", "jacobian", "other peer") is None
    progress.finish()
    assert Progress(path).report == progress.report


def test_who_stays_in_one_turn_is_stuck(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    assert not is_stuck(path)
    Progress(path).announce(*PLACE)
    assert not is_stuck(path)
    long_ago = time.time() - HANGING_SECONDS - 1
    os.utime(path.with_suffix(".turn"), (long_ago, long_ago))
    assert is_stuck(path)


def test_the_death_of_a_process_in_a_turn_of_ours_ends_the_run(tmp_path: Path) -> None:
    _die(tmp_path / "part.json", "cvxlayer jax")
    with pytest.raises(RuntimeError, match="The process died in qp10, jacobian, cvxlayer jax"):
        Progress(tmp_path / "part.json")


def test_whoever_asks_for_more_memory_than_the_limit_has_used_too_much() -> None:
    code = "from tests.benchmarks.limits import limit_memory; limit_memory(1.5)\n"
    code += "import numpy as np; np.ones(2**30)"
    assert used(_run(code))["status"] == "too much"
    assert used(_run("raise ValueError('shape')"))["status"] == "failed"
