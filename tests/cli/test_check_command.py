# SPDX-License-Identifier: Apache-2.0
"""`cvxlayer check`: exit codes, the page, and the JSON form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

typer_testing = pytest.importorskip("typer.testing")

from cvxlayer import __main__ as entry  # noqa: E402
from cvxlayer.checks import check as checking  # noqa: E402
from cvxlayer.cli.app import app  # noqa: E402
from cvxlayer.errors import MissingDependencyError  # noqa: E402

GOOD, AT_FAULT, WRONG_USE = 0, 1, 2
HEAD = """
import cvxpy as cp
x = cp.Variable(3, name="x")
b, c = cp.Parameter(3, name="b"), cp.Parameter(name="c", nonneg=True)
def least_squares(*constraints):
    return cp.Problem(cp.Minimize(cp.sum_squares(x - b)), list(constraints))
"""
BODIES = {
    "good": "problem = least_squares(x >= 0, cp.sum(x) <= c)",
    "not_dpp": "problem = least_squares(c * c * x[0] <= 1)",
    "not_dcp": "problem = least_squares(cp.norm(x) >= 1)",
    "unsupported": "problem = least_squares(cp.sum(cp.Variable(2, integer=True)) <= c)",
    "infeasible": "problem = least_squares(x[0] >= 1 + c, x[0] <= -c)",
    "not_unique": "problem = cp.Problem(cp.Minimize(c * cp.sum(x)), [x >= 0, cp.sum(x) == 1])",
    "geometric": "u, a = cp.Variable(pos=True), cp.Parameter(pos=True)\n"
    "problem = cp.Problem(cp.Minimize(a * u + 1 / u), [u <= 2 * a])",
    "two": "first = least_squares(x >= 0)\nsecond = least_squares(x <= 0)",
    "none": "",
    "broken": "1 / 0",
}
KEYS = {
    "": {"schema", "good", "file", "problem", "verdict", "parameters", "program", "solve",
         "derivative", "gradient", "timing"},
    "verdict": {"is_dcp", "is_dpp", "is_dgp", "is_supported", "message"},
    "program": {"size", "cvxpy_size", "zero", "nonnegative", "second_order", "semidefinite",
                "exponential", "power", "depends", "variables", "compile_seconds"},
    "solve": {"num_instances", "is_given", "statuses", "primal_residual", "dual_residual", "gap",
              "iterations", "advice"},
    "derivative": {"num_instances", "num_exists", "failed", "constraints", "margin", "condition",
                   "residual"},
    "gradient": {"verdict", "error", "error_by_parameter", "num_directions", "num_kinks",
                 "num_instances", "num_not_unique", "adjoint_residual"},
    "timing": {"batch", "forward_seconds", "backward_seconds", "single_forward_seconds",
               "single_backward_seconds", "num_cores"},
}  # fmt: skip


@pytest.fixture
def path_of(tmp_path):
    def write(name: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(HEAD + BODIES[name], encoding="utf-8")
        return str(path)

    return write


def run(*arguments: str):
    return typer_testing.CliRunner().invoke(app, ["check", *arguments], env={"COLUMNS": "100"})


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("good", GOOD, ["DCP and DPP", "equals finite differences", "Good. Use it as",
                        "Layer(problem, parameters=[b, c], variables=[x])"]),
        ("not_dpp", AT_FAULT, ["DCP, but not DPP", "parameter for the product",
                               "cannot be a layer"]),
        ("not_dcp", AT_FAULT, ["not DCP", "Constraint 0", "cannot be a layer"]),
        ("unsupported", AT_FAULT, ["not supported", "integer", "cannot be a layer"]),
        ("infeasible", AT_FAULT, ["0 of 8 sampled instances: 8 INFEASIBLE", "--values",
                                  "cannot be solved"]),
        ("not_unique", AT_FAULT, ["is not unique at", "involved: ", "does not exist",
                                  "Do not rely on the gradient"]),
    ],
)  # fmt: skip
def test_the_exit_code_and_the_page_judge_the_problem(path_of, name, code, words):
    result = run(path_of(name), "--samples", "8")
    page = " ".join(result.stdout.split())
    assert result.exit_code == code
    for word in words:
        assert word in page


def test_gp_judges_a_geometric_program(path_of):
    path = path_of("geometric")
    assert run(path, "--samples", "4").exit_code == AT_FAULT
    result = run(path, "--samples", "4", "--gp")
    assert result.exit_code == GOOD
    page = " ".join(result.stdout.split())
    assert "DGP" in page
    assert "gp=True" in page


@pytest.mark.parametrize(
    ("name", "suffix", "options", "words"),
    [
        ("two", "", (), "defines 2 problems: `first`, `second`"),
        ("two", ":third", (), "does not define `third`"),
        ("none", "", (), "defines no `cvxpy.Problem`"),
        ("broken", "", (), "ZeroDivisionError"),
        ("good", "", ("--values", "missing.npz"), "cannot be read"),
        ("good", "", ("--samples", "0"), "--samples"),
        ("good", "", ("--sample", "8"), "--sample"),
    ],
)
def test_wrong_use_exits_with_two_and_says_why_on_stderr(path_of, name, suffix, options, words):
    result = run(path_of(name) + suffix, *options)
    assert result.exit_code == WRONG_USE
    assert words in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_missing_file_is_wrong_use(tmp_path):
    result = run(str(tmp_path / "missing.py"))
    assert result.exit_code == WRONG_USE
    assert "There is no file" in result.stderr


def test_a_name_chooses_the_problem(path_of):
    result = run(f"{path_of('two')}:second", "--samples", "4")
    assert result.exit_code == GOOD
    assert "Layer(second," in result.stdout


def test_given_values_are_used_and_must_fit(path_of, tmp_path):
    path = tmp_path / "values.npz"
    np.savez(path, b=np.ones((5, 3)), c=2.0)
    result = run(path_of("good"), "--values", str(path))
    assert result.exit_code == GOOD
    assert "5 of 5 given instances: 5 SOLVED" in result.stdout
    np.savez(path, b=np.ones(3), c=-2.0)
    refused = run(path_of("good"), "--values", str(path))
    assert refused.exit_code == WRONG_USE
    assert "outside its declared domain" in " ".join(refused.stderr.split())


def test_the_page_fits_one_screen(path_of):
    lines = run(path_of("good"), "--samples", "4").stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


def test_json_has_stable_keys(path_of):
    result = run(path_of("good"), "--json", "--samples", "4")
    found = json.loads(result.stdout)
    assert result.exit_code == GOOD
    assert found["schema"] == 1
    assert found["good"] is True
    for section, keys in KEYS.items():
        assert set(found[section] if section else found) == keys
    for parameter in found["parameters"]:
        assert set(parameter) == {"name", "shape", "domain", "enters", "source"}
    assert found["gradient"]["verdict"] == "AGREES"
    assert set(found["program"]["depends"]) == {"P", "q", "A", "b"}


def test_json_of_a_problem_that_does_not_compile_has_the_same_keys(path_of):
    result = run(path_of("not_dpp"), "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == AT_FAULT
    assert set(found) == KEYS[""]
    assert found["verdict"]["is_dcp"] is True
    assert found["verdict"]["is_dpp"] is False
    assert found["solve"] is None


def test_json_is_documented():
    page = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    for keys in KEYS.values():
        assert all(f"`{key}`" in page for key in keys)


def test_a_wrong_gradient_is_the_problem_at_fault(path_of, monkeypatch):
    right = checking.default_derivative()

    class Doubled:
        def setup(self, structure):
            return right.setup(structure)

        def vjp(self, *args, **kwargs):
            cotangent = right.vjp(*args, **kwargs)
            cotangent.q[:] *= 2
            return cotangent

    monkeypatch.setattr(checking, "default_derivative", Doubled)
    result = run(path_of("good"), "--samples", "8")
    assert result.exit_code == AT_FAULT
    assert "differs from finite differences" in " ".join(result.stdout.split())


def test_the_same_seed_gives_the_same_report(path_of):
    def found(seed: str):
        report = json.loads(run(path_of("good"), "--json", "--samples", "4", "--seed", seed).stdout)
        return report["solve"], report["gradient"]

    assert found("1") == found("1")
    assert found("1") != found("2")


def test_the_installed_command_runs_in_a_process_of_its_own(path_of):
    command = [sys.executable, "-m", "cvxlayer", "check", path_of("not_dpp"), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == AT_FAULT
    assert json.loads(done.stdout)["good"] is False
    assert "compiling" in done.stderr, "plain progress lines where there is no terminal"


def test_a_missing_package_is_one_sentence_that_names_the_extra(monkeypatch, capsys):
    for name in [n for n in sys.modules if n.split(".")[:2] == ["cvxlayer", "cli"]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as stopped:
        entry.main()
    assert stopped.value.code == WRONG_USE
    assert "pip install 'cvxlayer[cli]'" in capsys.readouterr().err
    with pytest.raises(MissingDependencyError, match="needs the package `typer`"):
        entry._load()


def test_help_and_version_need_no_problem():
    runner = typer_testing.CliRunner()
    assert "check" in runner.invoke(app, ["--help"]).stdout
    version = runner.invoke(app, ["--version"])
    assert version.exit_code == GOOD
    assert version.stdout.startswith("cvxlayer ")
