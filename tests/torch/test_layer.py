# SPDX-License-Identifier: Apache-2.0
"""What `cvxlayer.torch.Layer` promises beside its gradients."""

from __future__ import annotations

import copy
import io
import pickle
import threading
import warnings

import cvxpy as cp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cvxlayer  # noqa: E402
from cvxlayer.errors import (  # noqa: E402
    InaccurateWarning,
    ParameterValueError,
    ShapeError,
    SolverError,
    Status,
)
from cvxlayer.torch import Layer  # noqa: E402
from tests.catalog.problems import case_named  # noqa: E402

SOLVER_TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float32: 1e-5}


def between(**options: object) -> Layer:
    """Project `point` onto lower <= x <= upper: infeasible where lower > upper."""
    x = cp.Variable(2, name="x")
    point, lower, upper = (cp.Parameter(2, name=name) for name in ("point", "lower", "upper"))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [lower <= x, x <= upper])
    return Layer(problem, [point, lower, upper], [x], **options)


def tensor(*entries: float) -> torch.Tensor:
    return torch.tensor(entries, dtype=torch.float64)


def one_infeasible_row() -> list[torch.Tensor]:
    """Return three rows of values for `between`; the middle one is infeasible."""
    point = torch.tensor([[2.0, 0.0], [0.5, 0.5], [0.25, -3.0]], dtype=torch.float64)
    lower = torch.tensor([[-1.0, -1], [1, 1], [-1, -1]], dtype=torch.float64)
    upper = torch.tensor([[1.0, 1], [-1, -1], [1, 1]], dtype=torch.float64)
    return [value.requires_grad_() for value in (point, lower, upper)]


# --- frameworks --------------------------------------------------------------------------


