# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, kept from solvers that take it over while they solve."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
from collections.abc import Generator
from typing import Any

_lock = threading.Lock()
_num_calls = 0
_handler_before: Any = None


@contextlib.contextmanager
def keep_interrupt_handler() -> Generator[None]:
    """Put the process's handler of Ctrl-C back when the last of several calls has ended.

    ECOS, and SCS before 3.3, replace it while they solve, and remember the old one in one place
    for all threads: a second solve that starts before the first one ends leaves the solver's
    handler behind, which swallows every later Ctrl-C. Python's own functions for this work in
    the main thread only.
    """
    global _num_calls, _handler_before
    get, put = ctypes.pythonapi.PyOS_getsig, ctypes.pythonapi.PyOS_setsig
    get.restype = put.restype = ctypes.c_void_p
    put.argtypes = [ctypes.c_int, ctypes.c_void_p]
    with _lock:
        if _num_calls == 0:
            _handler_before = get(signal.SIGINT)
        _num_calls += 1
    try:
        yield
    finally:
        with _lock:
            _num_calls -= 1
            if _num_calls == 0:
                put(signal.SIGINT, _handler_before)
