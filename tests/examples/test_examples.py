# SPDX-License-Identifier: Apache-2.0
"""The examples run, and do what they say."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TESTED = {"denoise_digits", "mpc_controller", "projection_numpy"}
MOST_LINES_OF_A_SHORT_EXAMPLE = 80


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def restored_torch():
    """Torch with its defaults put back: examples may set them."""
    torch = pytest.importorskip("torch")
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield torch
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


def test_every_example_is_tested_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TESTED


@pytest.mark.parametrize("name", sorted(TESTED - {"denoise_digits"}))
def test_short_examples_are_short(name):
    lines = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < MOST_LINES_OF_A_SHORT_EXAMPLE


def test_the_denoiser_learns_to_beat_the_best_single_weight(tmp_path, restored_torch):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    picture = tmp_path / "digits.png"
    results = load("denoise_digits").main(steps=12, output=picture)
    noisy, single, learned, _ = (results.mean_decibels(state) for state in results.states)
    assert noisy + 2 < single, "one weight has to help at all"
    assert single + 0.2 < learned, "a dozen steps already gain a fifth of a decibel"
    assert results.history[0][1] == pytest.approx(single, abs=0.2), "training starts from it"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_denoiser_never_trains_on_what_it_is_judged_by(restored_torch):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    train, held_out, digits = load("denoise_digits").load_images()
    assert len(held_out) == len(digits) == 297
    assert len(train) + len(held_out) == 1797


def test_the_tuned_controller_does_better_on_carts_it_has_not_seen(restored_torch):
    before, after = load("mpc_controller").main(epochs=8)
    assert after < 0.97 * before


def test_the_numpy_projection_is_exact_to_the_tolerance(capsys):
    assert load("projection_numpy").main(batch=30, size=20) < 1e-5
    assert re.search(r"layer: .* 30 of 30 solved", capsys.readouterr().out)
