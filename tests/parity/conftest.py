# SPDX-License-Identifier: Apache-2.0
"""The frontends, and double precision for the one that would not use it."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from cvxlayer.program.registered import xla_handlers
from tests.catalog.frameworks import FRAMEWORKS, JaxKit
from tests.parity.frontends import JaxFrontend, TorchFrontend

Frontend = TorchFrontend | JaxFrontend


@functools.cache
def frontend_of(name: str) -> Frontend:
    """Return a frontend; skips the test where its framework is missing."""
    pytest.importorskip(name)
    if name == "torch":
        return TorchFrontend()
    if not xla_handlers():
        pytest.skip("the core was built without JAX; see docs/jax.md")
    return JaxFrontend()


@pytest.fixture(params=FRAMEWORKS)
def frontend(request: pytest.FixtureRequest) -> Iterator[Frontend]:
    """Each framework that differentiates, in double precision."""
    found = frontend_of(request.param)
    if request.param == "torch":
        yield found
        return
    with JaxKit().double_precision():
        yield found
