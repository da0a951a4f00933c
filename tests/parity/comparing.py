# SPDX-License-Identifier: Apache-2.0
"""Where the frameworks are compared, how closely, and what NumPy has to say there."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.catalog.parity_cases import PARITY_CASES, PROBLEM_CASES, ParityCase
from tests.catalog.smooth_layers import SMOOTH_LAYERS
from tests.parity.frontends import NumpyFrontend, Subject

# The same engine on the same numbers.
SAME = 1e-12
# Sums of the same terms in another order, and linear systems that are solved to rounding.
ROUNDING = 1e-10
# Central differences err by step², and by the solver's 1e-12 or so over the step.
STEP = 1e-5
DIFFERENCE = 2e-6

NUMPY = NumpyFrontend()
SMOOTH_CASES = [case for case in PARITY_CASES if case.is_smooth]

each_case = pytest.mark.parametrize("case", PARITY_CASES, ids=str)
each_problem = pytest.mark.parametrize("case", [*PARITY_CASES, *PROBLEM_CASES], ids=str)
each_smooth_case = pytest.mark.parametrize("case", SMOOTH_CASES, ids=str)
# One for each kind of cone: what the order of composition may depend on.
each_kind = pytest.mark.parametrize("case", PARITY_CASES[: len(SMOOTH_LAYERS)], ids=str)
# Linear cones, a curved one, and complex numbers: what maps over calls may depend on.
each_of_a_few = pytest.mark.parametrize(
    "case",
    [case for case in PARITY_CASES if case.name in ("quadratic", "second-order", "complex")],
    ids=str,
)
# A derivative that is not unique warns, as it does in the catalog's degenerate case.
quietly = pytest.mark.filterwarnings("ignore::cvxlayer.errors.DerivativeWarning")


def generator_of(case: ParityCase, purpose: str = "") -> np.random.Generator:
    """Return the same generator in every test of a case, so that tests may share results."""
    return np.random.default_rng(zlib.crc32(f"{case} {purpose}".encode()))


def point_of(case: ParityCase, *batch: int) -> np.ndarray:
    """Return θ where a case is looked at."""
    return case.sample(generator_of(case, str(batch)), *batch)


@functools.cache
def jacobian_of(subject: Subject) -> np.ndarray:
    """Return the Jacobian at `point_of`, by rows, from the engine alone."""
    return NUMPY.jacobian(subject, point_of(subject.case))


def difference(
    function: Callable[[np.ndarray], np.ndarray], theta: np.ndarray, along: np.ndarray
) -> np.ndarray:
    """Return the central difference of a function along a direction."""
    return (function(theta + STEP * along) - function(theta - STEP * along)) / (2 * STEP)


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Compare entry by entry, relative to the largest."""
    assert np.shape(found) == np.shape(expected)
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)
