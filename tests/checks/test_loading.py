# SPDX-License-Identifier: Apache-2.0
"""Finding the problem that a file defines."""

from __future__ import annotations

import sys
import textwrap

import cvxpy as cp
import pytest

from cvxlayer.checks import load_problem
from cvxlayer.errors import ProblemFileError

HEAD = """
import cvxpy as cp
x = cp.Variable(2, name="x")
b = cp.Parameter(2, name="b")
def make(bound=0.0):
    return cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [x >= bound])
def needs(bound):
    return make(bound)
"""


@pytest.fixture
def write(tmp_path):
    def write_file(body: str, name: str = "problems.py") -> str:
        path = tmp_path / name
        path.write_text(HEAD + textwrap.dedent(body), encoding="utf-8")
        return str(path)

    return write_file


def test_the_only_problem_is_found_without_a_name(write):
    loaded = load_problem(write("only = make()"))
    assert isinstance(loaded.problem, cp.Problem)
    assert loaded.expression == "only"


def test_one_problem_under_two_names_is_one(write):
    assert load_problem(write("first = make()\nsecond = first")).expression == "first"


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_name_chooses_among_problems(write, name):
    path = write("first = make()\nsecond = make(1.0)")
    assert load_problem(f"{path}:{name}").expression == name


def test_a_function_is_called(write):
    loaded = load_problem(f"{write('')}:make")
    assert loaded.expression == "make()"
    assert len(loaded.problem.constraints) == 1


def test_the_file_may_import_its_neighbours(write, tmp_path):
    (tmp_path / "neighbour_of_problems.py").write_text("BOUND = 3.0", encoding="utf-8")
    path = write("from neighbour_of_problems import BOUND\nonly = make(BOUND)")
    before = list(sys.path)
    assert load_problem(path).expression == "only"
    assert sys.path == before


def test_what_the_file_prints_does_not_reach_stdout(write, capsys):
    load_problem(write("print('noise')\nonly = make()"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "noise" in captured.err


def test_what_is_guarded_by_main_does_not_run(write):
    guarded = "only = make()\nif __name__ == '__main__':\n    raise RuntimeError"
    assert load_problem(write(guarded)) is not None


@pytest.mark.parametrize(
    ("body", "suffix", "message"),
    [
        ("a = make()\nb2 = make()", "", r"defines 2 problems: `a`, `b2`.*say which.*:a`"),
        ("", "", r"defines no `cvxpy.Problem`.*name the function.*:make`"),
        ("only = make()", ":onyl", r"does not define `onyl`. Did you mean `only`\?"),
        ("only = make()", ":x", r"`x` in .* is of type Variable; a `cvxpy.Problem`"),
        ("only = make()", ":needs", r"`needs` in .* needs arguments"),
        ("1 / 0", "", r"could not be run: ZeroDivisionError: division by zero at line 9"),
        ("import sys\nsys.exit(3)", "", r"could not be run: SystemExit: 3 at line 10"),
        ("def broken(:", "", r"could not be run: SyntaxError"),
    ],
)
def test_a_file_that_does_not_single_out_a_problem_is_refused(write, body, suffix, message):
    with pytest.raises(ProblemFileError, match=message):
        load_problem(write(body) + suffix)


def test_a_missing_file_names_the_nearest_one(write):
    path = write("")
    with pytest.raises(ProblemFileError, match=r"There is no file.*Did you mean `problems.py`\?"):
        load_problem(path.replace("problems", "problem"))


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ProblemFileError, match="is a folder"):
        load_problem(str(tmp_path))


def test_a_file_of_another_kind_is_refused(write):
    with pytest.raises(ProblemFileError, match=r"is not a Python file.*must end in `.py`"):
        load_problem(write("", name="problem.txt"))
