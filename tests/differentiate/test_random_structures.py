# SPDX-License-Identifier: Apache-2.0
"""The whole road through our engine on structures nobody chose: solve, then differentiate."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer.cones.product import ConeProduct
from cvxlayer.differentiate.conic import vjp
from cvxlayer.differentiate.native import NativeDerivative
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.cone_programs import random_batch
from tests.catalog.true_solutions import BLOCKS, solve_accurately

# Both polish to rounding; what is left is amplified by the conditioning of the catalog.
AGREEMENT = 1e-6


def random_structure(rng: np.random.Generator) -> ConeProgramBatch:
    """Up to 3 equalities, 8 inequalities and 2 second-order cones of 1 to 5 rows."""
    dimensions = rng.integers(1, 6, size=rng.integers(0, 3))
    cones = ConeProduct(
        int(rng.integers(0, 4)), int(rng.integers(0, 9)), tuple(int(d) for d in dimensions)
    )
    n = max(cones.zero + 1, int(rng.integers(cones.size // 2 + 1, cones.size + 3)))
    return random_batch(rng, n=n, cones=cones, batch=6, density=float(rng.uniform(0.4, 1.0)))


@pytest.mark.parametrize("seed", range(40))
def test_our_engine_equals_the_specification_at_true_solutions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch = random_structure(rng)
    engine, derivative = get_backend("native"), NativeDerivative()
    solution = engine.solve(engine.setup(batch.structure), batch, Settings())
    n, m = batch.structure.num_variables, batch.structure.num_rows
    bars = [rng.normal(size=(batch.size, length)) for length in (n, m, m)]
    expected = vjp(batch, solve_accurately(batch), *bars)
    actual = derivative.vjp(derivative.setup(batch.structure), batch, solution, *bars)
    for name in BLOCKS:
        right, ours = getattr(expected, name), getattr(actual, name)
        size = np.abs(right).max(axis=1, initial=1e-9, keepdims=True)
        assert (np.abs(ours - right) <= AGREEMENT * size).all(), (name, batch.structure.cones)
