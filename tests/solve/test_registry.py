# SPDX-License-Identifier: Apache-2.0
"""Which backend a name gives, and how a wrong one is refused."""

from __future__ import annotations

import importlib
import sys

import cvxpy as cp
import pytest

from cvxlayer.errors import CvxLayerError, MissingDependencyError, OptionError
from cvxlayer.solve import registry
from cvxlayer.solve.clarabel import ClarabelBackend
from cvxlayer.solve.registry import backend_names, get_backend
from tests.catalog.backends import backend


@pytest.mark.parametrize("name", ["clarabel", "CLARABEL", "Clarabel"])
def test_a_name_is_known_in_any_case(name: str) -> None:
    assert get_backend(name).name == "clarabel"


@pytest.mark.parametrize(
    ("name", "constant"),
    [
        backend("clarabel", cp.CLARABEL),
        backend("scs", cp.SCS),
        backend("ecos", cp.ECOS),
        backend("diffcp", cp.DIFFCP),
    ],
)
def test_the_constant_of_cvxpy_gives_the_backend(name: str, constant: str) -> None:
    assert get_backend(constant).name == name
    assert get_backend(constant) is get_backend(name)


def test_a_backend_of_the_callers_own_is_returned_as_it_is() -> None:
    own = ClarabelBackend()
    assert get_backend(own) is own


def test_the_same_name_gives_the_same_object() -> None:
    assert get_backend("clarabel") is get_backend("clarabel")


def test_the_default_is_our_own_engine() -> None:
    assert backend_names()[0] == registry.DEFAULT == "native"


def test_a_misspelt_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(OptionError, match=r"no solver `clarable`.*`clarabel`"):
        get_backend("clarable")


def test_something_that_is_no_name_is_refused() -> None:
    with pytest.raises(OptionError, match="must be None, a name or an `AbstractBackend`"):
        get_backend(3)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("clarabel", "pip install clarabel"),
        ("scs", r"pip install 'cvxlayer\[scs\]'"),
        ("ecos", r"pip install 'cvxlayer\[ecos\]'"),
        ("diffcp", r"pip install 'cvxlayer\[diffcp\]'"),
    ],
)
def test_a_backend_whose_package_is_missing_says_how_to_get_it(
    name: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"cvxlayer.solve.{name}", raising=False)
    registry._load.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match=f"`{name}`.*{remedy}") as caught:
            get_backend(name)
    finally:
        registry._load.cache_clear()
    assert isinstance(caught.value, CvxLayerError)
    assert isinstance(caught.value, ImportError)


def test_importing_the_registry_loads_no_solver() -> None:
    module = importlib.import_module("cvxlayer.solve.registry")
    assert not hasattr(module, "clarabel")
