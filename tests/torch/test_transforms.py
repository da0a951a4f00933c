# SPDX-License-Identifier: Apache-2.0
"""`torch.func`, forward mode, `gradcheck` in all its modes and `torch.autograd.functional`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad, functional, gradcheck, gradgradcheck  # noqa: E402
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap  # noqa: E402

import cvxlayer  # noqa: E402
from cvxlayer.errors import (  # noqa: E402
    OptionError,
    ParameterValueError,
    ShapeError,
    SolverError,
    UnsupportedDerivativeError,
)
from cvxlayer.torch import Layer  # noqa: E402
from tests.catalog.smooth_layers import SMOOTH_LAYERS, SmoothCase, smooth_layer  # noqa: E402

# Two ways to the same number, whose linear systems are solved to rounding.
EQUAL = 1e-9
# Central differences of answers that are right to rounding.
STEP = 1e-4
DIFFERENCES = {"eps": STEP, "atol": 1e-5, "rtol": 1e-4}

each = pytest.mark.parametrize("case", SMOOTH_LAYERS, ids=str)
real = pytest.mark.parametrize(
    "case", [case for case in SMOOTH_LAYERS if case.name != "complex"], ids=str
)
few = pytest.mark.parametrize(
    "case", [smooth_layer(name) for name in ("quadratic", "second-order")], ids=str
)


@functools.cache
def program_of(case: SmoothCase) -> cvxlayer.CompiledProgram:
    """Return the problem of a case, compiled once for all tests."""
    return cvxlayer.compile(*case.build(), gp=case.gp)


def build(case: SmoothCase, **options: object) -> Layer:
    return Layer(program_of(case), **case.options(), **options)


def tensors(values: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(value)) for value in values]


def leaves(values: list[np.ndarray]) -> list[torch.Tensor]:
    return [value.requires_grad_() for value in tensors(values)]


def flat(outputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    parts = [torch.view_as_real(o) if o.is_complex() else o for o in outputs]
    return torch.cat([part.reshape(-1) for part in parts])


def outputs_of(layer: Callable) -> Callable[..., torch.Tensor]:
    return lambda *values: flat(layer(*values))


def loss_of(layer: Callable) -> Callable[..., torch.Tensor]:
    """Return a scalar with second derivatives of its own."""
    return lambda *values: ((flat(layer(*values)) + 0.5) ** 3).sum()


def assert_close(found: object, expected: object, tolerance: float = EQUAL) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


# --- first derivatives -------------------------------------------------------------------


@each
def test_grad_equals_backward(case, rng):
    values = case.sample(rng)
    inputs, loss = leaves(values), loss_of(build(case))
    expected = torch.autograd.grad(loss(*inputs), inputs)
    assert_close(grad(loss, tuple(range(len(inputs))))(*tensors(values)), expected)


@each
def test_gradcheck_passes_in_every_mode(case, rng):
    assert gradcheck(
        outputs_of(build(case)),
        leaves(case.sample(rng)),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
        check_undefined_grad=True,
        **DIFFERENCES,
    )


@each
def test_gradcheck_of_the_value_passes_in_every_mode(case, rng):
    layer = build(case)
    assert gradcheck(
        lambda *values: layer.solve(*values).value,
        leaves(case.sample(rng)),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
        **DIFFERENCES,
    )


@pytest.mark.parametrize("name", ["linear", "second-order"])
def test_gradcheck_of_duals_passes_in_every_mode(name, rng):
    case = smooth_layer(name)
    parts = case.build()
    layer = Layer(*parts, **case.options())
    constraint = parts[0].constraints[0]
    assert gradcheck(
        lambda *values: flat((layer.solve(*values).dual(constraint),)),
        leaves(case.sample(rng)),
        check_forward_ad=True,
        check_batched_grad=True,
        **DIFFERENCES,
    )


def test_dual_tensors_carry_tangents_through_a_layer(rng):
    case = smooth_layer("quadratic")
    layer, values = build(case), tensors(case.sample(rng))
    tangent = torch.randn_like(values[1])
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(values[1], tangent)
        found = forward_ad.unpack_dual(flat(layer(values[0], dual, values[2]))).tangent
    function = outputs_of(layer)
    _, expected = jvp(lambda q: function(values[0], q, values[2]), (values[1],), (tangent,))
    assert_close(found, expected)


# --- second and higher derivatives -------------------------------------------------------


@each
def test_gradgradcheck_passes_in_every_mode(case, rng):
    assert gradgradcheck(
        outputs_of(build(case)),
        leaves(case.sample(rng)),
        check_batched_grad=True,
        check_fwd_over_rev=True,
        check_rev_over_rev=True,
        fast_mode=True,
        **DIFFERENCES,
    )


def test_a_gradient_is_differentiated_by_backward_as_by_transforms(rng):
    case = smooth_layer("second-order")
    loss, values = loss_of(build(case)), case.sample(rng)
    inputs = leaves(values)
    gradients = torch.autograd.grad(loss(*inputs), inputs, create_graph=True)
    sum((gradient**2).sum() for gradient in gradients).backward()
    every = tuple(range(len(inputs)))

    def penalty(*given: torch.Tensor) -> torch.Tensor:
        return sum((gradient**2).sum() for gradient in grad(loss, every)(*given))

    expected = grad(penalty, every)(*tensors(values))
    assert_close([value.grad for value in inputs], list(expected))


def test_one_tensor_for_two_parameters_has_the_derivatives_of_both(rng):
    x, a, b = cp.Variable(2), cp.Parameter(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a) + cp.exp(b[0] + x[1])), [x <= b + 1])
    layer = Layer(problem, [a, b], [x], solver_args={"eps": 1e-11})
    value = torch.from_numpy(rng.normal(size=2)).requires_grad_()
    assert gradgradcheck(lambda v: layer(v, v)[0], [value], **DIFFERENCES)


@each
def test_third_derivatives_are_exact_or_refused(case, rng):
    loss, values = loss_of(build(case)), tensors(case.sample(rng))
    tangent = torch.randn_like(values[0])

    def second(value: torch.Tensor) -> torch.Tensor:
        inner = lambda v: jvp(lambda w: loss(w, *values[1:]), (v,), (tangent,))[1]  # noqa: E731
        return jvp(inner, (value,), (tangent,))[1]

    if case.is_curved:
        with pytest.raises(UnsupportedDerivativeError, match="first and second order only"):
            grad(second)(values[0])
        with pytest.raises(UnsupportedDerivativeError, match="first and second order only"):
            jvp(second, (values[0],), (tangent,))
        return
    found = (grad(second)(values[0]) * tangent).sum()
    difference = second(values[0] + STEP * tangent) - second(values[0] - STEP * tangent)
    assert_close(found, difference / (2.0 * STEP), 1e-4 * float(found.abs() + 1.0))


# --- vmap --------------------------------------------------------------------------------


@few
def test_maps_are_nested_over_batches_and_other_dimensions(case, rng):
    layer = build(case)
    first, *rest = tensors(case.sample_batch(rng, 2 * 3 * 2))
    first = first.reshape(2, 3, 2, *first.shape[1:])
    shared = [value[0] for value in rest]
    (expected, *_) = layer(first, *shared)

    def of_columns(value: torch.Tensor) -> torch.Tensor:
        return layer(value, *shared)[0]

    # The outer map is over the second dimension; a batch of the layer's own is inside.
    found = vmap(vmap(of_columns), in_dims=1, out_dims=1)(first)
    assert_close(found, expected, 1e-9)


@few
def test_only_some_values_are_mapped(case, rng):
    layer = build(case)
    first, *rest = tensors(case.sample_batch(rng, 3))
    shared = [value[:1] for value in rest]
    found = vmap(layer, in_dims=(0, *(None,) * len(rest)))(first[:, None], *shared)
    for one, expected in zip(found, layer(first, *shared), strict=True):
        assert_close(one[:, 0], expected, 1e-9)


class Counter:
    """Counts the calls of a method."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.calls: list[int] = []
        original = getattr(owner, name)

        def counted(this: object, *args: object, **options: object) -> object:
            self.calls.append(1)
            return original(this, *args, **options)

        monkeypatch.setattr(owner, name, counted)

    def take(self) -> int:
        count = len(self.calls)
        self.calls.clear()
        return count


