# SPDX-License-Identifier: Apache-2.0
"""Calls that the core makes from tensors to tensors, against those by way of NumPy."""

from __future__ import annotations

import pickle
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cvxlayer.errors import (  # noqa: E402
    DerivativeWarning,
    ParameterValueError,
    SolverError,
    Status,
)
from cvxlayer.program.inspection import find_bits  # noqa: E402
from cvxlayer.torch import Layer, tensor_calls  # noqa: E402
from tests.catalog.dpp_problems import DPP_CASES  # noqa: E402
from tests.catalog.problems import PROBLEMS, case_named  # noqa: E402
from tests.catalog.smooth_layers import SMOOTH_LAYERS  # noqa: E402

pytestmark = pytest.mark.skipif(
    not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"),
    reason="this PyTorch has no exchange of tensors in C",
)

CASES = (*PROBLEMS, *SMOOTH_LAYERS, *DPP_CASES)
DOUBLE, SINGLE = torch.float64, torch.float32


def two_layers(*parts: Any, **options: Any) -> tuple[Layer, Layer]:
    """Return a layer, and one that goes by way of NumPy."""
    first, second = Layer(*parts, **options), Layer(*parts, **options)
    second._evaluator.kept["torch"] = None
    return first, second


def is_short(layer: Layer, values: Any, **solver_args: Any) -> bool:
    return tensor_calls.call(layer._evaluator, list(values), solver_args) is not None


def projection(**options: Any) -> tuple[Layer, Layer]:
    """x and a scaled y, on the nonnegative side of p."""
    x, y, p = cp.Variable(3), cp.Variable(3), cp.Parameter(3, name="p", **options)
    objective = cp.sum_squares(x - p) + cp.sum_squares(y + p)
    return two_layers(cp.Problem(cp.Minimize(objective), [x >= 0]), [p], [x, y])


def check_equal(short: Layer, long: Layer, values: Any, rng: np.random.Generator) -> None:
    inputs = [[value.clone().requires_grad_() for value in values] for _ in range(2)]
    results = [layer(*leaves) for layer, leaves in zip((short, long), inputs, strict=True)]
    bars = [torch.tensor(rng.normal(size=result.shape)).to(result.dtype) for result in results[0]]
    gradients = []
    for result, leaves in zip(results, inputs, strict=True):
        gradients.append(torch.autograd.grad(result, leaves, bars, materialize_grads=True))
    for first, second in ((results[0], results[1]), gradients):
        for one, other in zip(first, second, strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore::cvxlayer.errors.DerivativeWarning")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_ways_give_the_same_bits(case, rng):
    options = case.options() if hasattr(case, "options") else {}
    short, long = two_layers(*case.build(), **options)
    rows = [case.sample(rng) for _ in range(6)]
    columns = list(zip(*rows, strict=True))
    evaluator = short._evaluator
    is_known = all(find_bits(rule.spec.domain) is not None for rule in evaluator.rules)
    is_plain = evaluator.program.is_real and evaluator.program.is_linear and is_known
    for values in (
        [column[0] for column in columns],
        [np.stack(column) for column in columns],
        [columns[0][0], *(np.stack(column) for column in columns[1:])],
        [np.stack(column).reshape(2, 3, *np.shape(column[0])) for column in columns],
    ):
        tensors = [torch.tensor(value).contiguous() for value in values]
        assert is_short(short, tensors) == is_plain
        check_equal(short, long, tensors, rng)


def test_single_and_mixed_precision(rng):
    case = case_named("box")
    short, long = two_layers(*case.build())
    values = [torch.tensor(value) for value in case.sample_batch(rng, 5)]
    for types in ((SINGLE, SINGLE), (SINGLE, DOUBLE), (DOUBLE, SINGLE)):
        tensors = [value.to(types[k % 2]) for k, value in enumerate(values)]
        assert is_short(short, tensors)
        check_equal(short, long, tensors, rng)
    assert not is_short(short, [value.to(torch.float16) for value in values])


def test_large_single_precision_values_on_two_threads(rng):
    n, batch = 40, 64
    x, q, G = cp.Variable(n), cp.Parameter(n), cp.Parameter((n, n))
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + q @ x), [G @ x <= 1])
    short, long = two_layers(problem, [q, G], [x], solver_args={"threads": 2})
    sizes = ((batch, n), (batch, n, n))
    values = [torch.tensor(rng.normal(size=size)).to(SINGLE) for size in sizes]
    check_equal(short, long, values, rng)


