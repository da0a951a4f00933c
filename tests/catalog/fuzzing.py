# SPDX-License-Identifier: Apache-2.0
"""How long Hypothesis searches: the same moderate search on every run of the tests, or, with
`CVXLAYER_FUZZ=N` (`make fuzz`), another one N times as long (shorter if N < 1)."""

from __future__ import annotations

import math
import os

from hypothesis import HealthCheck, settings

FACTOR = float(os.environ.get("CVXLAYER_FUZZ", "0"))


def search(examples: int) -> settings:
    """Return settings for a search through so many examples."""
    return settings(
        max_examples=math.ceil(examples * (FACTOR or 1.0)),
        derandomize=FACTOR == 0,
        database=None,
        deadline=None,  # the machine may be busy; what hangs is caught by a limit of its own
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