def test_a_map_is_one_call_of_the_engine(rng, monkeypatch):
    from cvxlayer.differentiate.native import NativeDerivative
    from cvxlayer.solve.native import NativeBackend

    case = smooth_layer("second-order")
    layer, batch = build(case), tensors(case.sample_batch(rng, 4))
    solves = Counter(monkeypatch, NativeBackend, "solve")
    factorizations = Counter(monkeypatch, NativeDerivative, "apply")
    vmap(layer)(*batch)
    assert (solves.take(), factorizations.take()) == (1, 0)
    vmap(vmap(layer))(*(value[None] for value in batch))
    assert (solves.take(), factorizations.take()) == (1, 0)
    function = outputs_of(layer)
    jacrev(function)(*(value[0] for value in batch))
    assert (solves.take(), factorizations.take()) == (1, 1)
    jacfwd(function)(*(value[0] for value in batch))
    assert (solves.take(), factorizations.take()) == (1, 1)
    vmap(jacrev(function))(*batch)
    assert (solves.take(), factorizations.take()) == (1, 1)


def test_a_second_derivative_solves_once(rng, monkeypatch):
    from cvxlayer.solve.native import NativeBackend
    from cvxlayer.torch import tensor_calls

    case = smooth_layer("second-order")
    loss, inputs = loss_of(build(case)), leaves(case.sample(rng))
    solves = Counter(monkeypatch, NativeBackend, "solve")
    plain_calls = Counter(monkeypatch, tensor_calls, "TensorCall")
    gradients = torch.autograd.grad(loss(*inputs), inputs, create_graph=True)
    gradients[0].sum().backward()
    assert (solves.take(), plain_calls.take()) == (0, 1)