def large_quadratics(rng: np.random.Generator) -> tuple[Layer, Layer, list[Any]]:
    """Dense programs whose gradients take more than a megabyte each."""
    n, batch = 16, 600
    x, q = cp.Variable(n), cp.Parameter(n)
    root, G = cp.Parameter((n, n)), cp.Parameter((n, n))
    objective = cp.Minimize(cp.sum_squares(x) + cp.sum_squares(root @ x) + q @ x)
    layers = two_layers(cp.Problem(objective, [G @ x <= 1]), [root, q, G], [x])
    shapes = ((batch, n, n), (batch, n), (batch, n, n))
    return *layers, [torch.tensor(rng.normal(size=shape)) for shape in shapes]


def test_memory_of_large_gradients_is_used_again_only_when_they_are_gone(rng):
    short, long, values = large_quadratics(rng)
    for each in values:
        each.requires_grad_()

    def gradients(layer: Layer, weight: float) -> tuple[Any, ...]:
        return torch.autograd.grad(weight * layer(*values)[0].pow(2).sum(), values)

    wanted = {weight: gradients(long, weight) for weight in (1.0, -2.0)}
    first, second = gradients(short, 1.0), gradients(short, -2.0)
    places = {each.data_ptr() for each in first}
    for found, weight in ((first, 1.0), (second, -2.0)):
        for mine, other in zip(found, wanted[weight], strict=True):
            assert torch.equal(mine, other)
    kept = first[0]
    del first, found, mine
    others = [torch.empty_like(each) for each in values for _ in range(3)]
    third = gradients(short, 1.0)
    del others
    assert kept.data_ptr() not in {each.data_ptr() for each in third}
    assert places & {each.data_ptr() for each in third}
    for mine, other in zip((kept, *third), (wanted[1.0][0], *wanted[1.0]), strict=True):
        assert torch.equal(mine, other)


def test_large_gradients_are_tensors_like_others(rng):
    short, long, values = large_quadratics(rng)
    leaves = [[each.clone().requires_grad_() for each in values] for _ in range(2)]
    for layer, inputs in zip((short, long), leaves, strict=True):
        for _ in range(2):  # the second backward adds to what the first one left
            layer(*inputs)[0].pow(2).sum().backward()
        torch.optim.SGD(inputs, lr=0.1).step()
    for mine, other in zip(*leaves, strict=True):
        assert torch.equal(mine.grad, other.grad)
        assert torch.equal(mine, other)
    copied = pickle.loads(pickle.dumps(leaves[0][0].grad.clone()))
    assert torch.equal(copied, leaves[1][0].grad)


def test_what_is_not_plain_goes_the_other_way(rng):
    class Tagged(torch.Tensor):
        pass

    short, long = projection()
    value = torch.tensor(rng.normal(size=(4, 3)))
    gaps = torch.tensor(rng.normal(size=(3, 4))).T
    negative = torch._neg_view(value)
    assert is_short(short, [value])
    assert is_short(short, [torch.nn.Parameter(value)])
    for other in (
        gaps,
        negative,
        value.as_subclass(Tagged),
        value.to(torch.int64),
        value.to("meta"),
        value.to_sparse(),
        value[:0],
        value[:, :2],
        value[0, 0],
        torch.full((4, 3), torch.nan),
        3.0,
        None,
    ):
        assert not is_short(short, [other])
    for other in (gaps, negative):
        check_equal(short, long, [other], rng)
    assert torch.equal(short(negative)[1], short(-value)[1])
    assert not is_short(short, [value], verbose=True)
    assert not is_short(projection(integer=True)[0], [value.round()])


def test_values_in_their_domains_go_the_short_way(rng):
    short, long = projection(nonneg=True)
    value = torch.tensor(rng.uniform(size=(4, 3)))
    for shift, dtype, is_inside in (
        (0.0, DOUBLE, True),
        (5e-11, DOUBLE, True),
        (1e-7, SINGLE, True),
        (1e-7, DOUBLE, False),
    ):
        changed = value.clone()
        changed[2, 1] = -shift
        changed = changed.to(dtype)
        assert is_short(short, [changed]) == is_inside
        if is_inside:
            check_equal(short, long, [changed], rng)
            continue
        for layer in (short, long):
            with pytest.raises(ParameterValueError, match=r"at batch index 2 .* nonnegative"):
                layer(changed)


def test_semidefinite_matrices_that_are_singular_go_the_short_way(rng):
    x, P, q = cp.Variable(4), cp.Parameter((4, 4), PSD=True), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, P) + q @ x), [cp.norm_inf(x) <= 1])
    short, long = two_layers(problem, [P, q], [x])
    root = rng.normal(size=(5, 4, 2))
    matrices = root @ root.swapaxes(1, 2)
    values = [torch.tensor(value) for value in (matrices, rng.normal(size=(5, 4)))]
    assert is_short(short, values)
    check_equal(short, long, values, rng)
    values[0][3] -= 0.01 * torch.eye(4)
    assert not is_short(short, values)
    with pytest.raises(ParameterValueError, match="positive semidefinite"):
        short(*values)


