# SPDX-License-Identifier: Apache-2.0
"""Questions about whole batches of values, answered in the core on several threads.

NumPy could answer them too, but the threads of its linear algebra wait busily after each
call, where ours want to work: that has cost more than the solve itself.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from cvxlayer import _native
from cvxlayer.program.parameters import ParameterDomain

# As in `native/batch/inspect.hpp`.
SEMIDEFINITE = 32
_BITS = {
    "is_nonneg": 1,
    "is_nonpos": 2,
    "is_pos": 4,
    "is_neg": 8,
    "is_symmetric": 16,
    "is_psd": SEMIDEFINITE,
    "is_nsd": 64,
}


def is_finite(rows: Float[np.ndarray, "batch size"], threads: int) -> bool:
    """Tell whether no entry is NaN or infinite."""
    return _native.is_finite(rows, threads)


def is_in_domains(
    values: Float[np.ndarray, "batch size"], domains: int, epsilon: float, threads: int
) -> bool:
    """Tell whether every value is in the domains of `find_bits`, up to rounding.

    The rounding is that of `domains.py`, for numbers of machine epsilon `epsilon`. False does not
    say that one is outside: some cases are left to eigenvalues, which the core does not compute.
    """
    return _native.is_in_domains(values, domains, epsilon, threads)


def find_bits(domain: ParameterDomain) -> int | None:
    """Return what `is_in_domains` calls a domain, None if it does not know all that is declared."""
    bits = 0
    for field in dataclasses.fields(domain):
        declared = getattr(domain, field.name)
        if declared is None or declared is False:
            continue
        if field.name not in _BITS:
            return None
        bits |= _BITS[field.name]
    return bits
