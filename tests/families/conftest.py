# SPDX-License-Identifier: Apache-2.0
"""Every test of a family runs over both frameworks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.catalog.frameworks import FRAMEWORKS, Kit, make_kit


@pytest.fixture(params=FRAMEWORKS)
def kit(request: pytest.FixtureRequest) -> Iterator[Kit]:
    kit = make_kit(request.param)
    with kit.double_precision():
        yield kit
