# SPDX-License-Identifier: Apache-2.0
"""What only the native engine promises: lanes, threads, passes, and the fallback."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.native import pull_back
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.engine import prepare_engine
from cvxlayer.program.solution import ConeSolution, SolvedBy
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.clarabel import ClarabelBackend
from cvxlayer.solve.native import NativeBackend
from tests.benchmarks.catalog import workloads
from tests.catalog.cone_programs import ALL, ConeProgramCase, random_batch
from tests.catalog.hard_cone_programs import FAMILIES, hard_batch
from tests.catalog.residuals import kkt_residual

WIDTHS = _native.widths()
# Widths sum in different orders; near the end an interior point magnifies rounding by 1/μ.
TIGHT_EPS = 1e-10
ROUNDING = 1e-5
POLISHED = 1e-9


def solve(
    batch: ConeProgramBatch, threads: int = 1, eps: float = 1e-8, **extra: object
) -> ConeSolution:
    backend = NativeBackend()
    settings = Settings(eps, eps, threads=threads, extra={"fallback": False, **extra})
    return backend.solve(backend.setup(batch.structure), batch, settings)


def assert_equal_bits(first: ConeSolution, second: ConeSolution) -> None:
    for name in ("x", "y", "s", "status", "iterations", "is_active", "gap"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def large_batch(rng: np.random.Generator) -> ConeProgramBatch:
    """Enough work for several threads: the engine starts none that would not pay."""
    return mixed_batch(rng, 40).select(np.tile(np.arange(40), 20))


def mixed_batch(rng: np.random.Generator, size: int) -> ConeProgramBatch:
    cones = ConeProduct(2, 9, (3, 5))
    return random_batch(rng, n=8, cones=cones, batch=size)


@pytest.mark.parametrize("case", ALL, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_ends_every_case_with_its_status(
    case: ConeProgramCase, width: int, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    assert (solve(batch, width=width).status == case.status).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_widths_agree_up_to_rounding(width: int, rng: np.random.Generator) -> None:
    batch = mixed_batch(rng, 21)
    reference = solve(batch, eps=TIGHT_EPS, width=1)
    other = solve(batch, eps=TIGHT_EPS, width=width)
    np.testing.assert_allclose(other.x, reference.x, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(other.y, reference.y, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8, 9, 13, 17, 25])
@pytest.mark.parametrize("density", [0.7, 1.0])
def test_one_instance_agrees_with_lanes_at_every_size(
    n: int, density: float, rng: np.random.Generator
) -> None:
    """One instance runs on code of its own, in vectors and strips that need not divide n."""
    cones = ConeProduct(n // 4, 2 * n + 1)
    batch = random_batch(rng, n=n, cones=cones, batch=2, density=density)
    alone, lanes = solve(batch, width=1), solve(batch, width=WIDTHS[-1])
    assert (alone.status == Status.SOLVED).all()
    np.testing.assert_allclose(alone.x, lanes.x, rtol=0, atol=1e-8 * np.abs(lanes.x).max())


def test_the_same_call_twice_gives_the_same_bits(rng: np.random.Generator) -> None:
    batch = large_batch(rng)
    assert_equal_bits(solve(batch, threads=3), solve(batch, threads=3))


def test_threads_do_not_change_a_bit(rng: np.random.Generator) -> None:
    batch = large_batch(rng)
    assert_equal_bits(solve(batch, threads=1), solve(batch, threads=4))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_does_not_depend_on_its_neighbors(width: int, rng: np.random.Generator) -> None:
    batch = mixed_batch(rng, 30)
    order = rng.permutation(30)
    whole, shuffled = solve(batch, width=width), solve(batch.select(order), width=width)
    np.testing.assert_array_equal(whole.x[order], shuffled.x)
    np.testing.assert_array_equal(whole.y[order], shuffled.y)


@pytest.mark.parametrize("width", WIDTHS)
def test_one_hopeless_row_spoils_no_other(width: int, rng: np.random.Generator) -> None:
    batch = mixed_batch(rng, 2 * width + 1)
    spoiled = dataclasses.replace(batch, b=batch.b.copy(), q=batch.q.copy())
    spoiled.b[0] = np.nan
    spoiled.q[1 % batch.size] = 1e300
    good = np.arange(2, batch.size)
    before, after = solve(batch, width=width), solve(spoiled, width=width)
    assert not Status(after.status[0]).has_solution
    np.testing.assert_array_equal(after.x[good], before.x[good])


def test_the_polish_brings_solutions_to_rounding_level(rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=8, cones=ConeProduct(2, 9), batch=20)
    raw, polished = solve(batch, polish=False), solve(batch)
    exact = solve(batch, eps=1e-12)
    scale = np.abs(exact.x).max()
    assert np.abs(polished.x - exact.x).max() <= POLISHED * scale
    assert np.abs(polished.x - exact.x).max() <= np.abs(raw.x - exact.x).max()
    assert (polished.s >= 0.0).all()
    assert (polished.y[:, 2:] >= 0.0).all()
    assert (polished.s * polished.y == 0.0).all()


def test_a_shared_block_equals_its_copies(rng: np.random.Generator) -> None:
    batch = mixed_batch(rng, 19)
    shared = dataclasses.replace(batch, P=batch.P[:1], A=batch.A[:1])
    copied = dataclasses.replace(
        batch, P=np.repeat(batch.P[:1], 19, axis=0), A=np.repeat(batch.A[:1], 19, axis=0)
    )
    assert_equal_bits(solve(shared), solve(copied))


def test_strided_blocks_are_read_as_they_are(rng: np.random.Generator) -> None:
    batch = mixed_batch(rng, 10)
    transposed = dataclasses.replace(
        batch, q=np.asfortranarray(batch.q), A=np.asfortranarray(batch.A), b=batch.b[::-1][::-1]
    )
    assert_equal_bits(solve(batch), solve(transposed))


def test_an_infinite_bound_in_a_shared_matrix_stays_in_its_row(rng: np.random.Generator) -> None:
    batch = mixed_batch(rng, 40)
    batch = dataclasses.replace(batch, P=batch.P[:1], A=batch.A[:1], b=batch.b + 0.0)
    looser = dataclasses.replace(batch, b=batch.b.copy())
    looser.b[::5, 4] = np.inf
    before, after = solve(batch), solve(looser)
    untouched = np.flatnonzero(np.arange(40) % 5)
    np.testing.assert_array_equal(after.x[untouched], before.x[untouched])
    assert np.isposinf(after.s[::5, 4]).all()
    assert (after.y[::5, 4] == 0.0).all()


def test_the_limit_on_iterations_is_kept(rng: np.random.Generator) -> None:
    backend = NativeBackend()
    batch = mixed_batch(rng, 9)
    solution = backend.solve(backend.setup(batch.structure), batch, Settings(max_iters=2))
    assert (solution.status == Status.MAX_ITERATIONS).all()
    assert (solution.iterations == 2).all()
    assert (solution.solved_by == SolvedBy.FIRST_PASS).all()


@pytest.mark.parametrize(("name", "most"), [("qp50", 7.0), ("portfolio30", 10.0), ("gp8", 12.0)])
def test_few_iterations_lead_to_where_the_polish_takes_over(
    name: str, most: float, rng: np.random.Generator
) -> None:
    """Steps of one length took 7.7, 12.6 and 15.7, a late polish 7.7, 10.5 and 14.9."""
    workload = workloads()[name]
    batch = workload.cone_program(workload.sample(rng, 64))
    solution = solve(batch)
    assert (solution.status == Status.SOLVED).all()
    assert solution.iterations.mean() <= most
    assert kkt_residual(batch, solution.x, solution.y) <= 2e-8


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_hard_families_end_as_they_must(family: str, rng: np.random.Generator) -> None:
    """At most one in twenty needs the last resort, and with it every status is right."""
    backend = NativeBackend()
    total, wrong, resorted = 0, [], 0
    for number in range(30):
        batch, expected = hard_batch(family, rng)
        solution = backend.solve(backend.setup(batch.structure), batch, Settings(threads=1))
        total += batch.size
        resorted += int((solution.solved_by == SolvedBy.FALLBACK).sum())
        wrong += [
            (number, row, Status(code).name)
            for row, code in enumerate(solution.status)
            if not (code == expected or (expected.has_solution and Status(code).has_solution))
        ]
    assert not wrong
    assert resorted <= total / 20


def test_answers_of_the_last_resort_are_polished(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cvxlayer.solve import native

    run, failing = native._run, [1, 4]  # pyright: ignore[reportPrivateUsage]

    def run_and_fail(*args: Any, careful: bool) -> None:
        run(*args, careful=careful)
        is_polish = args[5:] and args[5][0] is not None
        if not is_polish:
            args[3].status[failing] = Status.NUMERICAL_ERROR

    batch, backend = mixed_batch(rng, 6), NativeBackend()
    tight = Settings(eps_abs=1e-12, eps_rel=1e-12, threads=1)
    exact = backend.solve(backend.setup(batch.structure), batch, tight)
    monkeypatch.setattr(native, "_run", run_and_fail)
    errors = {}
    for polish in (True, False):
        settings = Settings(threads=1, extra={"polish": polish})
        solution = backend.solve(backend.setup(batch.structure), batch, settings)
        assert (solution.status == Status.SOLVED).all()
        assert list(np.flatnonzero(solution.solved_by == SolvedBy.FALLBACK)) == failing
        errors[polish] = abs(solution.x - exact.x)[failing].max()
    assert errors[True] < 1e-11
    assert errors[False] > 100.0 * errors[True]


def test_hard_solutions_have_the_objective_of_clarabel(rng: np.random.Generator) -> None:
    native, clarabel = NativeBackend(), ClarabelBackend()
    for _ in range(20):
        batch, _ = hard_batch("feasible", rng)
        ours = native.solve(native.setup(batch.structure), batch, Settings(threads=1))
        theirs = clarabel.solve(clarabel.setup(batch.structure), batch, Settings(threads=1))
        for row in np.flatnonzero((ours.status == Status.SOLVED) & (theirs.status == 0)):
            P, q, _, _ = batch.instance(int(row))
            full = P + P.T - np.diag(P.diagonal())

            def objective(x: np.ndarray, full: np.ndarray = full, q: np.ndarray = q) -> float:
                return float(0.5 * x @ (full @ x) + q @ x)

            value = objective(theirs.x[row])
            assert objective(ours.x[row]) == pytest.approx(value, rel=1e-6, abs=1e-6)


def test_several_threads_of_the_caller_share_one_engine(rng: np.random.Generator) -> None:
    batch = large_batch(rng)
    expected = solve(batch)
    results: list[ConeSolution] = []
    callers = [
        threading.Thread(target=lambda: results.append(solve(batch, threads=2))) for _ in range(6)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 6
    for result in results:
        assert_equal_bits(expected, result)


def test_an_engine_is_built_once_for_a_structure(rng: np.random.Generator) -> None:
    first, second = mixed_batch(rng, 2), mixed_batch(rng, 2)
    assert prepare_engine(first.structure) is prepare_engine(first.structure)
    assert prepare_engine(first.structure) is not prepare_engine(second.structure)


_OTHER_INSTRUCTION_SET = """
import sys
import numpy as np
from cvxlayer import _native
from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.native import pull_back
from cvxlayer.program.engine import prepare_engine
from tests.catalog.cone_programs import random_batch
from tests.solve.test_native import solve
assert _native.instruction_set() == sys.argv[1]
batch = random_batch(np.random.default_rng(7), n=6, cones=ConeProduct(1, 6, (4,)), batch=11)
solution = solve(batch)
bar = np.ones_like(solution.x)
cotangent = pull_back(prepare_engine(batch.structure), batch, solution, bar, None, None)
np.savez(sys.argv[2], x=solution.x, status=solution.status, q=cotangent.q)
"""


@pytest.mark.parametrize("instruction_set", ["generic", "avx2"])
def test_every_instruction_set_gives_the_same_answers(instruction_set: str, tmp_path: Path) -> None:
    if instruction_set != "generic" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("AVX2 is an extension of x86-64")
    answers = tmp_path / "answers.npz"
    environment = os.environ | {"CVXLAYER_INSTRUCTION_SET": instruction_set}
    subprocess.run(
        [sys.executable, "-c", _OTHER_INSTRUCTION_SET, instruction_set, str(answers)],
        check=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    batch = random_batch(np.random.default_rng(7), n=6, cones=ConeProduct(1, 6, (4,)), batch=11)
    ours = solve(batch)
    bar = np.ones_like(ours.x)
    cotangent = pull_back(prepare_engine(batch.structure), batch, ours, bar, None, None)
    with np.load(answers) as theirs:
        np.testing.assert_array_equal(theirs["status"], ours.status)
        np.testing.assert_allclose(theirs["x"], ours.x, atol=ROUNDING, rtol=ROUNDING)
        np.testing.assert_allclose(theirs["q"], cotangent.q, atol=ROUNDING, rtol=ROUNDING)


def test_the_border_refuses_wrong_shapes(rng: np.random.Generator) -> None:
    batch = mixed_batch(rng, 3)
    short = dataclasses.replace(batch, q=batch.q[:, :-1])
    with pytest.raises(ValueError, match=r"`q` must have shape \(3, 8\)"):
        solve(short)
