# SPDX-License-Identifier: Apache-2.0
"""Compiled programs in the core, under numbers that compiled code of other systems can keep.

A number is a digest of what the program does, so that code compiled in one process and run in
another, as JAX's caches allow, finds the same program or none; never a different one.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxlayer import _native
from cvxlayer.program.native_program import build_native_program
from cvxlayer.program.parametric import AffineMap, ParametricConeProgram
from cvxlayer.program.recovery import RecoveredOutput, Recovery

Blocks = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Finish = Callable[[int, Blocks, tuple[np.ndarray, ...]], str | None]
"""(size of the batch, its P, q, A, b, the results so far) ↦ what is wrong, or None.

The results, to be completed in place, are those of a `ConeSolution` in the order of
`RESULT_NAMES`. All arrays are views that are valid during the call only.
"""
RESULT_NAMES = (
    "x",
    "y",
    "s",
    "status",
    "iterations",
    "primal_residual",
    "dual_residual",
    "gap",
    "solved_by",
    "is_active",
)


@dataclasses.dataclass(frozen=True)
class RegisteredProgram:
    """A program that compiled code can solve and differentiate.

    Attributes:
        number: by which the handlers know it.
        program: what is solved.
        recovery: the way back. Handlers count its outputs first, then its duals.
    """

    number: int
    program: ParametricConeProgram = dataclasses.field(compare=False, repr=False)
    recovery: Recovery = dataclasses.field(compare=False, repr=False)

    @functools.cached_property
    def outputs(self) -> tuple[RecoveredOutput, ...]:
        """Outputs, then duals, as handlers count them."""
        return (*self.recovery.outputs, *self.recovery.duals)


# Compiled code may be run at any later time, so what is registered is never dropped. Programs
# with equal contents share a number: building a layer again costs no memory.
_programs: dict[int, Any] = {}
_routes: dict[int, Finish] = {}
_lock = threading.Lock()


def register_program(program: ParametricConeProgram, recovery: Recovery) -> RegisteredProgram:
    """Put a program into the core, for as long as the process lives."""
    number = _digest(_contents(program, recovery))
    registered = RegisteredProgram(number, program, recovery)
    with _lock:
        if number not in _programs:
            native = build_native_program(program, recovery)
            _native.register_program(number, native)
            # The structure too: the engine lives as long as it does.
            _programs[number] = (native, program.structure)
    return registered


def register_route(finish: Finish, *names: str) -> int:
    """Return the number of a way to finish batches that the core's first pass cannot.

    Args:
        finish: completes a batch in place.
        names: what it does, in words that mean the same in every process; with none, the
            number holds in this process only.
    """
    number = _digest(name.encode() for name in names) if names else _digest([_random_name()])
    with _lock:
        _routes[number] = finish
        _native.set_finisher(_finish)
    return number


def tell_of_residuals(function: Callable[[np.ndarray], None]) -> None:
    """Set what is called with the residuals of derivatives that are not unique.

    Args:
        function: takes one residual for each row, in an array that is valid during the call.
    """
    _native.set_warner(function)


def xla_handlers() -> dict[str, Any]:
    """Return the handlers that XLA calls, by name; none if the core was built without JAX."""
    return _native.xla_handlers()


def _finish(route: int, size: int, blocks: Blocks, results: tuple[np.ndarray, ...]) -> str | None:
    finish = _routes.get(route)
    if finish is None:
        return (
            "This compiled function was made in another process, with a solver that is not "
            "known here. Build its `cvxlayer.jax.Layer` and trace the function again."
        )
    return finish(size, blocks, results)


def _random_name() -> bytes:
    return np.random.default_rng().bytes(16)


def _digest(pieces: Iterable[bytes]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return int.from_bytes(digest.digest(), "little", signed=True)


def _contents(program: ParametricConeProgram, recovery: Recovery) -> Iterable[bytes]:
    """Return all that decides what handlers compute."""
    structure = program.structure
    yield repr((structure.num_variables, structure.cones, program.parameter_sizes)).encode()
    patterns = ("P_indptr", "P_indices", "A_indptr", "A_indices")
    for name in patterns:
        yield np.asarray(getattr(structure, name), np.int64).tobytes()
    for block in program.blocks:
        yield from _map_contents(block)
    yield program.infinite_sides.tobytes()
    yield from _matrix_contents(program.objective_constant.matrix)
    for output in (*recovery.outputs, *recovery.duals):
        yield repr((output.spec.size, output.is_log)).encode()
        for sparse_map in (output.from_x, output.from_y):
            yield from () if sparse_map is None else _matrix_contents(sparse_map.forward)
        yield from () if output.from_theta is None else _map_contents(output.from_theta)


def _map_contents(block: AffineMap) -> Iterable[bytes]:
    yield block.offset.tobytes()
    for index, part in block.parts:
        yield index.to_bytes(8, "little")
        yield from itertools.chain(_matrix_contents(part.forward), _matrix_contents(part.backward))


def _matrix_contents(matrix: Any) -> Iterable[bytes]:
    rows = sp.csr_array(matrix)
    yield repr(rows.shape).encode()
    yield rows.indptr.astype(np.int64).tobytes()
    yield rows.indices.astype(np.int64).tobytes()
    yield rows.data.astype(np.float64).tobytes()
