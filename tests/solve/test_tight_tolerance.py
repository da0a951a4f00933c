# SPDX-License-Identifier: Apache-2.0
"""A tighter tolerance never costs accuracy: what one Newton step leaves, the next takes away."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer import Layer
from tests.catalog.parity_cases import PARITY_CASES, ParityCase, unpack

POLISHED = 1e-8
NUM_POINTS = 501
SMOOTH = [case for case in PARITY_CASES if case.is_smooth]


@pytest.mark.parametrize("eps", [1e-10, 1e-11])
@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_solutions_are_as_exact_as_those_of_the_default_tolerance(
    case: ParityCase, eps: float, rng: np.random.Generator
) -> None:
    theta, along = case.sample(rng), case.direction(rng)
    points = theta + np.linspace(-1e-3, 1e-3, NUM_POINTS)[:, None] * along
    found, expected = (
        Layer(*case.build(), gp=case.gp, solver_args={"eps": each})(*unpack(points, case.like))
        for each in (eps, 1e-8)
    )
    for tight, default in zip(found, expected, strict=True):
        scale = max(1.0, float(np.abs(default).max()))
        np.testing.assert_allclose(tight, default, rtol=0, atol=POLISHED * scale)
