# SPDX-License-Identifier: Apache-2.0
"""The native engine of a structure: built once, used by the solve and by the derivative."""

from __future__ import annotations

import os
import threading
import weakref

from cvxlayer import _native
from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.errors import UnsupportedProblemError
from cvxlayer.program.batch import ConeProgramStructure

# Second-order cones up to this size are a dense block of rows in the KKT matrix; larger ones are
# bordered (docs/derivations/engine.md). Both cost the same at about this size.
LARGEST_BLOCK = 6

_engines: weakref.WeakKeyDictionary[ConeProgramStructure, _native.Engine] = (
    weakref.WeakKeyDictionary()
)
_lock = threading.Lock()


def prepare_engine(structure: ConeProgramStructure) -> _native.Engine:
    """Return the engine of a structure: its KKT matrices ordered and analyzed.

    Structures compare by identity, so the work is done once for each compiled program; the
    engine lives as long as its structure.

    Raises:
        UnsupportedProblemError: the engine cannot solve one of the cones.
    """
    with _lock:
        engine = _engines.get(structure)
        if engine is None:
            cones = structure.cones
            _refuse_unknown_kinds(cones)
            engine = _native.Engine(
                structure.num_variables,
                cones.zero,
                cones.nonnegative,
                [(int(cone.kind), cone.size, cone.parameter) for cone in cones.curved],
                structure.P_indptr.tolist(),
                structure.P_indices.tolist(),
                structure.A_indptr.tolist(),
                structure.A_indices.tolist(),
                LARGEST_BLOCK,
                structure.is_convex,
            )
            _engines[structure] = engine
        return engine


def _refuse_unknown_kinds(cones: ConeProduct) -> None:
    known = _native.cone_kinds()
    for kind in ConeKind:
        if kind not in known and any(cone.kind is kind for cone in cones.curved):
            name = kind.name.lower().replace("_", "-")
            raise UnsupportedProblemError(
                f"The problem has a constraint in the {name} cone, which the native engine does "
                "not know; it knows the "
                f"{', '.join(ConeKind(k).name.lower().replace('_', '-') for k in known)} cone. "
                "Reformulate the problem without it."
            )


def count_threads(threads: int | None) -> int:
    """Return the number of threads to use: as asked, else all cores this process may use."""
    if threads is not None:
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
