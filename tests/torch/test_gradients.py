# SPDX-License-Identifier: Apache-2.0
"""Gradients of the torch layer against finite differences and closed forms."""

from __future__ import annotations

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cvxpy as cp  # noqa: E402
from torch.autograd import gradcheck  # noqa: E402

import cvxlayer  # noqa: E402
from cvxlayer.torch import Layer  # noqa: E402
from tests.catalog.problems import (  # noqa: E402
    PROBLEMS,
    WITH_CLOSED_FORM,
    WITH_JACOBIAN,
    LayerCase,
    case_named,
)

STEP = 1e-4
SOLVER_ARGS = {"eps": 1e-11}
CLOSED_FORM_TOLERANCE = 1e-7


@functools.cache
def program_of(case: LayerCase) -> cvxlayer.CompiledProgram:
    """Return the problem of a case, compiled once for all tests."""
    return cvxlayer.compile(*case.build())


def build(case: LayerCase, **options: object) -> Layer:
    return Layer(program_of(case), solver_args=SOLVER_ARGS, **options)


def differences_agree(function, inputs: list[torch.Tensor], step: float = STEP) -> bool:
    """Compare with central differences, which err by step² and the solver's error over step."""
    return gradcheck(function, inputs, eps=step, atol=0.1 * step, rtol=step)


def inputs_of(values: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(value)).requires_grad_() for value in values]


def is_matrix_symmetric(parameter: cp.Parameter) -> bool:
    return parameter.ndim == 2 and parameter.is_symmetric()


