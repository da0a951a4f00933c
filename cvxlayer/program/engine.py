# SPDX-License-Identifier: Apache-2.0
"""The native engine of a structure: built once, used by the solve and by the derivative."""

from __future__ import annotations

import os
import threading
import weakref

from cvxlayer import _native
from cvxlayer.program.batch import ConeProgramStructure

_engines: weakref.WeakKeyDictionary[ConeProgramStructure, _native.Engine] = (
    weakref.WeakKeyDictionary()
)
_lock = threading.Lock()


def prepare_engine(structure: ConeProgramStructure) -> _native.Engine:
    """Return the engine of a structure: its KKT matrices ordered and analyzed.

    Structures compare by identity, so the work is done once for each compiled program; the
    engine lives as long as its structure.
    """
    with _lock:
        engine = _engines.get(structure)
        if engine is None:
            cones = structure.cones
            engine = _native.Engine(
                structure.num_variables,
                cones.zero,
                cones.nonnegative,
                list(cones.second_order),
                structure.P_indptr.tolist(),
                structure.P_indices.tolist(),
                structure.A_indptr.tolist(),
                structure.A_indices.tolist(),
            )
            _engines[structure] = engine
        return engine


def count_threads(threads: int | None) -> int:
    """Return the number of threads to use: as asked, else all cores this process may use."""
    if threads is not None:
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
