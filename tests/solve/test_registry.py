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


@pytest.mark.parametrize("name", ["clarabel", "CLARABEL", "Clarabel", cp.CLARABEL])
def test_a_name_and_the_constant_of_cvxpy_give_the_backend(name: str) -> None:
    assert get_backend(name).name == "clarabel"


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


def test_a_backend_whose_package_is_missing_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "clarabel", None)
    monkeypatch.delitem(sys.modules, "cvxlayer.solve.clarabel")
    registry._load.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match="pip install clarabel") as caught:
            get_backend("clarabel")
    finally:
        registry._load.cache_clear()
    assert isinstance(caught.value, CvxLayerError | ImportError)


def test_importing_the_registry_loads_no_solver() -> None:
    module = importlib.import_module("cvxlayer.solve.registry")
    assert not hasattr(module, "clarabel")