def within_domain(case: LayerCase):
    """Return a map that makes perturbed values of symmetric parameters symmetric again."""
    is_symmetric = [is_matrix_symmetric(parameter) for parameter in case.build()[1]]

    def project(values: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        return [
            0.5 * (value + value.mT) if symmetric else value
            for value, symmetric in zip(values, is_symmetric, strict=True)
        ]

    return project


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_gradients_of_outputs_equal_finite_differences(case, rng):
    layer, project = build(case), within_domain(case)
    inputs = inputs_of(case.sample_batch(rng, 2))
    assert differences_agree(lambda *values: layer(*project(values)), inputs, case.step)


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_gradient_of_the_value_equals_finite_differences(case, rng):
    layer, project = build(case), within_domain(case)
    inputs = inputs_of(case.sample_batch(rng, 2))
    assert differences_agree(lambda *values: layer.solve(*project(values)).value, inputs, case.step)


@pytest.mark.parametrize("name", ["halfspace_and_dual", "ball", "simplex", "affine_set"])
def test_gradients_of_the_duals_of_a_constraint_equal_finite_differences(name, rng):
    case = case_named(name)
    problem, parameters, variables = case.build()
    layer = Layer(problem, parameters, variables, solver_args=SOLVER_ARGS)
    # A constraint that is active wherever the case samples.
    constraint = problem.constraints[-1]
    inputs = inputs_of(case.sample(rng))
    assert differences_agree(lambda *values: layer.solve(*values).dual(constraint), inputs)


@pytest.mark.parametrize("case", WITH_JACOBIAN, ids=str)
def test_jacobian_equals_its_closed_form(case, rng):
    values = case.sample(rng)
    layer, inputs = build(case), inputs_of(values)
    (output, *_) = layer(*inputs)
    rows = [
        torch.autograd.grad(entry, inputs[0], retain_graph=True)[0].reshape(-1)
        for entry in output.reshape(-1)
    ]
    np.testing.assert_allclose(
        torch.stack(rows), case.jacobian(*values), atol=CLOSED_FORM_TOLERANCE
    )


@pytest.mark.parametrize("case", WITH_CLOSED_FORM, ids=str)
def test_gradients_equal_differences_of_the_closed_form(case, rng):
    values = case.sample(rng)
    inputs, direction = inputs_of(values), rng.normal(size=case.closed_form(*values)[0].shape)
    (build(case)(*inputs)[0] * torch.from_numpy(np.asarray(direction))).sum().backward()
    for index, value in enumerate(values):
        step = STEP * rng.normal(size=value.shape)
        if is_matrix_symmetric(case.build()[1][index]):
            step = 0.5 * (step + step.T)
        ahead, behind = list(values), list(values)
        ahead[index], behind[index] = value + step, value - step
        difference = (case.closed_form(*ahead)[0] - case.closed_form(*behind)[0]) / 2
        np.testing.assert_allclose(
            (inputs[index].grad.numpy() * step).sum(),
            (difference * direction).sum(),
            atol=1e-5 * STEP,
            rtol=1e-5,
        )


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_a_batch_equals_its_single_calls(case, rng):
    layer, batch = build(case), inputs_of(case.sample_batch(rng, 5))
    outputs = layer(*batch)
    weights = [torch.from_numpy(rng.normal(size=output.shape)) for output in outputs]
    sum((w * o).sum() for w, o in zip(weights, outputs, strict=True)).backward()
    for row in range(5):
        single = [value.detach()[row].clone().requires_grad_() for value in batch]
        answers = layer(*single)
        sum((w[row] * o).sum() for w, o in zip(weights, answers, strict=True)).backward()
        for answer, output in zip(answers, outputs, strict=True):
            tolerance = case.step**2
            torch.testing.assert_close(answer, output[row], atol=tolerance, rtol=tolerance)
        for value, whole in zip(single, batch, strict=True):
            tolerance = 1e-2 * case.step
            torch.testing.assert_close(value.grad, whole.grad[row], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("shapes", "batch"),
    [
        (((), (), ()), ()),
        (((3,), (), ()), (3,)),
        (((), (3,), ()), (3,)),
        (((2, 1), (3,), ()), (2, 3)),
        (((1,), (4,), (1, 1)), (1, 4)),
        (((2, 3), (2, 1), (1, 3)), (2, 3)),
        (((1,), (1,), ()), (1,)),
    ],
    ids=str,
)
def test_gradients_of_broadcast_inputs_are_summed_to_their_shapes(shapes, batch, rng):
    case = case_named("affine_set")
    layer = build(case)
    inputs = inputs_of(
        [
            rng.normal(size=shape + value.shape)
            for shape, value in zip(shapes, case.sample(rng), strict=True)
        ]
    )
    (output,) = layer(*inputs)
    assert output.shape == (*batch, 5)
    weight = torch.from_numpy(rng.normal(size=output.shape))
    gradients = torch.autograd.grad((weight * output).sum(), inputs)
    # The same through PyTorch's own broadcasting, whose adjoint is known to be right.
    expanded = [
        value.broadcast_to(*batch, *value.shape[len(shape) :])
        for value, shape in zip(inputs, shapes, strict=True)
    ]
    expected = torch.autograd.grad((weight * layer(*expanded)[0]).sum(), inputs)
    for gradient, wanted, value in zip(gradients, expected, inputs, strict=True):
        assert gradient.shape == value.shape
        torch.testing.assert_close(gradient, wanted, atol=1e-7, rtol=1e-7)


def test_outputs_without_cotangent_contribute_nothing(rng):
    case = case_named("halfspace_and_dual")
    layer, values = build(case), case.sample(rng)
    x_only, both = inputs_of(values), inputs_of(values)
    layer(*x_only)[0].sum().backward()
    x, dual = layer(*both)
    (x.sum() + 0.0 * dual.sum()).backward()
    for left, right in zip(x_only, both, strict=True):
        torch.testing.assert_close(left.grad, right.grad)


def test_only_the_inputs_that_need_a_gradient_get_one(rng):
    case = case_named("box")
    inputs = inputs_of(case.sample(rng))
    inputs[1].requires_grad_(False)
    build(case)(*inputs)[0].sum().backward()
    assert inputs[0].grad is not None
    assert inputs[1].grad is None
    assert inputs[2].grad is not None


def test_a_parameter_used_twice_gets_the_sum_of_both_uses(rng):
    case = case_named("box")
    point, lower, upper = inputs_of(case.sample(rng))
    offset = torch.zeros((), dtype=torch.float64, requires_grad=True)
    build(case)(point, lower + offset, upper + offset)[0].sum().backward()
    clipped = (point < lower) | (point > upper)
    torch.testing.assert_close(offset.grad, clipped.double().sum(), atol=1e-6, rtol=1e-6)


def test_training_through_the_layer_recovers_the_weight_that_made_the_data(rng):
    case = case_named("ridge")
    layer = build(case)
    A, b, _ = (torch.from_numpy(np.asarray(value)) for value in case.sample_batch(rng, 8))
    true_weight = torch.tensor(0.7, dtype=torch.float64)
    target = layer(A, b, true_weight)[0]
    log_weight = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_weight], line_search_fn="strong_wolfe", max_iter=50)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = ((layer(A, b, log_weight.exp())[0] - target) ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(log_weight.exp(), true_weight, atol=1e-5, rtol=1e-5)


def test_a_gradient_that_is_not_unique_warns_once_with_its_figures():
    # Every split of the sum over x[0] + x[1] is optimal: x itself has no derivative.
    from cvxlayer.errors import DerivativeWarning

    x, total = cp.Variable(2), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.square(cp.sum(x) - total)))
    layer = Layer(problem, [total], [x])
    value = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (output,) = layer(value)
    with pytest.warns(DerivativeWarning, match=r"not unique.*2 of 2 rows") as record:
        (output[:, 0] - output[:, 1]).sum().backward()
    assert len(record) == 1


def complex_projection() -> Layer:
    z, A = cp.Variable(3, complex=True), cp.Parameter((2, 3), complex=True)
    c = cp.Parameter(3, complex=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - c)), [A @ z == 0.1, cp.norm(z) <= 1])
    return Layer(problem, [A, c], [z, problem.constraints[0].dual_variables[0]])


def test_gradients_of_complex_layers_follow_the_convention_of_torch(rng):
    layer = complex_projection()
    values = [rng.normal(size=shape) + 1j * rng.normal(size=shape) for shape in ((2, 3), (4, 3))]
    assert differences_agree(lambda *inputs: layer(*inputs), inputs_of(values))


def test_a_real_value_of_a_complex_parameter_has_a_real_gradient(rng):
    layer = complex_projection()
    matrix, point = inputs_of([rng.normal(size=(2, 3)), rng.normal(size=(4, 3))])
    z, _ = layer(matrix, point)
    assert z.dtype is torch.complex128
    z.abs().sum().backward()
    assert matrix.grad.dtype is point.grad.dtype is torch.float64
    assert float(point.grad.abs().max()) > 0
