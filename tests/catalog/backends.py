# SPDX-License-Identifier: Apache-2.0
"""The backends, once. One whose package is not installed is skipped."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from cvxlayer.cones.product import ConeKind
from cvxlayer.solve.registry import backend_names
from tests.catalog.cone_programs import ConeProgramCase

EVERY_CONE = frozenset(ConeKind)
# The curved cones that each outside solver has.
CONES_OF = {
    "clarabel": EVERY_CONE,
    "scs": EVERY_CONE,
    "ecos": frozenset({ConeKind.SECOND_ORDER, ConeKind.EXPONENTIAL}),
    "diffcp": EVERY_CONE - {ConeKind.POWER},
}


def is_installed(name: str) -> bool:
    """Whether the package behind a backend is there; that of our engine always is."""
    return name == "native" or importlib.util.find_spec(name) is not None


def backend(name: str, *values: Any) -> Any:
    """Return the parameters of a test of a backend, skipped where its package is missing."""
    reason = f"`pip install 'cvxlayer[{name}]'`"
    return pytest.param(
        name, *values, marks=pytest.mark.skipif(not is_installed(name), reason=reason)
    )


BACKENDS = [backend(name) for name in backend_names()]


def each_backend_on(cases: list[ConeProgramCase]) -> pytest.MarkDecorator:
    """Run a test of (backend, case) on every pair, but for cones that a backend lacks.

    What the others make of exponential and power cones is in test_outside_solvers.
    """
    pairs: list[Any] = []
    for case in cases:
        cones = case.build(np.random.default_rng(0)).structure.cones
        kinds = {cone.kind for cone in cones.curved}
        pairs += [
            backend(name, case)
            for name in backend_names()
            if kinds <= CONES_OF.get(name, EVERY_CONE)
            and (not case.is_three_dimensional or name in ("native", "clarabel"))
        ]
    return pytest.mark.parametrize(("backend", "case"), pairs, ids=str)
