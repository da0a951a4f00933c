# SPDX-License-Identifier: Apache-2.0
"""Tests of families run over both frameworks, or over one where what they test knows neither."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.catalog.frameworks import FRAMEWORKS, Kit, TorchKit, make_kit


@pytest.fixture(params=FRAMEWORKS)
def kit(request: pytest.FixtureRequest) -> Iterator[Kit]:
    kit = make_kit(request.param)
    with kit.double_precision():
        yield kit


@pytest.fixture
def torch_kit() -> TorchKit:
    return TorchKit()
