# SPDX-License-Identifier: Apache-2.0
"""Binding, checking and broadcasting of values, before any solver is involved."""

from __future__ import annotations

import math

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxlayer.errors import ParameterValueError, ShapeError
from cvxlayer.inputs import InputRule, batch_inputs, bind_values
from cvxlayer.program.parameters import ParameterDomain, ParameterSpec

EPSILON = float(np.finfo(np.float64).eps)


def rule(name: str, *shape: int, infinite_side: int = 0, **domain: object) -> InputRule:
    spec = ParameterSpec(name, shape, ParameterDomain(**domain))
    return InputRule.of(spec, np.full(spec.size, infinite_side))


def batch(rules: list[InputRule], *arrays: np.ndarray, epsilon: float = EPSILON):
    return batch_inputs(tuple(rules), arrays, [epsilon] * len(arrays))


A_AND_B = [rule("A", 2, 3), rule("b", 2)]


# --- binding -----------------------------------------------------------------------------


def test_values_bind_by_position_and_by_name():
    rules = [rule("A"), rule("b"), rule("c")]
    assert bind_values(rules, (1, 2, 3), {}) == [1, 2, 3]
    assert bind_values(rules, (1,), {"c": 3, "b": 2}) == [1, 2, 3]
    assert bind_values(rules, (), {"c": 3, "b": 2, "A": 1}) == [1, 2, 3]
    assert bind_values([], (), {}) == []


@pytest.mark.parametrize(
    ("positional", "named", "message"),
    [
        ((1, 2, 3), {}, r"called with 3 values; it has 2 parameter\(s\): `A`, `b`"),
        ((1,), {}, r"No value was given for `b`"),
        ((), {}, r"No value was given for `A`, `b`"),
        ((1, 2), {"b": 2}, r"`b` was given twice"),
        ((1,), {"B": 2}, r"`B` is neither a parameter.*Did you mean `b`\?|Valid names"),
        ((1, 2), {"solver_arg": {}}, r"Did you mean `solver_args`\?"),
        ((1, 2), {"warmstart": None}, r"Did you mean `warm_start`\?"),
    ],
)
def test_values_that_do_not_bind_are_refused(positional, named, message):
    with pytest.raises(ParameterValueError, match=message):
        bind_values(A_AND_B, positional, named)


def test_a_name_shared_by_two_parameters_cannot_be_used():
    with pytest.raises(ParameterValueError, match="More than one parameter is named `A`"):
        bind_values([rule("A"), rule("A")], (), {"A": 1})


# --- broadcasting ------------------------------------------------------------------------


def test_values_without_a_batch_stay_one_row():
    inputs = batch(A_AND_B, np.zeros((2, 3)), np.zeros((7, 2)))
    assert [value.shape for value in inputs.values] == [(1, 6), (7, 2)]
    assert inputs.batch_shape == (7,)
    assert inputs.size == 7


def test_rows_are_flattened_in_c_order():
    A = np.arange(12.0).reshape(2, 2, 3)
    np.testing.assert_array_equal(
        batch(A_AND_B, A, np.zeros(2)).values[0], np.arange(12.0).reshape(2, 6)
    )
    fortran = np.asfortranarray(A)
    np.testing.assert_array_equal(
        batch(A_AND_B, fortran, np.zeros(2)).values[0], np.arange(12.0).reshape(2, 6)
    )


@st.composite
def broadcastable(draw):
    """Draw a batch shape and two shapes that broadcast to it."""
    full = draw(st.lists(st.integers(0, 3), max_size=3))

    def part() -> tuple[int, ...]:
        kept = full[draw(st.integers(0, len(full))) :]
        return tuple(draw(st.sampled_from([1, length])) for length in kept)

    return part(), part()


@given(shapes=broadcastable(), seed=st.integers(0, 2**32 - 1))
def test_broadcasting_and_summing_back_are_adjoint(shapes, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(*shapes[0], 2, 3)), rng.normal(size=(*shapes[1], 2))]
    inputs = batch(A_AND_B, *arrays)
    full = np.broadcast_shapes(*shapes)
    assert inputs.batch_shape == full
    for index, array in enumerate(arrays):
        trailing = A_AND_B[index].spec.shape
        spread = np.broadcast_to(array, full + trailing)
        spread = spread.reshape(inputs.size, math.prod(trailing))
        value = inputs.values[index]
        np.testing.assert_array_equal(np.broadcast_to(value, spread.shape), spread)
        cotangent = rng.normal(size=value.shape)
        summed = inputs.sum_to_input(index, cotangent)
        assert summed.shape == array.shape
        np.testing.assert_allclose((summed * array).sum(), (cotangent * value).sum(), atol=1e-10)


def test_batch_dimensions_that_do_not_broadcast_are_named():
    with pytest.raises(ShapeError, match=r"cannot be broadcast: `A`: \(4,\), `b`: \(3,\)"):
        batch(A_AND_B, np.zeros((4, 2, 3)), np.zeros((3, 2)))


@pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 2, 2), ()])
def test_a_wrong_shape_names_the_parameter_and_what_was_expected(shape):
    with pytest.raises(ShapeError, match=r"`A` has shape .*; the parameter has shape \(2, 3\)"):
        batch(A_AND_B, np.zeros(shape), np.zeros(2))


