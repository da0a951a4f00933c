# SPDX-License-Identifier: Apache-2.0
"""Double precision for the tests of the JAX layer, without touching JAX's global settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def wide() -> Iterator[None]:
    jax = pytest.importorskip("jax")
    pytest.importorskip("cvxlayer.jax", reason="the core was built without JAX")
    with jax.enable_x64(True):
        yield
