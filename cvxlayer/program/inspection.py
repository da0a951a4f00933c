# SPDX-License-Identifier: Apache-2.0
"""Questions about whole batches of values, answered in the core on several threads.

NumPy could answer them too, but the threads of its linear algebra wait busily after each
call, where ours want to work: that has cost more than the solve itself.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvxlayer import _native


def is_finite(rows: Float[np.ndarray, "batch size"], threads: int) -> bool:
    """Tell whether no entry is NaN or infinite."""
    return _native.is_finite(rows, threads)


def is_symmetric(stack: Float[np.ndarray, "batch n n"], threads: int) -> bool:
    """Tell whether every matrix equals its transpose to the last bit."""
    return _native.is_symmetric(stack, threads)


def is_positive_definite(stack: Float[np.ndarray, "batch n n"], threads: int) -> bool:
    """Tell whether the pivots of every matrix, given by its lower triangle, are positive."""
    return _native.is_positive_definite(stack, threads)
