# SPDX-License-Identifier: Apache-2.0
"""Parameters declared sparse or diagonal: whole arrays in, gradients of what counts out."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import Layer
from cvxlayer.errors import ParameterValueError

SPARSITY = ([0, 1, 2, 2], [1, 1, 0, 2])
DECLARED = [{"sparsity": SPARSITY}, {"diag": True}]
STEP = 1e-5
each_declaration = pytest.mark.parametrize("declared", DECLARED, ids=["sparse", "diagonal"])


def pattern_of(declared: dict[str, Any]) -> np.ndarray:
    pattern = np.eye(3, dtype=bool)
    if "sparsity" in declared:
        pattern[:] = False
        pattern[SPARSITY] = True
    return pattern


def layer_of(declared: dict[str, Any]) -> Layer:
    x = cp.Variable(3, name="x")
    M, target = cp.Parameter((3, 3), name="M", **declared), cp.Parameter(3, name="target")
    cost = cp.sum_squares(M @ x - target) + 0.1 * cp.sum_squares(x)
    problem = cp.Problem(cp.Minimize(cost), [M @ x <= 1.0, cp.sum(x) == 1.0])
    return Layer(problem, [M, target], [x])


@each_declaration
def test_the_whole_array_is_given_and_a_dense_parameter_answers_the_same(
    declared: dict[str, Any], rng: np.random.Generator
) -> None:
    M = rng.normal(size=(5, 3, 3)) * pattern_of(declared)
    target = rng.normal(size=(5, 3))
    ours, dense = layer_of(declared)(M, target), layer_of({})(M, target)
    np.testing.assert_allclose(ours[0], dense[0], atol=1e-9)


@each_declaration
def test_gradients_are_those_of_the_pattern_and_zero_elsewhere(
    declared: dict[str, Any], rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    layer, pattern = layer_of(declared), pattern_of(declared)
    M, target = rng.normal(size=(3, 3)) * pattern, 3.0 * rng.normal(size=3)
    weights = rng.normal(size=3)
    matrix = torch.tensor(M, requires_grad=True)
    (x,) = layer(matrix, torch.tensor(target))
    (x * torch.tensor(weights)).sum().backward()
    expected = np.zeros((3, 3))
    for place in zip(*np.nonzero(pattern), strict=True):
        unit = np.zeros((3, 3))
        unit[place] = STEP
        ahead, behind = (layer(M + sign * unit, target)[0] @ weights for sign in (1.0, -1.0))
        expected[place] = (ahead - behind) / (2 * STEP)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(matrix.grad.numpy(), expected, atol=1e-6)


@each_declaration
def test_an_entry_beside_the_pattern_is_refused(
    declared: dict[str, Any], rng: np.random.Generator
) -> None:
    M = rng.normal(size=(3, 3)) * pattern_of(declared)
    M[0, 2] = 1.0
    with pytest.raises(ParameterValueError, match="`M`"):
        layer_of(declared)(M, np.zeros(3))
