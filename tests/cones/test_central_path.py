# SPDX-License-Identifier: Apache-2.0
"""The derivative on the central path, which stands in where faces cannot be told."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from cvxlayer.cones import second_order, semidefinite

MU = 0.1
CASES = [(semidefinite, 1), (semidefinite, 10), (second_order, 1), (second_order, 5)]
each_case = pytest.mark.parametrize(("cone", "dim"), CASES)


def multiplier(cone: ModuleType, v: np.ndarray) -> np.ndarray:
    """The y inside the cone with v = y − μy⁻¹, from its eigenvalues."""

    def half(value: np.ndarray) -> np.ndarray:
        return 0.5 * (value + np.sqrt(value**2 + 4.0 * MU))

    if cone is semidefinite:
        values, vectors = np.linalg.eigh(semidefinite.unpack(v))
        return semidefinite.pack((vectors * half(values)[:, None]) @ vectors.transpose(0, 2, 1))
    t, norm = v[:, :1], np.linalg.norm(v[:, 1:], axis=1, keepdims=True)
    plus, minus = half(t + norm), half(t - norm)
    tail = v[:, 1:] / np.maximum(norm, 1e-300)
    return 0.5 * np.concatenate([plus + minus, tail * (plus - minus)], axis=1)


@each_case
def test_the_derivative_on_the_central_path_is_that_of_differences(
    cone: ModuleType, dim: int, rng: np.random.Generator
) -> None:
    v, step = rng.normal(size=(5, dim)), 1e-5
    root = cone.smoothed_derivative_root(v, MU)
    for k, unit in enumerate(np.eye(dim)):
        ahead, behind = multiplier(cone, v + step * unit), multiplier(cone, v - step * unit)
        expected = (ahead - behind) / (2.0 * step)
        np.testing.assert_allclose((root @ root)[:, :, k], expected, atol=1e-8, rtol=0)


@each_case
def test_the_derivative_on_the_central_path_becomes_that_of_the_projection(
    cone: ModuleType, dim: int, rng: np.random.Generator
) -> None:
    v = rng.normal(size=(5, dim))
    expected = cone.project_derivative_root(v)
    np.testing.assert_allclose(cone.smoothed_derivative_root(v, 1e-20), expected, atol=1e-8, rtol=0)