# --- values ------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1, 5])
def test_nan_is_refused_with_its_batch_index(position):
    b = np.zeros((2, 3, 2))
    b.reshape(6, 2)[position, 1] = np.nan
    index = tuple(int(i) for i in np.unravel_index(position, (2, 3)))
    with pytest.raises(ParameterValueError) as caught:
        batch(A_AND_B, np.zeros((2, 3)), b)
    assert f"`b` at batch index {index} contains NaN" in str(caught.value)


@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
def test_infinity_is_refused_where_it_is_not_a_bound(infinity):
    with pytest.raises(ParameterValueError, match=r"`b` contains an infinite entry"):
        batch(A_AND_B, np.zeros((2, 3)), np.array([0.0, infinity]))


@pytest.mark.parametrize("side", [1, -1])
def test_infinity_is_accepted_on_its_side_only_and_nan_never(side):
    bound = [rule("bound", 2, infinite_side=side)]
    assert np.isinf(batch(bound, np.array([side * np.inf, 1.0])).values[0]).any()
    with pytest.raises(ParameterValueError, match="on the side where it removes the bound"):
        batch(bound, np.array([-side * np.inf, 1.0]))
    with pytest.raises(ParameterValueError, match="contains NaN"):
        batch(bound, np.array([np.inf, np.nan]))


def test_values_near_overflow_are_not_taken_for_infinite():
    value = np.full(2, 1e300)
    np.testing.assert_array_equal(batch([rule("b", 2)], value).values[0], value[None])


@pytest.mark.parametrize(
    ("domain", "good", "bad", "words"),
    [
        ({"is_nonneg": True}, [0.0, 2.0], [0.0, -1e-3], "nonnegative"),
        ({"is_nonpos": True}, [0.0, -2.0], [0.0, 1e-3], "nonpositive"),
        ({"is_pos": True}, [1e-9, 2.0], [0.0, 1.0], "positive"),
        ({"is_neg": True}, [-1e-9, -2.0], [0.0, -1.0], "negative"),
        ({"is_boolean": True}, [0.0, 1.0], [0.5, 1.0], "0 or 1"),
        ({"is_integer": True}, [-3.0, 7.0], [0.5, 1.0], "integer"),
        ({"lower": np.array(-1.0)}, [-1.0, 5.0], [-1.1, 0.0], r"\[-1.0, inf\]"),
        ({"upper": np.array([1.0, 2.0])}, [1.0, 2.0], [1.5, 1.5], r"\[-inf, …\]"),
        ({"sparsity": np.array([True, False])}, [3.0, 0.0], [3.0, 1e-12], "sparsity"),
    ],
)
def test_a_value_outside_its_declared_domain_is_refused(domain, good, bad, words):
    rules = [rule("v", 2, **domain)]
    batch(rules, np.array(good))
    with pytest.raises(ParameterValueError, match=f"`v` at batch index 1 is outside.*{words}"):
        batch(rules, np.array([good, bad]))


@pytest.mark.parametrize(
    ("domain", "good", "bad", "words"),
    [
        ({"is_symmetric": True}, [[1, 2], [2, 3]], [[1, 2], [2.01, 3]], "symmetric"),
        ({"is_diag": True}, [[1, 0], [0, 3]], [[1, 0.01], [0, 3]], "diagonal"),
        ({"is_psd": True, "is_symmetric": True}, [[1, 1], [1, 1]], [[1, 2], [2, 1]], "positive s"),
        ({"is_psd": True, "is_symmetric": True}, [[1, 1], [1, 1]], [[1, 2], [0, 1]], "symmetric"),
        ({"is_nsd": True, "is_symmetric": True}, [[-1, 0], [0, 0]], [[1, 0], [0, 1]], "negative s"),
    ],
)
def test_a_matrix_outside_its_declared_domain_is_refused(domain, good, bad, words):
    rules = [rule("M", 2, 2, **domain)]
    batch(rules, np.array(good, dtype=float))
    with pytest.raises(ParameterValueError, match=f"`M` at batch index 1 is outside.*{words}"):
        batch(rules, np.array([good, bad], dtype=float))


def test_rounding_of_the_dtype_is_within_the_domain(rng):
    factor = rng.normal(size=(5, 40, 3)).astype(np.float32)
    gram = factor @ factor.swapaxes(-1, -2)
    rules = [rule("M", 40, 40, is_psd=True, is_symmetric=True)]
    batch(rules, gram.astype(float), epsilon=float(np.finfo(np.float32).eps))
    with pytest.raises(ParameterValueError, match="outside its declared domain"):
        batch(rules, gram.astype(float) - 1e-3 * np.eye(40), epsilon=EPSILON)


def test_the_domains_of_cvxpy_parameters_are_known():
    from cvxlayer import compile as compile_problem

    x = cp.Variable(2)
    p, M = cp.Parameter(2, nonneg=True, name="p"), cp.Parameter((2, 2), PSD=True, name="M")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p) + cp.trace(M) * cp.sum(x)))
    specs = compile_problem(problem, [p, M], [x]).parameters
    assert specs[0].domain.is_nonneg
    assert specs[1].domain.is_psd
    assert specs[1].domain.is_symmetric
