# SPDX-License-Identifier: Apache-2.0
"""What is particular to each outside solver: its cones, its options, its side effects."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from cvxlayer.cones import projection
from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.errors import OptionError, Status, UnsupportedProblemError
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import parse_settings
from cvxlayer.solve.registry import get_backend
from cvxlayer.solve.residuals import measure
from tests.catalog.backends import CONES_OF, backend
from tests.catalog.cone_programs import (
    SEMIDEFINITE,
    THREE_DIMENSIONAL,
    ConeProgramCase,
    batch_of,
    random_batch,
)
from tests.catalog.curved_programs import CURVED, CurvedCase

SOLVER_EPS = 1e-9
# Without a quadratic term an error of the tolerance moves a solution by up to its square root.
ACCURACY = 1e-4
# Clarabel's test of feasibility is weaker than ours by as much as ten.
RESIDUAL, DISTANCE = 1e-8, 1e-8

CURVED_CATALOG = SEMIDEFINITE + THREE_DIMENSIONAL
HAS_CONE = [
    backend(name, case) for name, kinds in CONES_OF.items() for case in CURVED if case.kind in kinds
]
LACKS_CONE = [
    backend(name, case)
    for name, kinds in CONES_OF.items()
    for case in CURVED
    if case.kind not in kinds
]


def solve(name: str, batch: ConeProgramBatch, **options: Any) -> ConeSolution:
    engine = get_backend(name)
    settings = parse_settings(engine, {"eps": SOLVER_EPS, **options})
    return engine.solve(engine.setup(batch.structure), batch, settings)


@pytest.mark.parametrize(("name", "case"), HAS_CONE, ids=str)
def test_a_curved_cone_gives_its_closed_form(
    name: str, case: CurvedCase, rng: np.random.Generator
) -> None:
    batch, x, y = case.build(rng)
    solution = solve(name, batch)
    assert (solution.status == Status.SOLVED).all()
    np.testing.assert_allclose(solution.x, x, rtol=ACCURACY, atol=ACCURACY)
    np.testing.assert_allclose(solution.y, y, rtol=ACCURACY, atol=ACCURACY)
    slack = batch.b - x * batch.instance(0)[2].toarray()[:, 0]
    np.testing.assert_allclose(solution.s, slack, rtol=ACCURACY, atol=ACCURACY)


@pytest.mark.parametrize("name", [backend(name) for name in CONES_OF])
@pytest.mark.parametrize("case", CURVED_CATALOG, ids=str)
def test_random_programs_over_curved_cones_end_as_they_should_or_are_refused(
    name: str, case: ConeProgramCase, rng: np.random.Generator
) -> None:
    batch = case.build(rng)
    cones = batch.structure.cones
    if not {cone.kind for cone in cones.curved} <= CONES_OF[name]:
        with pytest.raises(UnsupportedProblemError):
            solve(name, batch)
        return
    solution = solve(name, batch)
    assert (solution.status == case.status).all()
    if case.status is Status.SOLVED:
        for row in range(batch.size):
            point = solution.x[row], solution.y[row], solution.s[row]
            assert measure(batch.instance(row), *point).are_below(RESIDUAL, RESIDUAL)
    if case.status is not Status.INFEASIBLE:
        distance = projection.project(cones, solution.s) - solution.s
        assert np.abs(distance).max() <= DISTANCE * (1.0 + np.abs(solution.s).max())
    if case.status is not Status.UNBOUNDED:
        distance = projection.project_dual(cones, solution.y) - solution.y
        assert np.abs(distance).max() <= DISTANCE * (1.0 + np.abs(solution.y).max())


@pytest.mark.parametrize(("name", "case"), LACKS_CONE, ids=str)
def test_a_cone_the_solver_lacks_is_refused_by_name(
    name: str, case: CurvedCase, rng: np.random.Generator
) -> None:
    batch, _, _ = case.build(rng)
    with pytest.raises(UnsupportedProblemError, match=f"{case} cone.*`{name}`.*such as"):
        solve(name, batch)


@pytest.mark.parametrize("name", [backend("scs"), backend("ecos"), backend("diffcp")])
def test_several_cones_keep_their_rows_apart(name: str, rng: np.random.Generator) -> None:
    """Two exponential cones behind linear rows and a second-order cone."""
    a, z = rng.normal(size=2), rng.normal(size=3)
    cones = ConeProduct(zero=1, nonnegative=1, second_order=(4,), exponential=2)
    # x = (fixed, bounded below, ‖z‖, eᵃ¹, eᵃ²); each is minimized.
    A = np.zeros((12, 5))
    A[0, 0], A[1, 1], A[2, 2], A[8, 3], A[11, 4] = 1.0, -1.0, -1.0, -1.0, -1.0
    b = np.concatenate([[3.0, -2.0, 0.0], z, [a[0], 1.0, 0.0, a[1], 1.0, 0.0]])
    batch = batch_of(cones, [np.zeros((5, 5))], [np.ones(5)], [A], [b])
    solution = solve(name, batch)
    expected = [3.0, 2.0, np.linalg.norm(z), *np.exp(a)]
    np.testing.assert_allclose(solution.x[0], expected, rtol=ACCURACY, atol=ACCURACY)
    np.testing.assert_allclose(solution.y[0, [0, 1, 2, 8, 11]], [-1.0, 1, 1, 1, 1], rtol=ACCURACY)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        backend("scs", "alpha", "large"),
        backend("scs", "scale", -1.0),
        backend("ecos", "feastol", "small"),
        backend("ecos", "nitref", 1.5),
        backend("diffcp", "mode", "lsq"),
        backend("diffcp", "solve_method", "ECOS"),
    ],
)
def test_a_value_the_solver_refuses_is_our_error(
    name: str, option: str, value: object, rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=3, cones=ConeProduct(0, 2))
    with pytest.raises(OptionError, match=f"option `{option}`.*{value!r}"):
        solve(name, batch, **{option: value})


def test_diffcp_does_not_take_large_semidefinite_cones_to_clarabel(
    rng: np.random.Generator,
) -> None:
    """It would permute their rows the wrong way round, and solve another program."""
    pytest.importorskip("diffcp")
    (case,) = (case for case in CURVED if case.kind is ConeKind.SEMIDEFINITE)
    batch, _, _ = case.build(rng)
    with pytest.raises(OptionError, match=r"semidefinite cones beyond order 3.*`solve_method`"):
        solve("diffcp", batch, solve_method="Clarabel")


@pytest.mark.parametrize(
    ("name", "option", "nearest"),
    [
        backend("scs", "acceleration_lookbak", "acceleration_lookback"),
        backend("ecos", "featol", "feastol"),
        backend("diffcp", "solve_metod", "solve_method"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_one(
    name: str, option: str, nearest: str
) -> None:
    with pytest.raises(OptionError, match=f"no option `{option}`.*`{nearest}`"):
        parse_settings(get_backend(name), {option: 1})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        backend("scs", {"acceleration_lookback": 0}),
        backend("ecos", {"feastol": 1e-2, "abstol": 1e-2, "reltol": 1e-2}),
        backend("diffcp", {"solve_method": "Clarabel"}),
    ],
)
def test_an_option_of_the_solver_reaches_it(
    name: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=8, cones=ConeProduct(2, 9, (4,)))
    iterations = solve(name, batch, **options).iterations
    assert (iterations != solve(name, batch).iterations).any()


@pytest.mark.parametrize("name", [backend("ecos"), backend("scs"), backend("diffcp")])
def test_the_data_are_left_as_they_were(name: str, rng: np.random.Generator) -> None:
    """Also entries of A that are zero in one instance: diffcp drops them in place."""
    batch = random_batch(rng, n=5, cones=ConeProduct(1, 4), density=1.0)
    batch.A[1, 3] = 0.0
    before = [block.copy() for block in (batch.P, batch.q, batch.A, batch.b)]
    indices = batch.structure.A_indices.copy()
    solve(name, batch)
    for block, kept in zip((batch.P, batch.q, batch.A, batch.b), before, strict=True):
        np.testing.assert_array_equal(block, kept)
    np.testing.assert_array_equal(batch.structure.A_indices, indices)


@pytest.mark.parametrize("name", [backend("ecos"), backend("scs"), backend("diffcp")])
def test_ctrl_c_still_works_after_threads_have_solved(name: str) -> None:
    code = f"""
import os, signal, time
import numpy as np
from cvxlayer.cones import projection
from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from cvxlayer.solve.residuals import measure
from tests.catalog.cone_programs import random_batch

batch = random_batch(np.random.default_rng(0), n=20, cones=ConeProduct(2, 40), batch=16)
engine = get_backend({name!r})
for _ in range(3):
    engine.solve(engine.setup(batch.structure), batch, Settings(threads=4))
# A process that was started in the background of a shell ignores the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "interrupted\n"
