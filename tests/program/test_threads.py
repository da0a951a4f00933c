# SPDX-License-Identifier: Apache-2.0
"""The core's pool of threads: shared by callers, made anew after a fork, gone at exit."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cvxlayer.program.sparse_map import SparseMap, apply_maps

THREADS = 4


def work(sparse_map: SparseMap, points: np.ndarray) -> np.ndarray:
    return apply_maps([(sparse_map, points)], None, len(points), THREADS)


@pytest.fixture
def sparse_map(rng: Any) -> SparseMap:
    return SparseMap.of(rng.normal(size=(40, 30)))


def test_callers_at_the_same_time_do_not_disturb_one_another(
    sparse_map: SparseMap, rng: Any
) -> None:
    points = [rng.normal(size=(600, 30)) for _ in range(6)]
    expected = [work(sparse_map, one) for one in points]
    with ThreadPoolExecutor(len(points)) as callers:
        for _ in range(20):
            found = list(callers.map(lambda one: work(sparse_map, one), points))
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("depth", [1, 2])
def test_a_forked_child_has_threads_of_its_own(depth: int) -> None:
    code = (
        "import os, sys, warnings; warnings.simplefilter('ignore')\n"
        "import numpy as np\n"
        "from cvxlayer.program.sparse_map import SparseMap, apply_maps\n"
        "matrix = np.random.default_rng(0).normal(size=(40, 30))\n"
        "points = np.random.default_rng(1).normal(size=(3000, 30))\n"
        "sparse_map = SparseMap.of(matrix)\n"
        "def right():\n"
        f"    found = apply_maps([(sparse_map, points)], None, 3000, {THREADS})\n"
        "    return np.allclose(found, points @ matrix.T)\n"
        "def descend(depth):\n"
        "    assert right()\n"
        "    if depth == 0:\n"
        "        return 0\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os._exit(descend(depth - 1))\n"
        "    assert right()\n"
        "    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        f"sys.exit(descend({depth}))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_processes_whose_threads_have_just_worked_end_without_complaint() -> None:
    code = (
        "import os, sys, warnings; warnings.simplefilter('ignore')\n"
        "import numpy as np\n"
        "from cvxlayer.program.inspection import is_finite\n"
        "values = np.zeros((300, 300))\n"
        "codes = []\n"
        "for _ in range(20):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        f"        assert is_finite(values, {THREADS})\n"
        "        sys.exit(0)\n"  # with all that Python and C++ do at the end
        "    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "assert not any(codes), codes\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_sleeping_threads_do_not_hold_up_the_end_of_a_process() -> None:
    code = (
        "import numpy as np\n"
        "from cvxlayer.program.inspection import is_finite\n"
        f"assert is_finite(np.zeros((1000, 1000)), {THREADS})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
