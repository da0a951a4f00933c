# SPDX-License-Identifier: Apache-2.0
"""What adapters hand to their frameworks: arrays, and how cotangents of them go back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

PullBack = Callable[[Sequence[np.ndarray | None], Sequence[bool]], Sequence[np.ndarray | None]]
"""(cotangents of some arrays, which inputs need one) ↦ cotangents of the inputs."""


class Reading(NamedTuple):
    """Some arrays of an answer with the adjoint of the map from the inputs to them.

    Attributes:
        arrays: batch dimensions first, float64, complex128 for complex variables; NaN in rows
            without a solution.
        pull_back: their cotangents (None for zero) ↦ cotangents of the inputs, in the
            shapes the inputs were given in. Rows without a solution contribute exactly
            zero, whatever their cotangents hold: these are often NaN because the rows are.
    """

    arrays: tuple[np.ndarray, ...]
    pull_back: PullBack
