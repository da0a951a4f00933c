# SPDX-License-Identifier: Apache-2.0
"""The rules of every order, in NumPy: against differences, against the specification, adjoint."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cvxlayer.differentiate import conic
from cvxlayer.differentiate.cone_pattern import ConePattern
from cvxlayer.differentiate.cone_rules import ConeData, ConeRules, Point, Solved
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.infinite import without_infinite_rows
from cvxlayer.program.solution import ConeSolution
from tests.catalog.cone_programs import ALL, REGULAR, UNSOLVABLE, ConeProgramCase
from tests.catalog.numpy_ops import NumpyOps, NumpyPrimitives, ReferenceCalls
from tests.catalog.true_solutions import BLOCKS, random_direction, solve_accurately

# The four-point formula leaves STEP⁴ times a fifth derivative, and rounding over STEP.
STEP = 1e-4
DIFFERENCE = 1e-6
ADJOINT = 1e-9
EQUAL = 1e-9

# Its cones are in cases of their own, and the specification is slow.
SLOW = "three-dimensional-mixed"
regular = pytest.mark.parametrize("case", [c for c in REGULAR if c.name != SLOW], ids=str)
each = pytest.mark.parametrize("case", [c for c in ALL if c.name != SLOW], ids=str)
Right = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Solvent:
    """A batch with its solutions, and the rules at work on it."""

    batch: ConeProgramBatch
    cone: ConeSolution
    problem: ConeData
    solved: Solved
    rules: ConeRules

    @property
    def point(self) -> Point:
        return self.rules.engine.refine(self.problem, self.solved)


def solvent(case: ConeProgramCase, rng: np.random.Generator) -> Solvent:
    batch = without_infinite_rows(case.build(rng))
    cone = solve_accurately(batch)
    pattern, calls = ConePattern.of(batch.structure), ReferenceCalls(batch.structure)
    rules = ConeRules(pattern, NumpyOps(), NumpyPrimitives(calls, pattern))
    solved = Solved(cone.x, cone.y, cone.s, cone.is_active, cone.status)
    return Solvent(batch, cone, ConeData(batch.P, batch.q, batch.A, batch.b), solved, rules)


def right_hand_sides(at: Solvent, rng: np.random.Generator, count: int = 2) -> Right:
    n, m = at.batch.structure.num_variables, at.batch.structure.num_rows
    gx, gy, gs = (rng.normal(size=(at.batch.size, count, size)) for size in (n, m, m))
    return gx, gy, gs


def pairing(*pairs: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Return the sum of all products, and of their sizes."""
    return sum(float(np.sum(a * b)) for a, b in pairs), sum(
        float(np.sum(np.abs(a * b))) for a, b in pairs
    )


def blocks(direction: dict[str, np.ndarray]) -> ConeData:
    return ConeData(*(direction[name] for name in BLOCKS))


@each
def test_the_rules_of_solve_equal_the_specification(case: ConeProgramCase, rng) -> None:
    at = solvent(case, rng)
    direction = random_direction(at.batch, rng)
    tangent = conic.jvp(at.batch, at.cone, *(direction[name] for name in BLOCKS))
    expected = (tangent.x, tangent.y, tangent.s)
    size = max(np.abs(part).max(initial=0.0) for part in expected)
    for left, right in zip(
        at.rules.solve_jvp(at.problem, at.solved, blocks(direction)), expected, strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=EQUAL, atol=EQUAL * size)
    bars = [bar[:, 0] for bar in right_hand_sides(at, rng, 1)]
    wanted = conic.vjp(at.batch, at.cone, *bars)
    found = at.rules.solve_vjp(at.problem, at.solved, *bars)
    for name, left, block in zip(BLOCKS, found, at.problem, strict=True):
        right = getattr(wanted, name)
        right = right if len(right) == len(block) else right.sum(0, keepdims=True)
        np.testing.assert_allclose(
            left, right, rtol=EQUAL, atol=EQUAL * np.abs(right).max(initial=0)
        )


