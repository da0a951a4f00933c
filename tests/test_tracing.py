# SPDX-License-Identifier: Apache-2.0
"""The call as array operations, with NumPy as the framework: the answers of `evaluation`."""

from __future__ import annotations

from collections.abc import Sequence

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer.cone_calls import ConeCalls
from cvxlayer.evaluation import Evaluation, Evaluator, build_evaluator
from cvxlayer.tracing import TracedCall, TracedProgram
from tests.catalog.dpp_problems import DPP_CASES, DppCase
from tests.catalog.geometric_programs import GEOMETRIC_PROGRAMS
from tests.catalog.numpy_ops import NumpyOps, NumpyPrimitives

# The solve is the same; what is left is the order of sums.
ROUNDING = 1e-12
CASES = [(case, False) for case in DPP_CASES] + [(case, True) for case in GEOMETRIC_PROGRAMS]
each = pytest.mark.parametrize(("case", "gp"), CASES, ids=str)


def evaluator_of(parts: tuple, *, gp: bool = False) -> Evaluator:
    return build_evaluator(*parts, gp=gp, on_failure="nan")


def both(evaluator: Evaluator, values: Sequence[np.ndarray]) -> tuple[TracedCall, Evaluation]:
    traced = TracedProgram.of(evaluator.program)
    primitives = NumpyPrimitives(ConeCalls(evaluator, evaluator.options.settings), traced.pattern)
    call = TracedCall.of(traced, NumpyOps(), primitives, values)
    return call, evaluator.evaluate(values, [0.0] * len(values))


def assert_equal(call: TracedCall, evaluation: Evaluation) -> None:
    for left, right in zip(call.outputs(), evaluation.read_outputs().arrays, strict=True):
        assert left.shape == right.shape
        np.testing.assert_allclose(left, right, rtol=ROUNDING, atol=ROUNDING)
    (value,) = evaluation.read_value().arrays
    np.testing.assert_allclose(call.value(), value, rtol=ROUNDING, atol=ROUNDING)


@each
def test_a_traced_batch_equals_the_evaluated_one(case: DppCase, gp: bool, rng) -> None:
    samples = [case.sample(rng) for _ in range(3)]
    values = [np.stack(parts) for parts in zip(*samples, strict=True)]
    assert_equal(*both(evaluator_of(case.build(), gp=gp), values))


@each
def test_traced_duals_equal_the_evaluated_ones(case: DppCase, gp: bool, rng) -> None:
    parts = case.build()
    evaluator = evaluator_of(parts, gp=gp)
    values = [np.asarray(value, dtype=float) for value in case.sample(rng)]
    call, evaluation = both(evaluator, values)
    recovery = evaluator.program.recovery
    for number, identity in enumerate(recovery.constraint_ids):
        places = recovery.dual_positions[identity]
        if places:
            expected = evaluation.read_dual(number).arrays
            for left, right in zip(call.duals(places), expected, strict=True):
                np.testing.assert_allclose(left, right, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize(
    "batches", [((), ()), ((3,), ()), ((), (3,)), ((2, 1), (3,)), ((1,), (4,)), ((0,), ())], ids=str
)
def test_batches_are_broadcast_as_in_a_plain_call(batches, rng) -> None:
    case = next(case for case in DPP_CASES if case.name == "norm ball")
    point, radius = case.sample(rng)
    values = [np.broadcast_to(point, (*batches[0], 4)), np.broadcast_to(radius, batches[1])]
    assert_equal(*both(evaluator_of(case.build()), values))


def test_complex_values_are_traced(rng) -> None:
    z, c = cp.Variable(3, complex=True), cp.Parameter(3, complex=True)
    A = cp.Parameter((2, 3), complex=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - c)), [A @ z == 1, cp.norm(z) <= 1.5])
    shapes = (2, 3), (4, 3)
    values = [rng.normal(size=shape) + 1j * rng.normal(size=shape) for shape in shapes]
    assert_equal(*both(evaluator_of((problem, [A, c], [z])), values))


def test_infinite_bounds_are_traced(rng) -> None:
    x, point, upper = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [x <= upper])
    values = [rng.normal(size=(2, 3)), np.array([0.1, np.inf, -0.2])]
    assert_equal(*both(evaluator_of((problem, [point, upper], [x])), values))


@pytest.mark.parametrize("sense", [cp.Minimize, cp.Maximize])
def test_failed_rows_have_the_values_of_a_plain_call(sense) -> None:
    x, c = cp.Variable(2), cp.Parameter(2)
    low, high = cp.Parameter(), cp.Parameter()
    problem = cp.Problem(sense(c @ x), [low <= x, x[0] <= high, cp.sum(x[1:]) <= 5 + high])
    sign = 1.0 if sense is cp.Minimize else -1.0
    costs = sign * np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 2.0]])
    values = [costs, np.array([0.0, 2.0, 0.0]), np.array([1.0, 0.0, 1.0])]
    call, evaluation = both(evaluator_of((problem, [c, low, high], [x])), values)
    assert evaluation.solution.failed is not None
    assert_equal(call, evaluation)


def test_failed_rows_of_geometric_programs_have_the_values_of_a_plain_call() -> None:
    x, low = cp.Variable(pos=True), cp.Parameter(pos=True)
    problem = cp.Problem(cp.Minimize(x), [x >= low, x <= 1])
    call, evaluation = both(evaluator_of((problem, [low], [x]), gp=True), [np.array([0.5, 2.0])])
    assert evaluation.solution.failed is not None
    assert_equal(call, evaluation)
