# SPDX-License-Identifier: Apache-2.0
"""Who may import whom. Data walks in one direction, and each room knows one thing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.sources import SOURCES, Source

COMMON = {"errors", "cones", "program"}
STAGES = {"canonicalize", "solve", "differentiate"}
CALL = COMMON | {
    "compiler",
    "domains",
    "evaluation",
    "inputs",
    "notices",
    "options",
    "plain_call",
    "reading",
    "reporting",
    "solve.backend",
}
# The rules of cone programs know no engine: frameworks register them.
RULES = {"differentiate.cone_rules", "differentiate.cone_pattern"}
# Nor do those of any residual, nor the choices a user has: the adapters register and export them.
ENGINE = {
    "differentiate.array_ops",
    "differentiate.backward",
    "differentiate.implicit",
    "differentiate.krylov",
    "differentiate.linear_operator",
    "differentiate.linear_solvers",
}

# Room → what it may import. `solve.backend` is the one file of a stage that others may
# name: the type of what a user passes as `solver=`.
MAY_IMPORT = {
    "errors": set(),
    "cones": {"errors"},
    "program": {"cones", "errors", "_native"},
    "canonicalize": COMMON,
    "solve": COMMON | {"_native"},
    "differentiate": COMMON | {"_native"},
    "families": COMMON | {"differentiate"},
    "compiler": COMMON | STAGES,
    "domains": COMMON,
    "inputs": COMMON | {"domains"},
    "notices": COMMON,
    "options": COMMON | {"solve"},
    # The verdict on a derivative is made where solutions are differentiated.
    "reporting": CALL | {"differentiate"},
    "evaluation": CALL,
    "plain_call": CALL,
    "reading": set(),
    "tracing": CALL | RULES,
    "cone_calls": CALL | RULES,
    "layer": CALL | {"torch", "jax"},
    "torch": CALL | RULES | ENGINE | {"families", "tracing", "cone_calls"},
    "jax": CALL | RULES | ENGINE | {"families", "tracing", "cone_calls"},
    "__init__": CALL | {"layer"},
    "checks": CALL | STAGES | {"layer"},
    "cli": CALL | {"checks"},
    "__main__": {"cli", "errors"},
}
# Package → the rooms that may import it.
OUTSIDE = {
    "cvxpy": {"canonicalize", "checks"},
    "torch": {"torch"},
    "jax": {"jax"},
    "clarabel": {"solve"},
    "scs": {"solve"},
    "ecos": {"solve"},
    "diffcp": {"solve"},
    "typer": {"cli", "__main__"},
    "rich": {"cli", "__main__"},
}
# `program.engine` builds the one engine that the two stages share.
NATIVE_DOORS = {
    "cvxlayer.program.engine",
    "cvxlayer.program.inspection",
    "cvxlayer.program.native_program",
    "cvxlayer.program.registered",
    "cvxlayer.program.sparse_map",
    "cvxlayer.solve.native",
    "cvxlayer.differentiate.native",
}

each_source = pytest.mark.parametrize("source", SOURCES, ids=str)


@each_source
def test_imports_follow_the_arrows(source: Source) -> None:
    assert source.room in MAY_IMPORT, f"{source}: add this room to MAY_IMPORT, with a reason"
    allowed = MAY_IMPORT[source.room] | {source.room}
    for imported in source.imports():
        if not imported.module.startswith("cvxlayer."):
            continue
        target = imported.module.removeprefix("cvxlayer.")
        assert target.split(".")[0] in allowed or target in allowed, (
            f"{source}:{imported.line} imports {imported.module}; `{source.room}` may import "
            f"only {sorted(allowed)}. Hand over data through `program/` instead."
        )


@each_source
def test_outside_packages_stay_in_their_rooms(source: Source) -> None:
    for imported in source.imports():
        package = imported.module.split(".")[0]
        if package in OUTSIDE:
            assert source.room in OUTSIDE[package], (
                f"{source}:{imported.line} imports {package}, which belongs in {OUTSIDE[package]}"
            )


@each_source
def test_the_compiled_core_has_few_doors(source: Source) -> None:
    if source.module not in NATIVE_DOORS:
        assert all(imported.module != "cvxlayer._native" for imported in source.imports())


@each_source
def test_a_delayed_import_says_why(source: Source) -> None:
    lines = source.text.splitlines()
    for imported in source.imports():
        if imported.is_delayed:
            nearby = lines[max(imported.line - 4, 0) : imported.line]
            assert any("#" in line for line in nearby), (
                f"{source}:{imported.line}: a comment has to say why this import is delayed"
            )


@each_source
def test_a_missing_package_is_never_hidden(source: Source) -> None:
    """Only the registry catches a failed import, to say which extra to install."""
    if source.room in ("solve", "cli", "__main__"):
        return
    assert "except ImportError" not in source.text
    assert "except ModuleNotFoundError" not in source.text


def test_there_are_no_cycles() -> None:
    modules = {source.module: source for source in SOURCES}
    edges = {
        name: {imported.module for imported in source.imports() if not imported.is_delayed}
        & modules.keys() - {name}
        for name, source in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in modules:
        visit(name, ())


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_importing_the_library_loads_no_framework(framework: str) -> None:
    code = f"import sys, cvxlayer; sys.exit({framework!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SOURCES[0].path.parents[1])
