# SPDX-License-Identifier: Apache-2.0
"""How the torch layer behaves inside autograd: graphs, refusals, in-place changes."""

from __future__ import annotations

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
