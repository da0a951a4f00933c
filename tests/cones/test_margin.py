# SPDX-License-Identifier: Apache-2.0
"""Margins are distances to where the projection is not differentiable."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer.cones import projection
from cvxlayer.cones.margin import crossing, margins
from cvxlayer.cones.product import ConeProduct
from cvxlayer.cones.semidefinite import pack

CONES = {
    "second_order": ConeProduct(second_order=(4,)),
    "semidefinite": ConeProduct(semidefinite=(3,)),
    "exponential": ConeProduct(exponential=1),
    "power": ConeProduct(power=(0.7,)),
}
each_cone = pytest.mark.parametrize("cones", CONES.values(), ids=CONES)
STEP = 1e-7


def jump(cones: ConeProduct, point: np.ndarray) -> float:
    """How much the derivative of the projection changes over a short step."""
    step = STEP * np.linalg.norm(point) * crossing(cones.curved[0])
    first, last = (
        projection.project_dual_derivative(cones, (point + sign * step)[None]) for sign in (1, -1)
    )
    return float(np.abs(first - last).max())


@each_cone
def test_away_from_the_margin_the_derivative_is_continuous(
    cones: ConeProduct, rng: np.random.Generator
) -> None:
    points = rng.normal(size=(300, cones.size))
    for point, margin in zip(points, margins(cones, points)[:, 0], strict=True):
        if margin > 1e-2:
            assert jump(cones, point) < 1e-3


@each_cone
def test_on_the_boundaries_the_margin_is_zero_and_the_derivative_jumps(
    cones: ConeProduct, rng: np.random.Generator
) -> None:
    """The boundary of the dual cone and of the polar of K, reached by projecting."""
    points = rng.normal(size=(300, cones.size))
    y = projection.project_dual(cones, points)
    num_kinks = 0
    for part in (y, y - points):
        # −s is in the polar cone; where the other part is zero the point is inside.
        for corner, point in zip(part if part is y else -part, points, strict=True):
            size = np.linalg.norm(corner)
            if min(size, np.linalg.norm(corner - point)) < 0.1:
                continue
            assert margins(cones, corner[None])[0, 0] < 1e-6 * size
            num_kinks += jump(cones, corner) > 0.1
    assert num_kinks > 20


def test_margins_have_closed_forms() -> None:
    cones = ConeProduct(1, 2, (3,), (2,))
    point = np.concatenate([[7.0, -0.5, -np.inf], [1.0, 3.0, 4.0], np.zeros(3)])
    point[6:] = pack(np.diag([2.0, -0.25])[None])[0]
    np.testing.assert_allclose(margins(cones, point[None]), [[0.5, np.inf, 4.0, 0.25]])


def test_neighbours_of_one_kind_keep_their_order(rng: np.random.Generator) -> None:
    cones = ConeProduct(0, 1, (3, 3, 4), (2, 2), 2, (0.3, 0.3, 0.6))
    points = rng.normal(size=(5, cones.size))
    together = margins(cones, points)
    for place, cone in enumerate(cones.curved):
        alone = {
            0: ConeProduct(second_order=(cone.size,)),
            1: ConeProduct(semidefinite=(int(cone.parameter),)),
            2: ConeProduct(exponential=1),
            3: ConeProduct(power=(cone.parameter,)),
        }[int(cone.kind)]
        np.testing.assert_allclose(
            together[:, 1 + place], margins(alone, points[:, cone.rows])[:, 0]
        )


@pytest.mark.parametrize("point", [[0.0, 1.0, -1.0], [1.0, 2.0, 0.0]], ids=["r", "t"])
def test_the_edges_of_the_flat_face_of_the_exponential_cone_count(point: list[float]) -> None:
    """There a point projects onto the face s = 0, until r or t changes sign."""
    cones = CONES["exponential"]
    assert margins(cones, np.array([point]))[0, 0] == 0.0
    assert jump(cones, np.array(point)) > 0.1