# --- torch.autograd.functional -----------------------------------------------------------


@few
@pytest.mark.parametrize(
    "options",
    [{}, {"vectorize": True}, {"strategy": "forward-mode", "vectorize": True}],
    ids=str,
)
def test_functional_jacobians_equal_jacrev(case, options, rng):
    function, values = outputs_of(build(case)), tuple(tensors(case.sample(rng)))
    expected = jacrev(function, tuple(range(len(values))))(*values)
    assert_close(functional.jacobian(function, values, **options), expected)


@few
@pytest.mark.parametrize("vectorize", [False, True])
def test_functional_hessians_equal_those_of_transforms(case, vectorize, rng):
    loss, values = loss_of(build(case)), tuple(tensors(case.sample(rng)))
    expected = hessian(loss, tuple(range(len(values))))(*values)
    assert_close(functional.hessian(loss, values, vectorize=vectorize), expected)


@few
def test_functional_products_equal_those_of_transforms(case, rng):
    loss, values = loss_of(build(case)), tuple(tensors(case.sample(rng)))
    tangents = tuple(torch.randn_like(value) for value in values)
    assert_close(functional.jvp(loss, values, tangents)[1], jvp(loss, values, tangents)[1])
    assert_close(functional.vjp(loss, values)[1], grad(loss, tuple(range(len(values))))(*values))
    every = tuple(range(len(values)))
    _, expected = jvp(grad(loss, every), values, tangents)
    assert_close(functional.hvp(loss, values, tangents)[1], expected)
    assert_close(functional.vhp(loss, values, tangents)[1], expected)


# --- what else a call promises -----------------------------------------------------------


def between(**options: object) -> Layer:
    """Project onto the box from `low` to `high`, empty where low > high, with a curved cost."""
    x, point = cp.Variable(2), cp.Parameter(2, name="point")
    low, high = cp.Parameter(2, name="low"), cp.Parameter(2, name="high", nonneg=True)
    cost = cp.sum_squares(x - point) + cp.exp(x[0])
    problem = cp.Problem(cp.Minimize(cost), [low <= x, x <= high])
    return Layer(problem, [point, low, high], [x], solver_args={"eps": 1e-10}, **options)


def with_a_failed_row() -> list[torch.Tensor]:
    point = torch.tensor([[2.0, 0.1], [0.5, 0.5], [0.2, -3.0]], dtype=torch.float64)
    low = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    high = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    return [point, low, high]


def test_failed_rows_are_nan_with_zero_derivatives_of_every_order():
    layer, values = between(on_failure="nan"), with_a_failed_row()

    def loss(*inputs: torch.Tensor) -> torch.Tensor:
        solution = layer.solve(*inputs)
        return (solution.variables[0] ** 3).sum() + solution.value**2

    every = (0, 1, 2)
    assert vmap(layer)(*values)[0][1].isnan().all()
    assert vmap(lambda *v: layer.solve(*v).value)(*values)[1] == float("inf")
    for derivative in (grad(loss, every), hessian(loss, every), jacrev(jacrev(loss, every), every)):
        found = torch.utils._pytree.tree_leaves(vmap(derivative)(*values))
        good = vmap(derivative)(*(value[[0, 2]] for value in values))
        for part, alone in zip(found, torch.utils._pytree.tree_leaves(good), strict=True):
            assert torch.equal(part[1], torch.zeros_like(part[1]))
            assert_close(part[[0, 2]], alone, 1e-7)
    inputs = [value.clone().requires_grad_() for value in values]
    total = (layer(*inputs)[0] ** 3).sum()
    gradients = torch.autograd.grad(total, inputs, create_graph=True)
    sum((gradient**2).sum() for gradient in gradients).backward()
    for value in inputs:
        assert torch.equal(value.grad[1], torch.zeros(2, dtype=torch.float64))
        assert value.grad.isfinite().all()


