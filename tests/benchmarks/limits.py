# SPDX-License-Identifier: Apache-2.0
"""What a peer may use, and what the tables say of one that uses more or raises.

None of it is for our own side, whose errors end the run.
"""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Generator
from typing import Any

from tests.benchmarks.contenders import CannotError

#: How libraries say that there is no memory, by their exceptions or on their way down.
_NO_MEMORY = ("MemoryError", "bad_alloc", "allocate memory", "out of memory")
LONGEST_NOTE = 200


class TooSlowError(BaseException):
    """A limit of time was reached; no `except Exception` on the way may take it for another."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Stop what runs inside after so many seconds.

    Of wall time: while a timer of processor time runs, Linux lets the clock of processor time
    go in steps of milliseconds. A call into a library is not left before it returns.

    Raises:
        TooSlowError: the limit was reached, whatever a library made of it.
    """
    expired = False

    def expire(*_: object) -> None:
        nonlocal expired
        expired = True
        raise TooSlowError(f"over {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Exception as error:
        if expired:
            raise TooSlowError(f"over {seconds:g} s") from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    if expired:
        raise TooSlowError(f"over {seconds:g} s")


@contextlib.contextmanager
def as_peer(record: dict[str, Any], seconds: float) -> Generator[None]:
    """Write what a peer raises, or that it was too slow, into its record, and go on."""
    try:
        with time_limit(seconds):
            yield
    except (Exception, TooSlowError) as error:  # noqa: BLE001 (any failure is its verdict)
        record |= fault(error)


def fault(error: BaseException) -> dict[str, str]:
    """Return the status and the note that an error of a peer amounts to."""
    kind = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
    note = sentence(kind + str(error))
    if isinstance(error, TooSlowError):
        return {"status": "left out", "note": str(error)}
    if isinstance(error, CannotError):
        return {"status": "cannot", "note": str(error)}
    return {"status": "too much" if lacks_memory(note) else "failed", "note": note}


def lacks_memory(text: str) -> bool:
    """Whether an error, or the last words of a process, say that memory ran out."""
    return any(words in text for words in _NO_MEMORY)


def sentence(text: str) -> str:
    """Return the first line of an error that says anything: a library may add its whole stack."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:LONGEST_NOTE] if lines else ""


def limit_memory(gibibytes: float) -> None:
    """Let this process have no more address space; what asks for more gets an error."""
    size = int(gibibytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
