# SPDX-License-Identifier: Apache-2.0
"""The benchmark's own machinery: it must notice wrong peers and compare fairly."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.catalog import workloads
from tests.benchmarks.contenders import (
    AbstractContender,
    Answer,
    DataSet,
    Job,
    moving_blocks,
)
from tests.benchmarks.derivative_tables import render_derivatives, replace_section
from tests.benchmarks.every_derivative import LIMIT, Examination, Truth
from tests.benchmarks.figures import render
from tests.benchmarks.forms import SparseBatch, stack_rows
from tests.benchmarks.reference import solve
from tests.benchmarks.targets import Table, reached
from tests.benchmarks.timing import FEWEST_TURNS, MOST_TURNS, Samples, measure
from tests.benchmarks.verdict import Examiner
from tests.benchmarks.worker import CALLS_AT_ONCE, at_once
from tests.catalog.problems import project_simplex


class _Trusted(AbstractContender):
    """Returns the reference solution, changed by a given amount."""

    name, settings = "trusted", ""

    def __init__(self, error: float) -> None:
        self._error = error

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        del threads
        solutions = [solve(one.cone_program, 1e-10) for one in sets]
        return Job(lambda k: solutions[k], lambda s, _: Answer(s[0] + self._error, s[1]))


class _Failing(AbstractContender):
    name, settings = "failing", ""

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        raise RuntimeError("no licence")


@pytest.mark.parametrize("name", ["qp10", "portfolio30"])
@pytest.mark.parametrize(("error", "status"), [(0.0, "right"), (1e-5, "wrong")])
def test_a_contender_is_right_exactly_if_its_answer_is_optimal(
    name: str, error: float, status: str
) -> None:
    assert Examiner(workloads()[name]).examine(_Trusted(error), "forward").status == status


def test_a_gradient_without_one_of_its_blocks_is_wrong() -> None:
    examiner = Examiner(workloads()["qp10"])
    slopes = examiner.data
    # At one instance, a gradient that reproduces the slopes of blocks q, A, b but not P.
    reconstructed: list[np.ndarray | None] = [None]
    for block, (tangent, slope) in enumerate(
        zip(slopes.tangents[1:], slopes.slopes[1:], strict=True), start=1
    ):
        direction = tangent[block]
        scale = slope / (direction**2).reshape(len(slope), -1).sum(axis=1)
        reconstructed.append(direction * scale[:, None])
    assert slopes.error(reconstructed) > 1e-2
    direction = slopes.tangents[0][0]
    scale = slopes.slopes[0] / (direction**2).sum(axis=1)
    assert slopes.error([direction * scale[:, None], *reconstructed[1:]]) < 1e-12


def test_a_crash_is_a_verdict() -> None:
    verdict = Examiner(workloads()["qp10"]).examine(_Failing(), "forward")
    assert verdict.status == "failed"
    assert "no licence" in verdict.note


def test_every_contender_has_its_turns_on_every_data_set() -> None:
    seen: dict[str, list[int]] = {"a": [], "b": []}

    def job(name: str) -> Job:
        return Job(lambda k: seen[name].append(k), lambda *_: Answer())

    found = measure({name: job(name) for name in seen}, num_sets=4, seconds=0.01)
    for name, calls in seen.items():
        assert found[name]["calls"] >= FEWEST_TURNS
        assert set(calls) == {0, 1, 2, 3}


def _sleepers(**seconds: float) -> tuple[list[str], dict[str, Job]]:
    """Jobs that only take time, and the list into which each call writes its name."""
    order: list[str] = []

    def sleep(name: str) -> None:
        order.append(name)
        time.sleep(seconds[name])

    jobs = {name: Job(lambda _, name=name: sleep(name), _no_answer) for name in seconds}
    return order, jobs


def test_contenders_have_equally_many_turns_over_the_same_time() -> None:
    order, jobs = _sleepers(slow=0.01, fast=0.001)
    found = measure(jobs, 1, seconds=0.4)
    turns = [name for name, _ in itertools.groupby(order[2:])]  # after one call each to warm up
    assert found["slow"]["turns"] == found["fast"]["turns"] <= MOST_TURNS
    assert found["fast"]["calls"] > found["slow"]["calls"]
    # The order moves on by one: whoever ended a round begins the next.
    assert {*turns[::2]} == {"slow"}
    assert {*turns[1::2]} == {"fast"}


def test_a_slow_contender_has_the_fewest_turns() -> None:
    _, jobs = _sleepers(slow=0.02)
    found = measure(jobs, 1, seconds=0.01)
    assert found["slow"]["turns"] == found["slow"]["calls"] == FEWEST_TURNS


def test_quick_contenders_have_turns_between_those_of_slow_ones() -> None:
    order, jobs = _sleepers(quick=0.001, slow=0.1, slower=0.12)
    found = measure(jobs, 1, seconds=0.01)
    stretches = [name for name, _ in itertools.groupby(order[3:])]  # after the calls to warm up
    assert found["slow"]["turns"] == found["slower"]["turns"] == FEWEST_TURNS
    assert found["quick"]["turns"] >= FEWEST_TURNS + 2
    assert stretches.count("quick") >= FEWEST_TURNS + 2


def test_a_turn_counts_once_however_many_calls_it_holds() -> None:
    turns = [[1.0] * 50, [2.0] * 25, [2.0] * 25]
    summary = Samples(turns, turns).summary()
    assert summary["seconds"] == summary["processor_seconds"] == 2.0
    assert summary["calls"] == 100


def test_constant_data_is_recognized_at_batch_one_too() -> None:
    for name, moving in {
        "qp10": "APbq",
        "qp10-qh": "bq",
        "mpc20-start": "bq",
        "mpc20": "Abq",
    }.items():
        workload = workloads()[name]
        rng = np.random.default_rng(0)
        bars = (np.zeros(0), np.zeros(0))
        sets = [DataSet(workload, workload.sample(rng, 1), *bars) for _ in range(2)]
        assert "".join(sorted(moving_blocks(sets))) == moving


def test_stacked_matrices_equal_dense_ones() -> None:
    rng = np.random.default_rng(0)
    upper, lower = rng.standard_normal((3, 2, 4)), rng.standard_normal((5, 4))
    stacked = stack_rows([SparseBatch.from_dense(upper), SparseBatch.from_dense(lower)]).dense
    for index in range(3):
        np.testing.assert_array_equal(stacked[index], np.vstack([upper[index], lower]))


def _cell(contender: str, seconds: float, **changes: Any) -> dict[str, Any]:
    cell = {
        "measure": "forward", "batch": 64, "cores": 1, "workload": "simplex100",
        "contender": contender, "status": "right", "seconds": seconds,
        "processor_seconds": seconds,
    }  # fmt: skip
    return cell | changes


def test_a_target_is_reached_only_against_the_faster_way_of_a_peer() -> None:
    cells = [_cell("cvxlayer", 1.0), _cell("clarabel", 20.0), _cell("clarabel (update)", 9.0)]
    (only,) = (one for one in reached(Table(cells)) if "Clarabel" in one.target.claim)
    assert only.median == pytest.approx(9.0)
    assert only.num_reached == 0


def test_waiting_for_a_busy_core_does_not_count_on_one_core_but_does_on_two() -> None:
    busy = {"seconds": 4.0, "processor_seconds": 1.0}
    cells = [_cell("cvxlayer", 0) | busy, _cell("cvxlayer", 0, cores=2) | busy]
    table = Table(cells)
    assert table.seconds("forward", 64, "simplex100", "cvxlayer") == pytest.approx(1 / 64)
    assert table.seconds("forward", 64, "simplex100", "cvxlayer", 2) == pytest.approx(4 / 64)


def test_a_wrong_contender_is_never_a_peer_to_be_compared_with() -> None:
    wrong = {k: v for k, v in _cell("clarabel", 1.0, status="wrong").items() if "seconds" not in k}
    table = Table([_cell("cvxlayer", 1.0), wrong])
    assert table.best("forward", 64, "simplex100", "clarabel") is None


class _Transformed:
    """A layer of which a derivative is what a given function says."""

    name, settings = "transformed", ""

    def __init__(self, function: Any) -> None:
        self._function = function

    def array(self, values: np.ndarray) -> np.ndarray:
        return values

    def to_numpy(self, result: Any) -> list[np.ndarray]:
        return list(result)

    def choose(self, *_: Any) -> Any:
        return self._function


def _jacobian(point: np.ndarray) -> np.ndarray:
    """Of the projection onto the simplex, for each row of a batch."""
    shifts = [project_simplex(row)[0] > 0 for row in point]
    support = np.array(shifts, dtype=float)
    outer = support[:, :, None] * support[:, None, :]
    return support[:, :, None] * np.eye(point.shape[1]) - outer / support.sum(1)[:, None, None]


def _derivative(measure: str, size: float) -> Any:
    """A derivative of the projection onto the simplex, `size` times as large as it is."""

    def function(values: Any, extra: Any) -> Any:
        J = size * _jacobian(values[0])
        if measure == "forward mode":
            return (np.einsum("bij,bj->bi", J, extra[0]),)
        if measure == "hessian product":  # the projection is linear nearby: JᵀJ = J
            return (np.einsum("bij,bj->bi", J, extra[0]),)
        if measure == "jacobian":
            return (J[:, :, None, :],)
        pulled = np.einsum("bij,...bi->...bj", J, extra)
        return (pulled,) if measure == "cotangents" else (values[0], pulled)

    return function


@pytest.mark.parametrize(
    "measure", ["forward mode", "jacobian", "hessian product", "cotangents", "jit step"]
)
def test_a_derivative_is_right_exactly_if_it_has_the_slopes_of_solutions(measure: str) -> None:
    truth = Truth(workloads()["simplex100"])
    for size, is_right in ((1.0, True), (1.02, False)):
        one: Any = _Transformed(_derivative(measure, size))
        assert (Examination(one, measure, truth).error() <= LIMIT) == is_right


def test_the_section_about_derivatives_is_replaced_where_it_is() -> None:
    cell = _cell("cvxlayer", 6.4, measure="jacobian", batch=1)
    cells = [
        cell,
        cell | {"contender": "slower", "seconds": 12.8, "processor_seconds": 12.8},
        {"workload": "simplex100", "measure": "jacobian", "batch": 1, "contender": "none",
         "status": "cannot", "note": "", "error": None},
    ]  # fmt: skip
    overheads = [{"workload": "simplex100", "batch": 1, "engine": 1e-3, "torch": 2e-3, "jax": 4e-3}]
    section = render_derivatives({"cells": cells, "overheads": overheads, "commit": "abc"})
    assert "Measured at commit abc, on simplex100." in section
    assert "12,800,000 (2×)" in section
    assert "none" not in section
    assert "1,000 (50 %) | 3,000 (75 %)" in section
    page = "# Benchmarks\n\n## Memory\n\n…\n\n## Settings and accuracy\n\n…\n"
    once = replace_section(page, section)
    assert once.index("## Memory") < once.index("## Every other") < once.index("## Settings")
    assert replace_section(once, section) == once


def test_calls_at_once_are_made_on_two_threads() -> None:
    calls: dict[int, list[int]] = {}
    job = Job(lambda k: calls.setdefault(threading.get_ident(), []).append(k), _no_answer)
    at_once(job, num_sets=3).run(2)
    own = calls.pop(threading.get_ident())
    (others,) = calls.values()
    assert own == [(2 + k) % 3 for k in range(CALLS_AT_ONCE)]
    assert others == [(3 + k) % 3 for k in range(CALLS_AT_ONCE)]


def test_a_page_tells_its_kernels_and_what_the_machine_gives_to_two_cores() -> None:
    cell = {
        "workload": "qp10", "measure": "forward", "batch": 64, "cores": 2, "contender": "cvxlayer",
        "settings": "", "status": "right", "note": "", "kkt": None, "solution_error": None,
        "gradient_error": None, "seconds": 64e-6, "processor_seconds": 1e-4,
        "one_thread_seconds": 96e-6, "available_speedup": 1.8,
    }  # fmt: skip
    machine = {"processor": "P", "cores": 2, "system": "S", "python": "3", "packages": {}}
    report = {"seconds": 60.0, "cells": [cell], "cold_start": [], "memory": []}
    pages = {
        kernels: render(report | {"machine": machine | {"commit": "c", "kernels": kernels}})
        for kernels in ("avx2", "avx512")
    }
    assert pages["avx2"].startswith("# Benchmarks without AVX-512\n")
    assert pages["avx512"].startswith("# Benchmarks\n")
    for kernels, page in pages.items():
        assert f"our kernels for {kernels}," in page
        assert "| qp10 | 1 (1.50× / 1.80×) |" in page
        share = [line for line in page.splitlines() if "two threads that share nothing" in line]
        assert share == [
            "| the same, over what two threads that share nothing reach at that time | ≥ 0.85× "
            "| 0.833× | 0.833× (qp10, batch 64) | 0 of 1 |"
        ]


def _no_answer(result: Any, index: int) -> Answer:
    del result, index
    return Answer()
