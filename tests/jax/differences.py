# SPDX-License-Identifier: Apache-2.0
"""Cases of the catalog as functions of real vectors, and what to hold derivatives against."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import cvxlayer
from cvxlayer.jax import Layer
from tests.catalog.smooth_problems import SmoothCase

STEP = 1e-5
# Central differences err by step², and by the solver's 1e-12 over the step.
DIFFERENCE_TOLERANCE = 2e-6
ROUNDING = 1e-10


@functools.cache
def program_of(case: SmoothCase) -> cvxlayer.CompiledProgram:
    """Return the problem of a case, compiled once for all tests."""
    return cvxlayer.compile(*case.build(), gp=case.gp)


def layer_of(case: SmoothCase, **options: Any) -> Layer:
    return Layer(program_of(case), **{"solver_args": {"eps": 1e-12}, **options})


def values_of(case: SmoothCase, rng: np.random.Generator, *batch: int) -> list[Any]:
    return [jnp.asarray(value) for value in case.sample(rng, *batch)]


def flat(values: Any) -> Any:
    """Return numbers of any shape as one real vector."""
    rows = [jnp.ravel(value) for value in values]
    parts = [(row.real, row.imag) if jnp.iscomplexobj(row) else (row,) for row in rows]
    return jnp.concatenate([part for pair in parts for part in pair])


def unflat(vector: Any, like: list[Any]) -> list[Any]:
    """Return the values that `flat` makes a vector of."""
    values, start = [], 0
    for value in like:
        parts = []
        for _ in range(2 if jnp.iscomplexobj(value) else 1):
            parts.append(vector[start : start + value.size].reshape(value.shape))
            start += value.size
        values.append(parts[0] + 1j * parts[1] if len(parts) == 2 else parts[0])
    return values


def real_function(layer: Any, like: list[Any]) -> Callable[[Any], Any]:
    """Return a layer as a map from one real vector to another."""
    return lambda vector: flat(layer(*unflat(vector, like)))


def difference(function: Callable[[Any], Any], point: Any, direction: Any) -> np.ndarray:
    """Return the central difference of a function along a direction."""
    ahead, behind = function(point + STEP * direction), function(point - STEP * direction)
    return np.asarray((ahead - behind) / (2 * STEP))


def assert_close(left: Any, right: Any, tolerance: float) -> None:
    """Compare pytrees of arrays entry by entry, relative to the largest."""

    def compare(a: Any, b: Any) -> None:
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)

    jax.tree.map(compare, left, right)
