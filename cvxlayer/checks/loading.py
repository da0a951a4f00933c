# SPDX-License-Identifier: Apache-2.0
"""Finds the problem that a Python file defines: `FILE` or `FILE:NAME`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import cvxpy as cp

from cvxlayer.errors import ProblemFileError, suggest


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedProblem:
    """A problem and where it came from.

    Attributes:
        path: the file.
        expression: what gives it in the file: the name of a variable, or a call.
        problem: the `cvxpy.Problem`.
    """

    path: Path
    expression: str
    problem: cp.Problem


def load_problem(target: str) -> LoadedProblem:
    """Run a file and return the problem it defines.

    Args:
        target: `FILE` or `FILE:NAME`; NAME is a variable that holds a `cvxpy.Problem`, or a
            function without required arguments that returns one. Without NAME the file must
            hold exactly one problem.

    Raises:
        ProblemFileError: the file is missing or fails, or does not single out one problem.

    Notes:
        The file runs as an import does, so what stands under `if __name__ == "__main__"`
        does not. What it prints goes to the standard error stream.
    """
    path, name = _split(target)
    module = _run(path)
    if name is None:
        expression, problem = _only_problem(path, module)
    else:
        expression, problem = _named_problem(path, module, name)
    return LoadedProblem(path, expression, problem)


def _split(target: str) -> tuple[Path, str | None]:
    """Return file and name; the colon of a Windows drive does not begin a name."""
    path, name = Path(target), None
    head, colon, tail = target.rpartition(":")
    if not path.is_file() and colon and head and (not tail or tail.isidentifier()):
        path, name = Path(head), tail or None
    if path.is_dir():
        raise ProblemFileError(
            f"`{path}` is a folder; a Python file that defines a `cvxpy.Problem` was expected. "
            "Name the file."
        )
    if not path.is_file():
        raise ProblemFileError(
            f"There is no file `{path}`; a Python file that defines a `cvxpy.Problem` was "
            f"expected. {_suggest_file(path)}"
        )
    return path, name


def _suggest_file(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"The folder `{folder}` does not exist either: check the path."
    siblings = sorted(sibling.name for sibling in folder.glob("*.py"))
    if not siblings:
        return f"There are no Python files in `{folder.resolve()}`: check the path."
    return suggest(path.name, siblings[:12])


def _run(path: Path) -> ModuleType:
    """Import the file under a name of its own, with its folder importable."""
    module_name = f"_checked_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ProblemFileError(
            f"`{path}` is not a Python file: its name must end in `.py`. Rename it, or move the "
            "problem to a Python file."
        )
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up by name.
    sys.modules[module_name] = module
    with _calling_user_code(path):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _calling_user_code(path: Path) -> Generator[None]:
    """Let code of the file run; its output to stderr, its errors as a `ProblemFileError`."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        raise ProblemFileError(
            f"`{path}` could not be run: {type(error).__name__}: {error}"
            f"{_origin(error, path)}. It must run on its own, as `python {path}` would; "
            "mend it there first."
        ) from error
    finally:
        sys.path.remove(folder)


def _origin(error: BaseException, path: Path) -> str:
    """Return the last line of the file that the error passed through."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f" at line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]
    return f" at line {lines[-1]}" if lines else ""


def _only_problem(path: Path, module: ModuleType) -> tuple[str, cp.Problem]:
    """Return the only problem among the variables of a module; one under two names is one."""
    found: dict[int, tuple[str, cp.Problem]] = {}
    for name, value in vars(module).items():
        if isinstance(value, cp.Problem):
            found.setdefault(id(value), (name, value))
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        names = [name for name, _ in found.values()]
        raise ProblemFileError(
            f"`{path}` defines {len(found)} problems: {_listing(names)}. One was expected: "
            f"say which, as in `{path}:{names[0]}`."
        )
    functions = [name for name, value in vars(module).items() if _is_own_function(value, module)]
    advice = (
        f"If a function returns it, name the function, as in `{path}:{functions[0]}` "
        f"(the file has {_listing(functions)})."
        if functions
        else "Assign it to a variable of the module."
    )
    raise ProblemFileError(f"`{path}` defines no `cvxpy.Problem`; one was expected. {advice}")


def _named_problem(path: Path, module: ModuleType, name: str) -> tuple[str, cp.Problem]:
    """Return the expression for a problem, and the problem it gives."""
    if not hasattr(module, name):
        names = [
            key
            for key, value in vars(module).items()
            if isinstance(value, cp.Problem) or _is_own_function(value, module)
        ]
        advice = suggest(name, names) if names else "It defines no problem at all."
        raise ProblemFileError(f"`{path}` does not define `{name}`. {advice}")
    value, expression = getattr(module, name), name
    if callable(value) and not isinstance(value, type):
        if not _is_own_function(value, module):
            raise ProblemFileError(
                f"`{name}` in `{path}` needs arguments; a function that returns a problem must "
                "do without. Write one that calls it, or hold the problem in a variable."
            )
        with _calling_user_code(path):
            value, expression = value(), f"{name}()"
    if not isinstance(value, cp.Problem):
        raise ProblemFileError(
            f"`{name}` in `{path}` is of type {type(value).__name__}; a `cvxpy.Problem`, or a "
            "function that returns one, was expected. Name another one."
        )
    return expression, value


def _is_own_function(value: Any, module: ModuleType) -> bool:
    """Tell whether a value is a function of the module that needs no argument."""
    if not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    arguments = inspect.signature(value).parameters.values()
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(a.default is not a.empty or a.kind in optional for a in arguments)


def _listing(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