def test_batch_dimensions_that_differ_go_the_other_way(rng):
    case = case_named("box")
    short, long = two_layers(*case.build())
    values = [torch.tensor(value) for value in case.sample_batch(rng, 3)]
    stretched = [values[0], *(value[:1] for value in values[1:])]
    assert not is_short(short, stretched)
    check_equal(short, long, stretched, rng)


def test_cotangents_may_have_gaps_be_negated_or_be_missing(rng):
    short, long = projection()
    value = torch.tensor(rng.normal(size=(4, 3)), requires_grad=True)
    weights = torch.tensor(rng.normal(size=(3, 4))).T
    for make in (
        lambda x, y: x.sum(),
        lambda x, y: (y * 2.0).sum(),
        lambda x, y: (y.T @ weights).trace(),
        lambda x, y: torch._neg_view(x).sum() + y.mT.contiguous()[0].sum(),
    ):
        found, wanted = (
            torch.autograd.grad(make(*layer(value)), value)[0] for layer in (short, long)
        )
        assert torch.equal(found, wanted)
    bar = torch._neg_view(weights.contiguous())
    found, wanted = (torch.autograd.grad(layer(value)[1], value, bar)[0] for layer in (short, long))
    assert torch.equal(found, wanted)
    torch.testing.assert_close(found, weights)


def test_results_of_calls_without_gradients_have_none(rng):
    short, _ = projection()
    value = torch.tensor(rng.normal(size=(4, 3)), requires_grad=True)
    assert all(output.requires_grad for output in short(value))
    with torch.no_grad():
        assert not any(output.requires_grad for output in short(value))
    with torch.inference_mode():
        assert all(output.is_inference() for output in short(value))
    assert not any(output.requires_grad for output in short(value.detach()))


def test_a_value_that_changes_after_the_call_is_refused(rng):
    short, _ = projection()
    leaf = torch.tensor(rng.normal(size=(4, 3)), requires_grad=True)
    value = leaf * 1.0
    output = short(value)[0]
    value.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_failed_rows_are_finished_and_named(rng):
    x, low, high = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= low, x <= high])
    lows = torch.tensor(rng.normal(size=(5, 3)))
    highs = lows + 1.0
    highs[2] -= 3.0
    check_equal_but_nan(*two_layers(problem, [low, high], [x], on_failure="nan"), [lows, highs])
    with pytest.raises(SolverError) as caught:
        Layer(problem, [low, high], [x])(lows, highs)
    assert caught.value.indices == [2]
    assert caught.value.statuses == [Status.INFEASIBLE]


def check_equal_but_nan(short: Layer, long: Layer, values: Any) -> None:
    leaves = [value.clone().requires_grad_() for value in values]
    pairs = []
    for layer in (short, long):
        (output,) = layer(*leaves)
        pairs.append((output.detach(), torch.autograd.grad(output.nansum(), leaves)))
    torch.testing.assert_close(pairs[0], pairs[1], rtol=1e-12, atol=1e-14, equal_nan=True)
    assert pairs[0][0][2].isnan().all()
    assert not any(gradient[2].any() for gradient in pairs[0][1])


def test_values_that_are_not_finite_are_named():
    short, _ = projection()
    value = torch.ones(2, 3, dtype=DOUBLE)
    value[1, 2] = torch.nan
    with pytest.raises(ParameterValueError, match=r"`p`.*batch index 1 contains NaN"):
        short(value)


def test_a_derivative_that_is_not_unique_warns_with_its_report():
    x, c = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1])
    value = torch.ones(3, 2, dtype=DOUBLE, requires_grad=True)
    (output,) = Layer(problem, [c], [x])(value)
    with pytest.warns(DerivativeWarning, match="3 of 3 rows") as caught:
        output.backward(torch.tensor([[1.0, 2.0]] * 3, dtype=DOUBLE))
    with torch.no_grad():
        value.fill_(torch.nan)  # the report has its own
    assert not caught[0].message.report.exists.any()


def test_what_was_made_for_tensors_does_not_travel(rng):
    short, _ = projection()
    value = torch.tensor(rng.normal(size=(4, 3)))
    expected = short(value)
    copy = pickle.loads(pickle.dumps(short))
    assert not copy._evaluator.__dict__.keys() & {"kept", "is_all_in_core"}
    assert all(torch.equal(*pair) for pair in zip(copy(value), expected, strict=True))


def test_older_releases_have_no_exchange(rng, monkeypatch):
    monkeypatch.delattr(torch.Tensor, "__dlpack_c_exchange_api__")
    short, _ = projection()
    value = torch.tensor(rng.normal(size=(4, 3)))
    assert not is_short(short, [value])
    assert short(value)[0].shape == (4, 3)
