# SPDX-License-Identifier: Apache-2.0
"""Where derivatives are hard to get right: the truth, an element of its hull, or a warning."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from cvxlayer.errors import DerivativeWarning
from tests.catalog.hard_derivatives import HARD_CASES, HardCase

torch = pytest.importorskip("torch")

TOLERANCE = 1e-6
SOLVABLE = [case for case in HARD_CASES if case.is_solvable]


def _gradients(case: HardCase) -> tuple[list[np.ndarray], tuple[np.ndarray, ...], bool]:
    """Outputs, gradients, and whether a warning was given."""
    from cvxlayer.torch import Layer

    layer = Layer(*case.build(), gp=case.gp, on_failure="nan")
    values = [torch.tensor(value, requires_grad=True) for value in case.values]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outputs = layer(*values)
        sum(
            (x * torch.tensor(w)).sum() for x, w in zip(outputs, case.weights, strict=True)
        ).backward()
    has_warned = any(isinstance(one.message, DerivativeWarning) for one in caught)
    arrays = [output.detach().numpy() for output in outputs]
    return arrays, tuple(value.grad.numpy() for value in values), has_warned


@pytest.mark.parametrize("case", [c for c in SOLVABLE if c.pieces], ids=str)
def test_the_gradient_is_the_true_one_or_between_those_of_the_adjacent_pieces(
    case: HardCase,
) -> None:
    _, gradients, has_warned = _gradients(case)
    assert case.error(gradients) <= TOLERANCE
    assert not (case.exists and has_warned), "the derivative exists: there is nothing to warn of"


@pytest.mark.parametrize("case", [c for c in SOLVABLE if not c.pieces], ids=str)
def test_a_loss_of_what_is_not_unique_warns(case: HardCase) -> None:
    _, gradients, has_warned = _gradients(case)
    assert has_warned
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("case", [c for c in HARD_CASES if not c.is_solvable], ids=str)
def test_without_a_solution_there_is_no_finite_answer_and_a_gradient_of_exactly_zero(
    case: HardCase,
) -> None:
    outputs, gradients, _ = _gradients(case)
    assert all(np.isnan(output).all() for output in outputs)
    assert all((gradient == 0.0).all() for gradient in gradients)


def test_a_wrong_gradient_is_far_from_every_hull() -> None:
    for case in SOLVABLE:
        if case.pieces:
            largest = max(float(np.max(np.abs(one))) for one in case.pieces[0])
            wrong = tuple(gradient + 0.1 * (1.0 + largest) for gradient in case.pieces[0])
            assert case.error(wrong) > 100 * TOLERANCE, case.name
