# SPDX-License-Identifier: Apache-2.0
"""Fixtures of every test, and the door through which `make sanitize` enters its build."""

from __future__ import annotations

import importlib.util
import os
import sys
import zlib

import numpy as np
import pytest


def _load_sanitized_native() -> None:
    """Put the core that `CVXLAYER_NATIVE_MODULE` points at where `cvxlayer._native` is sought."""
    path = os.environ.get("CVXLAYER_NATIVE_MODULE")
    if not path:
        return
    spec = importlib.util.spec_from_file_location("cvxlayer._native", path)
    assert spec is not None
    assert spec.loader is not None, f"no extension module at {path}"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["cvxlayer._native"] = module


_load_sanitized_native()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A random generator seeded by the name of the test: the same on every run and machine."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))