@regular
def test_the_derivative_of_kkt_apply_equals_differences(case: ConeProgramCase, rng) -> None:
    at, point = (found := solvent(case, rng)), found.point
    right, d_right = right_hand_sides(at, rng), right_hand_sides(at, rng)
    direction = blocks(random_direction(at.batch, rng))
    dv = point.v * rng.normal(size=point.v.shape)

    def moved(step: float) -> tuple[np.ndarray, np.ndarray]:
        problem = ConeData(*(a + step * d for a, d in zip(at.problem, direction, strict=True)))
        there = point._replace(v=point.v + step * dv)
        gs = (g + step * d for g, d in zip(right, d_right, strict=True))
        return at.rules.engine.kkt_apply(problem, there, *gs)

    result = moved(0.0)
    computed = at.rules.kkt_jvp(at.problem, point, right, result, direction, dv, d_right)
    ahead, behind = (moved(STEP), moved(2.0 * STEP)), (moved(-STEP), moved(-2.0 * STEP))
    for part, tangent in enumerate(computed):
        difference = 8.0 * (ahead[0][part] - behind[0][part]) - (ahead[1][part] - behind[1][part])
        difference /= 12.0 * STEP
        scale = np.abs(difference).max(axis=(1, 2), keepdims=True, initial=0.0) + 1e-6
        error = np.abs(tangent - difference)
        assert (error <= DIFFERENCE * scale).all(), (error / scale).max()


@each
def test_the_rules_of_kkt_apply_are_adjoint(case: ConeProgramCase, rng) -> None:
    at, point = (found := solvent(case, rng)), found.point
    right, d_right = right_hand_sides(at, rng), right_hand_sides(at, rng)
    lam_bar, nu_bar, _ = right_hand_sides(at, rng)
    direction = blocks(random_direction(at.batch, rng))
    dv = rng.normal(size=point.v.shape)
    result = at.rules.engine.kkt_apply(at.problem, point, *right)
    dlam, dnu = at.rules.kkt_jvp(at.problem, point, right, result, direction, dv, d_right)
    problem_bar, v_bar, right_bar = at.rules.kkt_vjp(
        at.problem, point, right, result, lam_bar, nu_bar
    )
    forward, size = pairing((lam_bar, dlam), (nu_bar, dnu))
    pairs = [
        (problem_bar.P, direction.P),
        (problem_bar.A, direction.A),
        *zip(right_bar, d_right, strict=True),
    ]
    if v_bar is not None:
        pairs.append((v_bar, dv))
    backward, other = pairing(*pairs)
    assert abs(forward - backward) <= ADJOINT * (size + other)


@each
def test_the_rules_of_the_value_are_adjoint(case: ConeProgramCase, rng) -> None:
    at = solvent(case, rng)
    point = at.point
    direction, bar = blocks(random_direction(at.batch, rng)), rng.normal(size=at.batch.size)
    forward, size = pairing((bar, at.rules.value_jvp(point.x, point.y, direction)))
    found = at.rules.value_vjp(at.problem, point.x, point.y, bar)
    backward, other = pairing(*zip(found, direction, strict=True))
    assert abs(forward - backward) <= ADJOINT * (size + other)


@pytest.mark.parametrize("case", UNSOLVABLE, ids=str)
def test_rows_without_a_solution_are_exactly_zero_in_every_rule(case: ConeProgramCase, rng) -> None:
    at, point = (found := solvent(case, rng)), found.point
    right = right_hand_sides(at, rng)
    direction = blocks(random_direction(at.batch, rng))
    result = at.rules.engine.kkt_apply(at.problem, point, *right)
    second = at.rules.kkt_jvp(at.problem, point, right, result, direction, point.v + 1.0, right)
    problem_bar, v_bar, right_bar = at.rules.kkt_vjp(at.problem, point, right, result, *right[:2])
    first = at.rules.solve_jvp(at.problem, at.solved, direction)
    bars = at.rules.solve_vjp(at.problem, at.solved, *(bar[:, 0] for bar in right))
    for part in (*result, *second, problem_bar.P, problem_bar.A, v_bar, *right_bar, *first, *bars):
        if part is not None:
            np.testing.assert_array_equal(part, 0.0)