def test_the_dispatching_layer_gives_differentiable_tensors_for_tensors(rng):
    layer = cvxlayer.Layer(*case_named("relu").build())
    value = torch.from_numpy(rng.normal(size=5)).requires_grad_()
    (output,) = layer(value)
    output.sum().backward()
    torch.testing.assert_close(value.grad, (value > 0).double(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(layer.solve(value).variables[0], output)


# --- dtypes and devices ------------------------------------------------------------------


@pytest.mark.parametrize("left", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("right", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_results_have_the_dtype_the_inputs_promote_to(left, right):
    point = torch.tensor([2.0, 0.0]).to(left)
    bound = torch.tensor([1, 1]).to(right)
    (output,) = between()(point, -bound, bound)
    promoted = torch.promote_types(left, right)
    assert output.dtype == promoted
    tolerance = SOLVER_TOLERANCE.get(promoted, 1e-6)
    torch.testing.assert_close(output.double(), tensor(1.0, 0.0), atol=tolerance, rtol=tolerance)


def test_integers_become_the_default_float():
    values = torch.tensor([2, 0]), torch.tensor([-1, -1]), torch.tensor([1, 1])
    assert between()(*values)[0].dtype == torch.get_default_dtype()


def test_without_inputs_results_have_the_default_dtype():
    x = cp.Variable(2)
    (output,) = Layer(cp.Problem(cp.Minimize(cp.sum_squares(x - 1))), [], [x])()
    assert output.dtype == torch.get_default_dtype()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gradients_have_the_dtype_of_their_inputs(dtype):
    point = torch.tensor([0.5, 3.0], dtype=dtype, requires_grad=True)
    upper = tensor(1.0, 1.0).requires_grad_()
    (output,) = between()(point, tensor(-1.0, -1.0), upper)
    assert output.dtype == torch.float64
    output.sum().backward()
    assert point.grad.dtype == dtype
    torch.testing.assert_close(point.grad.double(), tensor(1.0, 0.0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(upper.grad, tensor(0.0, 1.0), atol=1e-5, rtol=1e-5)


def test_python_numbers_are_values_that_do_not_widen_the_dtype():
    layer = Layer(*case_named("ball").build())
    point = torch.tensor([3.0, 0, 0, 0])
    assert layer(point, 1.0)[0].dtype == torch.float32
    torch.testing.assert_close(layer(point, 2)[0], 2 * point / 3)


@pytest.mark.parametrize("make", [torch.clone, lambda t: t.mT.contiguous().mT])
def test_memory_layout_does_not_matter(make, rng):
    case = case_named("stochastic_rows")
    values = torch.from_numpy(rng.normal(size=(4, 2, 3)))
    layer = Layer(*case.build())
    torch.testing.assert_close(layer(make(values)), layer(values), atol=0, rtol=0)


def test_values_on_different_devices_are_refused():
    with pytest.raises(ParameterValueError, match=r"`upper` is on the device meta.*one device"):
        between()(tensor(0, 0), tensor(-1, -1), torch.ones(2, device="meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_results_and_gradients_are_on_the_device_of_the_inputs():
    values = [value.detach().cuda() for value in one_infeasible_row()]
    values[0].requires_grad_()
    (output,) = between(on_failure="nan")(*values)
    assert output.is_cuda
    output[0].sum().backward()
    assert values[0].grad.is_cuda


# --- empty batches -----------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(0,), (2, 0), (0, 3)])
def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(batch, rng):
    case = case_named("affine_set")
    point, A, b = (torch.from_numpy(value).requires_grad_() for value in case.sample(rng))
    empty = torch.zeros(*batch, 5, dtype=torch.float64, requires_grad=True)
    del point
    (output,) = Layer(*case.build())(empty, A, b)
    assert output.shape == (*batch, 5)
    output.sum().backward()
    assert empty.grad.shape == empty.shape
    torch.testing.assert_close(A.grad, torch.zeros_like(A))
    torch.testing.assert_close(b.grad, torch.zeros_like(b))


# --- failures ----------------------------------------------------------------------------


def test_one_infeasible_row_raises_one_error_that_carries_the_good_rows():
    with pytest.raises(SolverError, match=r"1 instance.*1: INFEASIBLE.*on_failure") as caught:
        between()(*one_infeasible_row())
    error = caught.value
    assert error.indices == [1]
    assert error.statuses == [Status.INFEASIBLE]
    assert list(error.solution.status) == [Status.SOLVED, Status.INFEASIBLE, Status.SOLVED]
    (x,) = error.solution.variables
    torch.testing.assert_close(x[0], tensor(1.0, 0.0), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(x[2], tensor(0.25, -1.0), atol=1e-6, rtol=1e-6)
    assert x[1].isnan().all()
    assert error.solution.value[1] == float("inf")


def test_nan_rows_leave_other_rows_alone_and_get_exactly_zero_gradient():
    inputs = one_infeasible_row()
    (output,) = between(on_failure="nan")(*inputs)
    assert output[1].isnan().all()
    # The square sends NaN back through the failed row; none of it may come out.
    (output**2).sum().backward()
    for value in inputs:
        assert torch.equal(value.grad[1], torch.zeros(2, dtype=torch.float64))
        assert value.grad.isfinite().all()
    good = [value.detach()[[0, 2]].requires_grad_() for value in inputs]
    (between()(*good)[0] ** 2).sum().backward()
    for value, alone in zip(inputs, good, strict=True):
        torch.testing.assert_close(value.grad[[0, 2]], alone.grad, atol=1e-7, rtol=1e-7)


def test_a_failed_row_adds_nothing_to_the_gradient_of_a_shared_input():
    _, lower, upper = one_infeasible_row()
    shared = tensor(0.5, 2.0).requires_grad_()
    (output,) = between(on_failure="nan")(shared, lower.detach(), upper.detach())
    (output**2).sum().backward()
    torch.testing.assert_close(shared.grad, tensor(2.0, 0.0), atol=1e-5, rtol=1e-5)


def test_the_value_of_a_failed_row_is_infinite_and_has_zero_gradient():
    inputs = one_infeasible_row()
    solution = between(on_failure="nan").solve(*inputs)
    assert solution.value[1] == float("inf")
    (solution.value**2).sum().backward()
    for value in inputs:
        assert value.grad.isfinite().all()
        assert torch.equal(value.grad[1], torch.zeros(2, dtype=torch.float64))


def test_an_unbounded_problem_is_reported_as_such():
    x, cost = cp.Variable(2), cp.Parameter(2, name="cost")
    layer = Layer(cp.Problem(cp.Minimize(cost @ x), [x >= 0]), [cost], [x])
    with pytest.raises(SolverError, match=r"\(\): UNBOUNDED|at batch index \(\)"):
        layer(tensor(1.0, -1.0))
    with pytest.raises(SolverError, match="UNBOUNDED") as caught:
        layer(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]).reshape(2, 1, 2))
    assert caught.value.indices == [(1, 0)]


def test_running_out_of_iterations_raises_or_warns_but_is_never_silent(rng):
    case = case_named("simplex")
    layer = Layer(*case.build())
    with pytest.raises(SolverError, match="MAX_ITERATIONS"):
        layer(torch.from_numpy(rng.normal(size=(3, 6))), solver_args={"max_iters": 1})


def test_rows_nearly_there_are_returned_with_one_warning(rng):
    values = torch.from_numpy(rng.normal(size=(8, 6)))
    layer = Layer(*case_named("simplex").build())
    solved = layer(values)[0]
    for limit in range(2, 30):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                (output,) = layer(values, solver_args={"max_iters": limit})
            except SolverError:
                continue
        break
    inaccurate = [w for w in caught if issubclass(w.category, InaccurateWarning)]
    assert len(inaccurate) <= 1
    torch.testing.assert_close(output, solved, atol=1e-3, rtol=1e-3)


def test_an_error_can_be_pickled():
    with pytest.raises(SolverError) as caught:
        between()(*[value.detach() for value in one_infeasible_row()])
    restored = pickle.loads(pickle.dumps(caught.value))
    assert restored.indices == [1]
    assert restored.solution.status[1] == Status.INFEASIBLE


# --- the module --------------------------------------------------------------------------


def test_a_layer_has_no_state_to_save_or_to_move():
    layer = between()
    assert layer.state_dict() == {}
    layer.load_state_dict({})
    assert list(layer.parameters()) == []
    assert layer.to(torch.float32) is layer
    values = tensor(2.0, 0.0), tensor(-1.0, -1.0), tensor(1.0, 1.0)
    assert layer(*values)[0].dtype == torch.float64


def test_a_layer_survives_pickle_deepcopy_and_torch_save(rng):
    case = case_named("portfolio")
    layer = Layer(*case.build())
    values = [torch.from_numpy(value) for value in case.sample_batch(rng, 2)]
    expected = layer(*values)[0]
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    copies = (
        pickle.loads(pickle.dumps(layer)),
        copy.deepcopy(layer),
        torch.load(buffer, weights_only=False),
    )
    for other in copies:
        torch.testing.assert_close(other(*values)[0], expected, atol=0, rtol=0)


def test_a_copy_made_before_the_first_call_uses_our_engine_all_the_same():
    layer = Layer(*case_named("portfolio").build())
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert other._evaluator.options.is_native
        assert other._evaluator.options.is_named


def test_a_layer_inside_a_module_trains():
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 5)
            self.project = Layer(*case_named("relu").build())

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.project(self.linear(features))[0]

    torch.manual_seed(0)
    model, features = Model(), torch.randn(4, 3)
    reference = torch.relu(model.linear(features))
    torch.testing.assert_close(model(features), reference, atol=1e-5, rtol=1e-5)
    model(features).sum().backward()
    gradient = model.linear.weight.grad.clone()
    model.zero_grad()
    reference.sum().backward()
    torch.testing.assert_close(gradient, model.linear.weight.grad, atol=1e-4, rtol=1e-4)


def test_threads_get_the_answers_of_serial_calls(rng):
    case = case_named("box")
    layer = Layer(*case.build())
    batches = [[torch.from_numpy(v) for v in case.sample_batch(rng, 6)] for _ in range(6)]
    expected = [_gradient(layer, batch) for batch in batches]
    found: list[torch.Tensor | None] = [None] * len(batches)

    def work(index: int) -> None:
        for _ in range(5):
            found[index] = _gradient(layer, batches[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, atol=0, rtol=0)


def _gradient(layer: Layer, values: list[torch.Tensor]) -> torch.Tensor:
    point = values[0].clone().requires_grad_()
    (layer(point, *values[1:])[0] ** 2).sum().backward()
    assert point.grad is not None
    return point.grad


def test_the_representation_names_inputs_outputs_and_solver():
    text = repr(between(solver="clarabel"))
    assert text == "Layer((point[2], lower[2], upper[2]) -> (x[2]), solver='clarabel')"


# --- errors of the tensors themselves ----------------------------------------------------


def test_complex_tensors_are_refused():
    with pytest.raises(ParameterValueError, match=r"`point` has the dtype torch.complex128.*real"):
        between()(torch.zeros(2, dtype=torch.complex128), tensor(0, 0), tensor(1, 1))


def test_sparse_tensors_are_refused():
    with pytest.raises(ParameterValueError, match=r"`point` is of the layout torch.sparse_coo"):
        between()(tensor(1, 0).to_sparse(), tensor(0, 0), tensor(1, 1))


def test_arrays_are_not_converted_silently():
    with pytest.raises(ParameterValueError, match=r"`lower` is a ndarray.*torch.as_tensor"):
        between()(tensor(0, 0), np.zeros(2), tensor(1, 1))


def test_bad_values_name_the_parameter_and_the_first_batch_index():
    point = torch.zeros(2, 3, 2)
    point[1, 0, 1] = float("nan")
    with pytest.raises(ParameterValueError, match=r"`point` at batch index \(1, 0\) contains NaN"):
        between()(point, torch.zeros(2), torch.ones(2))
    with pytest.raises(ShapeError, match=r"`upper` has shape \(3,\); the parameter has shape"):
        between()(torch.zeros(2), torch.zeros(2), torch.ones(3))
