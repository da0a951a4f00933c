# SPDX-License-Identifier: Apache-2.0
"""How `solver_args` become settings, and what is refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from cvxlayer.cones.product import ConeProduct
from cvxlayer.errors import OptionError, Status
from cvxlayer.solve.backend import Settings, parse_settings
from cvxlayer.solve.clarabel import ClarabelBackend
from cvxlayer.solve.native import NativeBackend
from tests.catalog.cone_programs import random_batch

BACKEND = ClarabelBackend()


def test_eps_sets_both_tolerances() -> None:
    settings = parse_settings(BACKEND, {"eps": 1e-5})
    assert (settings.eps_abs, settings.eps_rel) == (1e-5, 1e-5)


def test_a_call_changes_only_what_it_names() -> None:
    defaults = parse_settings(BACKEND, {"eps": 1e-5, "max_iters": 7})
    settings = parse_settings(BACKEND, {"eps_abs": 1e-3}, defaults)
    assert settings == Settings(eps_abs=1e-3, eps_rel=1e-5, max_iters=7)


def test_nothing_given_leaves_the_defaults() -> None:
    assert parse_settings(BACKEND, None) == parse_settings(BACKEND, {}) == Settings()


def test_an_option_of_the_backend_is_handed_on() -> None:
    settings = parse_settings(BACKEND, {"equilibrate_enable": False})
    assert settings.extra == {"equilibrate_enable": False}


@pytest.mark.parametrize(
    ("name", "nearest"), [("max_iter", "max_iters"), ("ep", "eps"), ("tol_feass", "tol_feas")]
)
def test_an_unknown_option_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(OptionError, match=f"no option `{name}`.*`{nearest}`"):
        parse_settings(BACKEND, {name: 1})


@pytest.mark.parametrize("value", [0.0, -1e-3, float("inf"), float("nan"), "1e-3", None, True])
def test_a_tolerance_has_to_be_a_positive_number(value: object) -> None:
    with pytest.raises(OptionError, match="must be a positive number"):
        parse_settings(BACKEND, {"eps": value})


@pytest.mark.parametrize("value", [0, -3, 2.5, "4", True])
@pytest.mark.parametrize("name", ["max_iters", "threads"])
def test_a_count_has_to_be_a_positive_integer(name: str, value: object) -> None:
    with pytest.raises(OptionError, match="must be a positive integer or None"):
        parse_settings(BACKEND, {name: value})


@pytest.mark.parametrize("name", ["max_iters", "threads"])
@pytest.mark.parametrize("value", [2**31 - 1, 2**31, 10**30])
def test_a_count_beyond_32_bits_is_no_limit(
    name: str, value: int, rng: np.random.Generator
) -> None:
    batch = random_batch(rng, n=4, cones=ConeProduct(1, 4), batch=2)
    backend = NativeBackend()
    settings = parse_settings(backend, {name: value})
    solution = backend.solve(backend.setup(batch.structure), batch, settings)
    assert (solution.status == Status.SOLVED).all()


def test_a_value_clarabel_refuses_is_our_error(rng: np.random.Generator) -> None:
    batch = random_batch(rng, n=3, cones=ConeProduct(0, 2))
    settings = parse_settings(BACKEND, {"tol_feas": "small"})
    with pytest.raises(OptionError, match="`tol_feas` cannot be 'small'"):
        BACKEND.solve(BACKEND.setup(batch.structure), batch, settings)


def test_verbose_logs_and_does_not_print(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    batch = random_batch(rng, n=3, cones=ConeProduct(0, 2), batch=4)
    with caplog.at_level(logging.INFO, logger="cvxlayer"):
        BACKEND.solve(BACKEND.setup(batch.structure), batch, Settings(verbose=True))
    assert "clarabel: 4 rows (4 SOLVED)" in caplog.text
    assert capfd.readouterr().out == ""
