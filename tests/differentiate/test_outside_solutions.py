# SPDX-License-Identifier: Apache-2.0
"""Derivatives at other solvers' solutions: ours at rough ones, and diffcp's own."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.native import NativeDerivative
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramCotangent
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.backends import backend
from tests.catalog.cone_programs import REGULAR, ConeProgramCase, random_batch

# What one Newton step leaves of an error of this tolerance.
ROUGH_EPS, ROUGH_GRADIENT = 1e-4, 1e-3
OWN_GRADIENT = 1e-5
# diffcp differentiates in the units it is given, so that scale is accuracy there.
PLAIN_UNITS = [
    case
    for case in REGULAR
    if "scaled" not in str(case)
    and "objective" not in str(case)
    and (str(case) == "exponential" or not case.is_three_dimensional)  # it has no power cones
]
BLOCKS = ("P", "q", "A", "b")


def solve(name: str, batch: ConeProgramBatch, settings: Settings) -> ConeSolution:
    engine = get_backend(name)
    return engine.solve(engine.setup(batch.structure), batch, settings)


def pull_back(
    batch: ConeProgramBatch, solution: ConeSolution, bars: list[np.ndarray | None]
) -> ConeProgramCotangent:
    derivative = NativeDerivative()
    return derivative.vjp(derivative.setup(batch.structure), batch, solution, *bars)


@pytest.mark.parametrize("name", [backend("scs"), backend("ecos"), backend("diffcp")])
@pytest.mark.parametrize(
    "cones", [ConeProduct(3, 20), ConeProduct(2, 12, (4, 3, 3))], ids=["linear", "mixed"]
)
def test_a_rough_solution_has_the_gradient_of_the_exact_one(
    name: str, cones: ConeProduct, rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=12, cones=cones, batch=20)
    rough = solve(name, batch, Settings(ROUGH_EPS, ROUGH_EPS))
    exact = solve("native", batch, Settings())
    assert (rough.status == Status.SOLVED).all()
    bars = [rng.normal(size=exact.x.shape), rng.normal(size=exact.y.shape), None]
    ours, true = pull_back(batch, rough, bars), pull_back(batch, exact, bars)
    for block in BLOCKS:
        _assert_close(getattr(ours, block), getattr(true, block), ROUGH_GRADIENT)


@pytest.mark.parametrize("mode", ["lsqr", "lsmr", "dense"])
@pytest.mark.parametrize("case", PLAIN_UNITS, ids=str)
@pytest.mark.parametrize("parts", ["x", "y", "xys"])
def test_diffcps_own_derivative_equals_ours(
    mode: str, case: ConeProgramCase, parts: str, rng: np.random.Generator
) -> None:
    pytest.importorskip("diffcp")
    if mode == "lsqr" and str(case) == "dense-rows":
        pytest.skip("diffcp's lsqr ends early here, some percent off; its other modes do not")
    batch = case.build(rng)
    settings = Settings(extra={"mode": mode})
    theirs, exact = solve("diffcp", batch, settings), solve("native", batch, Settings())
    derivative = get_backend("diffcp").derivative(settings)
    assert derivative is not None
    finite = np.isfinite(exact.s)
    bars = [
        np.where(mask, rng.normal(size=mask.shape), 0.0) if part in parts else None
        for part, mask in (("x", np.isfinite(exact.x)), ("y", finite), ("s", finite))
    ]
    own = derivative.vjp(None, batch, theirs, *bars, needs=(True,) * 4, threads=1)
    ours = pull_back(batch, exact, bars)
    for block in BLOCKS:
        _assert_close(getattr(own, block), getattr(ours, block), OWN_GRADIENT)


def test_without_a_mode_diffcps_solutions_get_our_derivative() -> None:
    pytest.importorskip("diffcp")
    engine = get_backend("diffcp")
    assert engine.derivative(Settings()) is None
    settings = Settings(extra={"mode": "lsqr"})
    assert engine.derivative(settings) is engine.derivative(settings) is not None


def _assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * (1.0 + np.abs(expected).max(initial=0.0))
    )
