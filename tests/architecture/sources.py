# SPDX-License-Identifier: Apache-2.0
"""The library's own files, read and parsed."""

from __future__ import annotations

import ast
import dataclasses
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cvxlayer"


@dataclasses.dataclass(frozen=True)
class Source:
    """One Python file of the library."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def module(self) -> str:
        """Dotted name, `cvxlayer.cones.zero`."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """The folder or file right below `cvxlayer/`."""
        return [*self.module.split("."), "__init__"][1]

    @functools.cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def imports(self) -> list[Import]:
        """Every import, with the names it needs at run time; those for annotations are left out."""
        found: list[Import] = []
        _collect(self.tree, False, found)
        return found


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module."""

    module: str
    line: int
    is_delayed: bool


def _collect(node: ast.AST, is_delayed: bool, found: list[Import]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            found += [Import(alias.name, child.lineno, is_delayed) for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            assert child.module is not None
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                name = inner if _is_module(inner) else child.module
                found.append(Import(name, child.lineno, is_delayed))
        else:
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            _collect(child, is_delayed or is_function, found)


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir() or name == "cvxlayer._native"


SOURCES = [Source(path) for path in sorted(PACKAGE.rglob("*.py"))]
NATIVE_SOURCES = sorted(
    path for pattern in ("*.cpp", "*.hpp") for path in (PACKAGE / "native").rglob(pattern)
)
