# SPDX-License-Identifier: Apache-2.0
"""The short way through the core gives what the long one gives, or leaves it to that."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import Layer
from cvxlayer.errors import DerivativeWarning, ParameterValueError, ShapeError, Status
from cvxlayer.evaluation import Evaluation, Evaluator
from cvxlayer.plain_call import PlainCall, evaluate_plainly
from tests.catalog.dpp_problems import DPP_CASES
from tests.catalog.problems import PROBLEMS, case_named
from tests.catalog.smooth_layers import SMOOTH_LAYERS

EPSILON = float(np.finfo(float).eps)
CASES = (*PROBLEMS, *SMOOTH_LAYERS, *DPP_CASES)


def evaluator_of(*parts: Any, **options: Any) -> Evaluator:
    return Layer(*parts, **options)._evaluator


def both_ways(evaluator: Evaluator, values: Any, **options: Any) -> tuple[Any, Any]:
    epsilons = [EPSILON] * len(values)
    arrays = [np.asarray(value) for value in values]
    return (
        evaluate_plainly(evaluator, arrays, epsilons, **options),
        evaluator.evaluate(arrays, epsilons, **options),
    )


def check_equal(short: Any, long: Any, rng: np.random.Generator) -> None:
    outputs, expected = short.read_outputs(), long.read_outputs()
    for array, other in zip(outputs.arrays, expected.arrays, strict=True):
        assert array.shape == other.shape
        np.testing.assert_allclose(array, other, rtol=1e-14, atol=1e-14)
    bars = [rng.normal(size=array.shape) for array in outputs.arrays]
    needs = [True] * len(long.inputs.input_batch_shapes)
    found, wanted = outputs.pull_back(bars, needs), expected.pull_back(bars, needs)
    for bar, other in zip(found, wanted, strict=True):
        assert bar is not None
        assert other is not None
        assert bar.shape == other.shape
        np.testing.assert_allclose(bar, other, rtol=1e-11, atol=1e-12 * (1 + abs(other).max()))


@pytest.mark.filterwarnings("ignore::cvxlayer.errors.DerivativeWarning")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_ways_agree(case, rng):
    options = case.options() if hasattr(case, "options") else {}
    evaluator = evaluator_of(*case.build(), **options)
    rows = [case.sample(rng) for _ in range(6)]
    columns = list(zip(*rows, strict=True))
    is_short = evaluator.program.is_real
    # A single one; a batch; a batch of which the first value is shared; two dimensions.
    for values in (
        [column[0] for column in columns],
        [np.stack(column) for column in columns],
        [columns[0][0], *(np.stack(column) for column in columns[1:])],
        [np.stack(column).reshape(2, 3, *np.shape(column[0])) for column in columns],
    ):
        short, long = both_ways(evaluator, values)
        is_first_pass = long.is_solved and not long.cone.solved_by.any()
        assert isinstance(short, PlainCall if is_short and is_first_pass else Evaluation)
        check_equal(short, long, rng)


def test_the_short_way_is_taken_and_only_where_it_leads():
    x, p = cp.Variable(2), cp.Parameter(2, name="p")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0])
    values = [np.ones((4, 2))]
    plain = evaluator_of(problem, [p], [x])
    assert isinstance(both_ways(plain, values)[0], PlainCall)
    assert isinstance(both_ways(plain, [np.ones((0, 2))])[0], Evaluation)
    start = Layer(problem, [p], [x]).solve(*values)
    assert isinstance(both_ways(plain, values, warm_start=start)[0], Evaluation)
    for options in ({"solver": "clarabel"}, {"derivative": "least_squares"}, {"verbose": True}):
        evaluator = evaluator_of(problem, [p], [x], **options)
        assert isinstance(both_ways(evaluator, values)[0], Evaluation)
    loose = both_ways(plain, values, solver_args={"max_iters": 50, "eps": 1e-3, "polish": False})
    assert isinstance(loose[0], PlainCall)
    check_equal(*loose, np.random.default_rng(0))


def test_a_factor_that_is_an_exponent_too_takes_the_short_way(rng):
    x = cp.Variable(2, pos=True)
    a, b = cp.Parameter(pos=True, name="a"), cp.Parameter(2, pos=True, name="b")
    problem = cp.Problem(
        cp.Minimize(x[0] ** a + a * x[1]), [b[0] / x[0] + b[1] / x[1] <= 1, x[0] * x[1] ** a >= a]
    )
    evaluator = evaluator_of(problem, [a, b], [x], gp=True)
    for batch in ((), (5,)):
        values = [rng.uniform(1.0, 2.0, batch), rng.uniform(0.5, 1.5, (*batch, 2))]
        short, long = both_ways(evaluator, values)
        assert isinstance(short, PlainCall)
        check_equal(short, long, rng)


def test_broadcasting_beyond_one_shape_takes_the_long_way(rng):
    case = case_named("box")
    values = case.sample(rng)
    evaluator = evaluator_of(*case.build())
    stretched = [np.stack([values[0]] * 3), np.stack([np.stack([values[1]])] * 2), *values[2:]]
    short, long = both_ways(evaluator, stretched)
    assert short.read_outputs().arrays[0].shape[:2] == (2, 3)
    check_equal(short, long, rng)


def test_failed_rows_are_finished_and_do_not_spoil_the_others(rng):
    x, low, high = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= low, x <= high])
    evaluator = evaluator_of(problem, [low, high], [x], on_failure="nan")
    lows = rng.normal(size=(5, 3))
    highs = lows + 1.0
    highs[2] -= 3.0
    short, long = both_ways(evaluator, [lows, highs])
    assert isinstance(short, Evaluation)
    assert list(short.cone.status == Status.INFEASIBLE) == [False, False, True, False, False]
    np.testing.assert_array_equal(short.cone.status, long.cone.status)
    np.testing.assert_array_equal(*(each.read_outputs().arrays[0] for each in (short, long)))
    bars = [np.ones((5, 3))]
    for bar, other in zip(
        *(each.read_outputs().pull_back(bars, [True, True]) for each in (short, long)), strict=True
    ):
        np.testing.assert_allclose(bar, other, rtol=1e-12)
        assert not bar[2].any()


def test_rows_that_need_another_pass_get_it():
    # Twelve iterations are too few for the first pass and, being the user's limit, final.
    case = case_named("portfolio")
    values = case.sample_batch(np.random.default_rng(3), 4)
    evaluator = evaluator_of(*case.build(), on_failure="nan", solver_args={"max_iters": 2})
    short, long = both_ways(evaluator, values)
    assert (long.cone.status == Status.MAX_ITERATIONS).all()
    np.testing.assert_array_equal(short.cone.status, long.cone.status)
    np.testing.assert_array_equal(short.cone.solved_by, long.cone.solved_by)


@pytest.mark.parametrize("shared", [None, 1])
def test_cotangents_of_a_batch_too_large_for_one_piece(shared, rng):
    # 40 × 40 numbers of G and 820 of P: sixteen rows at a time, and a last piece of three.
    n, batch = 40, 35
    x, q = cp.Variable(n), cp.Parameter(n)
    P, G = cp.Parameter((n, n), PSD=True), cp.Parameter((n, n))
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x), [G @ x <= 1])
    evaluator = evaluator_of(problem, [P, q, G], [x])
    roots = rng.normal(size=(batch, n, n))
    values = [roots @ np.swapaxes(roots, 1, 2) + np.eye(n), rng.normal(size=(batch, n)), roots]
    if shared is not None:
        values[shared] = values[shared][0]
    short, long = both_ways(evaluator, values)
    assert isinstance(short, PlainCall)
    check_equal(short, long, rng)
    bars = [rng.normal(size=(batch, n))]
    one, two = (
        both_ways(evaluator, values, solver_args={"threads": threads})[0].pull_back_outputs(
            bars, [True] * 3
        )
        for threads in (1, 2)
    )
    for bar, other in zip(one, two, strict=True):
        np.testing.assert_array_equal(bar, other)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_call_twice_gives_the_same_bits(threads, rng):
    case = case_named("portfolio")
    evaluator, values = evaluator_of(*case.build()), case.sample_batch(rng, 70)
    results = []
    for _ in range(2):
        call = evaluate_plainly(
            evaluator, values, [EPSILON] * len(values), solver_args={"threads": threads}
        )
        assert isinstance(call, PlainCall)
        outputs = call.read_outputs()
        bars = [np.ones_like(array) for array in outputs.arrays]
        results.append((*outputs.arrays, *outputs.pull_back(bars, [True] * len(values))))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_cotangents_may_be_views_or_missing(rng):
    x, y, p = cp.Variable(3), cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p) + cp.sum_squares(y + p)), [x >= 0])
    call, _ = both_ways(evaluator_of(problem, [p], [x, y]), [rng.normal(size=(4, 3))])
    pull_back = call.read_outputs().pull_back
    weights = rng.normal(size=(3, 4))
    np.testing.assert_array_equal(
        pull_back([None, weights.T], [True])[0], pull_back([None, weights.T.copy()], [True])[0]
    )
    np.testing.assert_allclose(pull_back([None, weights.T], [True])[0], -weights.T, atol=1e-12)
    assert list(pull_back([None, weights.T], [False])) == [None]
    assert not pull_back([None, None], [True])[0].any()


def test_bad_values_get_the_words_of_the_long_way():
    x, p = cp.Variable(2), cp.Parameter(2, name="p", nonneg=True)
    evaluator = evaluator_of(cp.Problem(cp.Minimize(cp.sum_squares(x - p))), [p], [x])
    for values, error, words in (
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), ParameterValueError, "batch index 1 contains NaN"),
        (np.array([[1.0, np.inf]]), ParameterValueError, "contains an infinite entry"),
        (np.array([[1.0, 1.0], [1.0, -1.0]]), ParameterValueError, "batch index 1 is outside"),
        (np.ones((2, 3)), ShapeError, r"has shape \(2, 3\)"),
        (np.ones(()), ShapeError, r"has shape \(\)"),
    ):
        with pytest.raises(error, match=words):
            evaluate_plainly(evaluator, [values], [EPSILON])


def test_infinite_bounds_take_the_long_way(rng):
    x, high = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [x <= high])
    short, long = both_ways(evaluator_of(problem, [high], [x]), [np.array([[0.5, np.inf]])])
    np.testing.assert_allclose(short.read_outputs().arrays[0], [[0.5, 1.0]], atol=1e-9)
    check_equal(short, long, rng)


def test_a_derivative_that_is_not_unique_warns():
    x, c = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1])
    call, _ = both_ways(evaluator_of(problem, [c], [x]), [np.ones((3, 2))])
    assert isinstance(call, PlainCall)
    with pytest.warns(DerivativeWarning, match="3 of 3 rows") as caught:
        call.read_outputs().pull_back([np.tile([1.0, 2.0], (3, 1))], [True])
    report = caught[0].message.report
    call.inputs[0][:] = np.nan  # it has its own
    assert not report.exists.any()
