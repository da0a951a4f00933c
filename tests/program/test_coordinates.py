# SPDX-License-Identifier: Apache-2.0
"""θ is made of the user's values, and cotangents find their way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cvxlayer.program.coordinates import Coordinate, Coordinates
from cvxlayer.program.parameters import (
    OutputSpec,
    ParameterSpec,
    from_coordinates,
    to_coordinates,
)

# The second parameter is both itself and its logarithm.
MIXED = Coordinates((Coordinate(0, is_log=True), Coordinate(1), Coordinate(1, is_log=True)))


def test_the_identity_hands_values_through(rng: Any) -> None:
    values = (rng.normal(size=(4, 2)), rng.normal(size=(1, 3)))
    identity = Coordinates.identity(2)
    assert identity.is_identity
    assert not MIXED.is_identity
    for given, theta in zip(values, identity.apply(values), strict=True):
        assert theta is given
    assert identity.pull_back(values, [values[0], None]) == (values[0], None)


def test_pulling_back_is_the_adjoint_of_the_derivative(rng: Any) -> None:
    values = [rng.uniform(1, 2, size=(4, 2)), rng.uniform(1, 2, size=(1, 3))]
    change = [rng.normal(size=value.shape) for value in values]
    theta_bar = [rng.normal(size=part.shape) for part in MIXED.apply(values)]
    step = 1e-6

    def moved(sign: float) -> tuple[np.ndarray, ...]:
        return MIXED.apply([v + sign * step * d for v, d in zip(values, change, strict=True)])

    tangent = [(up - down) / (2 * step) for up, down in zip(moved(1.0), moved(-1.0), strict=True)]
    pulled = MIXED.pull_back(values, theta_bar)
    forward = sum(float(np.sum(b * t)) for b, t in zip(theta_bar, tangent, strict=True))
    backward = sum(float(np.sum(b * d)) for b, d in zip(pulled, change, strict=True))
    assert backward == pytest.approx(forward, rel=1e-8)


def test_a_parameter_without_a_cotangent_gets_none(rng: Any) -> None:
    values = [rng.uniform(1, 2, size=(4, 2)), rng.uniform(1, 2, size=(1, 3))]
    assert MIXED.spread([True, False]) == [True, False, False]
    first, second = MIXED.pull_back(values, [np.ones((4, 2)), None, None])
    np.testing.assert_allclose(first, 1 / values[0])
    assert second is None


def test_infinity_is_legal_where_every_part_may_be_infinite() -> None:
    sides = [np.array([1, -1]), np.array([1, 0, 1]), np.array([1, 1, -1])]
    first, second = MIXED.legal_infinities(sides, 2)
    assert first.tolist() == [1, 0]  # log 0 = −∞, but 0 is not positive
    assert second.tolist() == [1, 0, 0]


@pytest.mark.parametrize("make", [ParameterSpec, OutputSpec], ids=lambda make: make.__name__)
@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("batch_shape", [(), (4,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)], ids=str)
def test_coordinates_keep_every_entry(
    make: Any, is_complex: bool, batch_shape: tuple[int, ...], shape: tuple[int, ...], rng: Any
) -> None:
    spec = make("z", shape, is_complex=is_complex)
    value = rng.normal(size=batch_shape + shape)
    if is_complex:
        value = value + 1j * rng.normal(size=value.shape)
    value = np.asarray(value)
    rows = to_coordinates(spec, value)
    assert rows.shape == (int(np.prod(batch_shape)), spec.size)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(from_coordinates(spec, rows, batch_shape), value)


def test_the_coordinates_of_a_complex_number_are_its_parts() -> None:
    spec = ParameterSpec("z", (2,), is_complex=True)
    rows = to_coordinates(spec, np.array([1 + 2j, 3 - 4j]))
    assert rows.tolist() == [[1.0, 2.0, 3.0, -4.0]]
