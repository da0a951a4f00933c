# SPDX-License-Identifier: Apache-2.0
"""The report so far, kept in a file: a process that dies costs one contender one cell."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.targets import is_ours

#: A turn is limited, but a call into a library that never returns is not left.
HANGING_SECONDS = 300


def is_stuck(path: Path) -> bool:
    """Whether the process with this file has been in one turn for too long."""
    turn = path.with_suffix(".turn")
    return turn.exists() and time.time() - turn.stat().st_mtime > HANGING_SECONDS


class Progress:
    """What was measured; whoever is given the same file goes on where this process dies.

    Raises:
        RuntimeError: the process before died in a turn of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._turn = path, path.with_suffix(".turn")
        self.report: dict[str, list[Any]] = {"cells": [], "overheads": [], "deaths": []}
        if path.exists():
            self.report = json.loads(path.read_text())
        if self._turn.exists():
            place = self._turn.read_text().splitlines()
            if is_ours(place[-1]):
                raise RuntimeError(f"The process died in {', '.join(place)}.")
            self.add(deaths=[place])

    def add(self, **more: list[Any]) -> None:
        """Save more cells or overheads."""
        for key, rows in more.items():
            self.report[key] += rows
        self._path.write_text(json.dumps(self.report))

    def has(self, workload: str, measure: str) -> bool:
        """Whether these cells are measured."""
        rows = self.report["cells"] + self.report["overheads"]
        return any(
            (row["workload"], row.get("measure", "overheads")) == (workload, measure)
            for row in rows
        )

    def announce(self, *place: str) -> None:
        """Note whose turn it is: workload, measure, contender."""
        self._turn.write_text("\n".join(place))

    def death(self, *place: str) -> dict[str, Any] | None:
        """What to record of a contender in whose turn a process died, or None."""
        if list(place) not in self.report["deaths"]:
            return None
        return {"status": "failed", "note": "the process died", "error": None}

    def finish(self) -> None:
        """Nobody's turn is left."""
        self._turn.unlink(missing_ok=True)
