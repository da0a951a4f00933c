# SPDX-License-Identifier: Apache-2.0
"""Sizes and names: what lets a stranger find any line by reading names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.sources import NATIVE_SOURCES, ROOT, SOURCES, Source

MOST_LINES = 400
MOST_LINES_NATIVE = 500
MOST_LINES_OF_A_FUNCTION = 60
SPDX = "SPDX-License-Identifier: Apache-2.0"
BANNED_FILES = {"utils", "util", "misc", "common", "base", "helpers"}
BANNED_NAMES = {"data", "info", "tmp"}
# PyTorch hands `ctx` to these, and `info` to `vmap`: names that it fixed.
AUTOGRAD = {"forward", "backward", "setup_context", "vmap", "jvp", "vjp"}

each_source = pytest.mark.parametrize("source", SOURCES, ids=str)
each_native_source = pytest.mark.parametrize(
    "path", NATIVE_SOURCES, ids=lambda path: str(path.relative_to(ROOT))
)


def functions(source: Source) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        node
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


@each_source
def test_the_first_line_names_the_licence(source: Source) -> None:
    assert source.text.startswith(f"# {SPDX}\n")


@each_source
def test_every_module_says_what_it_is(source: Source) -> None:
    assert ast.get_docstring(source.tree)


@each_source
def test_files_and_functions_are_short(source: Source) -> None:
    num_lines = len(source.text.splitlines())
    assert num_lines <= MOST_LINES, f"{source} has {num_lines} lines: split it by idea"
    for function in functions(source):
        assert function.end_lineno is not None
        length = function.end_lineno - function.lineno + 1 - _docstring_lines(function)
        assert length <= MOST_LINES_OF_A_FUNCTION, (
            f"{source}:{function.lineno} `{function.name}` has {length} lines of code"
        )


@each_source
def test_files_are_named_after_what_they_hold(source: Source) -> None:
    assert not BANNED_FILES & set(source.module.split("."))


@each_source
def test_names_say_something(source: Source) -> None:
    of_vmap = {
        argument
        for function in functions(source)
        if function.name == "vmap"
        for argument in function.args.args
    }
    for name, line in _bound_names(source, of_vmap):
        is_banned = name in BANNED_NAMES or name.startswith("do_") or name.endswith("_hack")
        assert not is_banned, f"{source}:{line} binds `{name}`; say what it holds"
    for function in functions(source):
        arguments = [argument.arg for argument in function.args.args]
        is_autograd = function.name.strip("_") in AUTOGRAD
        assert "ctx" not in arguments or is_autograd, f"{source}:{function.lineno}"


@each_source
def test_nothing_hides_a_failure(source: Source) -> None:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{source}:{node.lineno} catches everything"
            is_silent = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
            assert not is_silent, f"{source}:{node.lineno} swallows an exception"


@each_native_source
def test_native_files_are_short_and_licensed(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert SPDX in lines[0]
    assert len(lines) <= MOST_LINES_NATIVE, f"{path} has {len(lines)} lines"


def _docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (first.end_lineno or first.lineno) - first.lineno + 1 if is_docstring else 0


def _bound_names(source: Source, exempt: set[ast.arg]) -> list[tuple[str, int]]:
    bound: list[tuple[str, int]] = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.append((node.id, node.lineno))
        elif isinstance(node, ast.arg) and node not in exempt:
            bound.append((node.arg, node.lineno))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.append((node.name, node.lineno))
    return bound
