# SPDX-License-Identifier: Apache-2.0
"""docs/backends.md: its example runs, and its tables are those of the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxlayer import Layer
from cvxlayer.compiler import compile_problem
from cvxlayer.differentiate.native import NativeDerivative
from cvxlayer.errors import OptionError, SolverError, UnsupportedProblemError
from cvxlayer.program.batch import ConeProgramCotangent
from cvxlayer.solve.registry import backend_names, get_backend
from tests.catalog.backends import BACKENDS
from tests.catalog.problems import case_named

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
SNIPPETS = [
    code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "import" in code
]


@pytest.fixture
def page() -> dict[str, Any]:
    """The names that the example defines."""
    pytest.importorskip("torch")
    names: dict[str, Any] = {}
    for code in SNIPPETS:
        exec(compile(code, "docs/backends.md", "exec"), names)
    return names


def test_the_example_solves_and_differentiates(page: dict[str, Any]) -> None:
    np.testing.assert_allclose(page["plan"].detach().numpy(), [[3, 2], [2.5, 13 / 6]], atol=1e-9)
    (prices,) = page["prices"]
    # The profit a unit of each ingredient would add: the duals of the constraints.
    np.testing.assert_allclose(prices.numpy(), [[1.4, 0.2, 0], [0, 2 / 3, 7 / 3]], atol=1e-9)


def test_a_solver_of_ones_own_is_refused_what_it_refuses(page: dict[str, Any]) -> None:
    own = page["HighsBackend"]()
    case = case_named("simplex")
    with pytest.raises(UnsupportedProblemError, match="linear programs only"):
        Layer(*case.build(), solver=own)(np.zeros(6))
    with pytest.raises(OptionError, match=r"solver `highs`.*`presolve`"):
        Layer(*case.build(), solver=own, solver_args={"presolv": False})


def test_a_solver_of_ones_own_has_its_options_and_failures(page: dict[str, Any]) -> None:
    layer = Layer(
        page["problem"],
        [page["stock"]],
        [page["amount"]],
        solver=page["HighsBackend"](),
        solver_args={"presolve": False},
    )
    np.testing.assert_allclose(layer(np.array([8.0, 9.0, 9.0]))[0], [3, 2], atol=1e-9)
    with pytest.raises(SolverError, match="1: NUMERICAL_ERROR"):
        layer(np.array([[8.0, 9.0, 9.0], [-1.0, 9.0, 9.0]]))


def test_a_solver_of_ones_own_may_bring_its_derivative(page: dict[str, Any]) -> None:
    native = NativeDerivative()

    class Opposite:
        """Our derivative with the wrong sign, so that it shows whose was used."""

        setup = staticmethod(native.setup)

        def vjp(self, *args: Any, **options: Any) -> ConeProgramCotangent:
            cotangent = native.vjp(*args, **options)
            return dataclasses.replace(cotangent, b=-cotangent.b)

    own, opposite = page["HighsBackend"](), Opposite()
    own.derivative = lambda settings: opposite
    program = compile_problem(page["problem"], [page["stock"]], [page["amount"]])
    solution = program.solve([np.array([[8.0, 9.0, 9.0]])], backend=own)
    (prices,), _ = program.vjp(solution, [np.array([[3.0, 2.0]])])
    np.testing.assert_allclose(prices, [[-1.4, -0.2, 0]], atol=1e-9)
    (prices,), _ = program.vjp(solution, [np.array([[3.0, 2.0]])], derivative=native)
    np.testing.assert_allclose(prices, [[1.4, 0.2, 0]], atol=1e-9)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_option_of_a_solver_is_documented(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", PAGE, re.MULTILINE)
    if name == "clarabel":
        assert "every field of its settings" in row
        return
    documented = set(re.findall(r"`(\w+)`", row))
    assert get_backend(name).extra_options <= documented
    assert documented - get_backend(name).extra_options <= {"use_indirect", "linear_solver"}


@pytest.mark.parametrize("name", backend_names())
def test_every_solver_stands_in_the_table(name: str) -> None:
    assert re.search(rf'^\| `"{name}"` \|', PAGE, re.MULTILINE)