def test_a_failed_row_raises_inside_of_a_transform():
    with pytest.raises(SolverError, match="1: INFEASIBLE") as caught:
        vmap(between())(*with_a_failed_row())
    assert caught.value.indices == [1]


def test_bad_values_are_refused_inside_of_transforms():
    layer, (point, low, high) = between(), with_a_failed_row()
    with pytest.raises(ParameterValueError, match="`point` at batch index 2 contains NaN"):
        vmap(layer)(torch.where(point == -3.0, torch.nan, point), low, high)
    with pytest.raises(ParameterValueError, match="`high` at batch index 1 is outside"):
        vmap(layer)(point, low, high - 0.5)
    with pytest.raises(ShapeError, match=r"`low` has shape \(3,\)"):
        vmap(layer)(point, torch.zeros(3, 3), high)


def test_dtypes_are_kept_inside_of_transforms(rng):
    case = smooth_layer("second-order")
    layer, batch = build(case), [value.float() for value in tensors(case.sample_batch(rng, 2))]
    assert vmap(layer)(*batch)[0].dtype == torch.float32
    gradient = vmap(grad(loss_of(layer)))(*batch)
    assert gradient.dtype == torch.float32
    wide = vmap(grad(loss_of(layer)))(*(value.double() for value in batch))
    torch.testing.assert_close(gradient.double(), wide, atol=1e-4, rtol=1e-4)


def test_statistics_are_tensors_inside_of_transforms(rng):
    case = smooth_layer("quadratic")
    layer, batch = build(case), tensors(case.sample_batch(rng, 3))

    def statistics(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        solution = layer.solve(*values)
        return solution.status, solution.iterations, solution.residuals.primal

    plain = layer.solve(*batch)
    status, iterations, primal = vmap(statistics)(*batch)
    np.testing.assert_array_equal(status, plain.status)
    np.testing.assert_array_equal(iterations, plain.iterations)
    np.testing.assert_allclose(primal, plain.residuals.primal, atol=1e-12)


def test_warm_starts_are_used_or_refused_inside_of_transforms(rng):
    case = smooth_layer("quadratic")
    layer, batch = build(case), tensors(case.sample_batch(rng, 3))
    start = layer.solve(*batch)
    first, *rest = batch
    cold = jvp(lambda v: layer(v, *rest)[0], (first,), (first,))
    warm = jvp(lambda v: layer(v, *rest, warm_start=start)[0], (first,), (first,))
    assert_close(warm, cold, 1e-7)
    inside = []
    jvp(lambda v: inside.append(layer.solve(v, *rest)) or v, (first,), (first,))
    with pytest.raises(OptionError, match="inside of a transform"):
        layer(*batch, warm_start=inside[0])


@few
def test_the_dispatching_layer_has_the_same_transforms(case, rng):
    plain, values = cvxlayer.Layer(*case.build(), **case.options()), tensors(case.sample(rng))
    assert_close(hessian(loss_of(plain))(*values), hessian(loss_of(build(case)))(*values), 1e-12)


def test_other_solvers_have_the_same_transforms(rng):
    case = smooth_layer("second-order")
    values = tensors(case.sample(rng))
    expected = hessian(loss_of(build(case)))(*values)
    assert_close(hessian(loss_of(build(case, solver="clarabel")))(*values), expected, 1e-4)


def test_a_derivative_of_the_solver_alone_is_refused_in_transforms(rng):
    pytest.importorskip("diffcp")
    case = smooth_layer("second-order")
    options = {"solver": "diffcp", "solver_args": {"mode": "dense"}}
    layer, values = Layer(*case.build(), **options), tensors(case.sample(rng))
    with pytest.raises(UnsupportedDerivativeError):
        jacfwd(outputs_of(layer))(*values)
