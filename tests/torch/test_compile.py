# SPDX-License-Identifier: Apache-2.0
"""`torch.compile(fullgraph=True)` and `torch.export`; `catalog/compiler_checks` has the checks."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.catalog.compiler_checks import CHECKS  # noqa: E402

ROOT = Path(__file__).parents[2]


@functools.cache
def outcomes(backend: str, *names: str) -> dict[str, str]:
    """Run checks in one process; return what went wrong in each."""
    command = [sys.executable, "-m", "tests.catalog.compiler_checks", backend, *names]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_compiled_without_a_graph_break(check: str) -> None:
    trouble = outcomes("aot_eager")[check]
    assert not trouble, trouble


def test_compiled_by_inductor_without_a_graph_break() -> None:
    trouble = outcomes("inductor", "second_order")["second_order"]
    assert not trouble, trouble
