# SPDX-License-Identifier: Apache-2.0
"""Double precision for tests of the layer, without touching JAX's global settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cvxlayer.program.registered import xla_handlers

# These need no layer, and so run also where the core was built without JAX.
WITHOUT_LAYER = ("test_families",)


@pytest.fixture(autouse=True)
def wide(request: pytest.FixtureRequest) -> Iterator[None]:
    jax = pytest.importorskip("jax")
    if request.module.__name__.rpartition(".")[2] in WITHOUT_LAYER:
        yield
        return
    if not xla_handlers():
        pytest.skip("the core was built without JAX; see docs/jax.md")
    with jax.enable_x64(True):
        yield
