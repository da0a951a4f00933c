# SPDX-License-Identifier: Apache-2.0
"""What `import cvxlayer` brings, and what it does not."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cvxlayer
from cvxlayer import Layer
from tests.catalog.problems import case_named


def test_importing_the_package_loads_no_framework():
    program = "import sys, cvxlayer; print(sorted({'torch', 'jax', 'cvxpy'} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_a_numpy_call_loads_no_framework():
    program = """
import pickle, sys, cvxlayer, numpy
layer = pickle.loads(sys.stdin.buffer.read())
layer(numpy.zeros(5))
print(sorted({'torch', 'jax', 'cvxpy'} & set(sys.modules)))
"""
    layer = pickle.dumps(Layer(*case_named("relu").build()))
    run = subprocess.run([sys.executable, "-c", program], input=layer, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout.decode().strip() == "[]"


def test_the_version_is_that_of_the_project():
    project = Path(__file__).parents[1] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == cvxlayer.__version__


def test_every_public_name_exists_and_is_documented():
    for name in cvxlayer.__all__:
        assert getattr(cvxlayer, name).__doc__, name


def test_a_warning_points_at_the_code_that_called_the_layer(tmp_path):
    pytest.importorskip("torch")
    script = tmp_path / "train.py"
    script.write_text(
        "import warnings, cvxpy as cp, torch\n"
        "from cvxlayer.torch import Layer\n"
        "x, total = cp.Variable(2), cp.Parameter()\n"
        "layer = Layer(cp.Problem(cp.Minimize(cp.square(cp.sum(x) - total))), [total], [x])\n"
        "value = torch.ones((), requires_grad=True)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    layer(value)[0][0].backward()\n"
        "print(*((w.category.__name__, w.filename, w.lineno) for w in caught))\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(("DerivativeWarning", str(script), 8))
