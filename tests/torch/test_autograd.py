# SPDX-License-Identifier: Apache-2.0
"""How the torch layer behaves inside autograd: graphs, refusals, in-place changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cvxlayer.torch import Layer  # noqa: E402
from tests.catalog.problems import case_named  # noqa: E402


def test_no_graph_is_recorded_without_need(rng):
    layer = Layer(*case_named("relu").build())
    value = torch.from_numpy(rng.normal(size=5))
    assert layer(value)[0].grad_fn is None
    value.requires_grad_()
    with torch.no_grad():
        assert not layer(value)[0].requires_grad
    with torch.inference_mode():
        assert layer(value)[0].is_inference()


def test_an_input_changed_in_place_before_backward_is_refused(rng):
    layer = Layer(*case_named("relu").build())
    value = torch.from_numpy(rng.normal(size=5)).requires_grad_()
    work = value * 1.0
    (output,) = layer(work)
    work += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_an_output_changed_in_place_keeps_its_gradient(rng):
    layer = Layer(*case_named("relu").build())
    value = torch.from_numpy(np.array([1.0, -1.0, 2.0, -2.0, 3.0])).requires_grad_()
    (output,) = layer(value)
    output.zero_().add_(1.0)
    (second,) = layer(value)
    second.mul_(2.0).sum().backward()
    torch.testing.assert_close(value.grad, 2 * (value > 0).double(), atol=1e-6, rtol=1e-6)


def test_backward_twice_needs_retain_graph(rng):
    layer = Layer(*case_named("relu").build())
    value = torch.from_numpy(rng.normal(size=5)).requires_grad_()
    loss = layer(value)[0].sum()
    loss.backward(retain_graph=True)
    first = value.grad.clone()
    loss.backward()
    torch.testing.assert_close(value.grad, 2 * first)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_a_layer_inside_a_compiled_function_gives_the_same_gradient():
    # In a process of its own: the compiler cannot trace the checks of annotations.
    program = """
import torch
from cvxlayer.torch import Layer
from tests.catalog.problems import case_named

layer = Layer(*case_named("simplex").build())
loss = lambda value: (layer(2 * value)[0] ** 2).sum()
value = torch.tensor([0.3, -0.2, 0.5, 0.1, 0.9, 0.0], dtype=torch.float64, requires_grad=True)
(expected,) = torch.autograd.grad(loss(value), value)
(found,) = torch.autograd.grad(torch.compile(loss, backend="eager")(value), value)
torch.testing.assert_close(found, expected)
"""
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
