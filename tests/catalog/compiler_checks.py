# SPDX-License-Identifier: Apache-2.0
"""What has to hold inside of `torch.compile`: run as a program, prints the outcome of each check.

In a process of its own, because the compiler cannot trace the checks of annotations.
"""

from __future__ import annotations

import json
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cvxpy as cp
import numpy as np
import pytest
import torch

import cvxlayer
from cvxlayer.errors import ParameterValueError, SolverError
from cvxlayer.torch import Layer
from tests.catalog.smooth_layers import smooth_layer

TOLERANCE = 1e-12


def _layer(name: str, **options: object) -> Layer:
    case = smooth_layer(name)
    return Layer(*case.build(), **case.options(), **options)


def _values(name: str, size: int, seed: int = 0) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(value) for value in smooth_layer(name).sample_batch(rng, size)]


def _compiled(function: Callable, backend: str, **options: object) -> Callable:
    return torch.compile(function, backend=backend, fullgraph=True, **options)


def _loss(layer: Callable) -> Callable[..., torch.Tensor]:
    return lambda *values: sum(
        (part.abs() ** 2).sum() for part in layer(*(v * 1.5 for v in values))
    )


def _close(found: object, expected: object, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def _same_value_and_gradients(function: Callable, fast: Callable, values: list) -> None:
    inputs = [value.clone().requires_grad_() for value in values]
    expected, found = function(*inputs), fast(*inputs)
    _close(found, expected)
    _close(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs))


def gradients(backend: str, name: str) -> None:
    loss = _loss(_layer(name))
    _same_value_and_gradients(loss, _compiled(loss, backend), _values(name, 2))


def quadratic(backend: str) -> None:
    gradients(backend, "quadratic")


def complex_values(backend: str) -> None:
    gradients(backend, "complex")


def geometric(backend: str) -> None:
    gradients(backend, "geometric")


def batches_of_any_size(backend: str) -> None:
    loss = _loss(_layer("second-order"))
    fast = _compiled(loss, backend, dynamic=True)
    for size in (2, 3, 5):
        _same_value_and_gradients(loss, fast, _values("second-order", size))


def no_batch_and_only_some_gradients(backend: str) -> None:
    loss = _loss(_layer("second-order"))
    point, A, r = (value[0] for value in _values("second-order", 1))
    point.requires_grad_()
    found, expected = _compiled(loss, backend)(point, A, r), loss(point, A, r)
    _close(found, expected)
    (one,), (other,) = (torch.autograd.grad(total, [point]) for total in (found, expected))
    _close(one, other)


def modules_names_and_numbers(backend: str) -> None:
    layer, (point, A, _) = _layer("second-order"), _values("second-order", 2)
    _close(_compiled(layer, backend)(point, A, 0.9), layer(point, A, 0.9))
    narrow = [point.float(), A.float()]
    fast = _compiled(lambda a, b: layer(a, r=0.9, A=b)[0], backend)
    assert fast(*narrow).dtype == torch.float32
    _close(fast(*narrow), layer(*narrow, 0.9)[0])


def without_gradients(backend: str) -> None:
    layer, values = _layer("quadratic"), _values("quadratic", 2)
    fast = _compiled(lambda *v: layer(*v)[0] + 1.0, backend)
    with torch.no_grad():
        assert not fast(*values).requires_grad
    with torch.inference_mode():
        _close(fast(*values), layer(*values)[0] + 1.0)


def copies_and_pickles(backend: str) -> None:
    layer, values = _layer("quadratic"), _values("quadratic", 2)
    other = pickle.loads(pickle.dumps(layer))
    _close(_compiled(lambda *v: other(*v)[0], backend)(*values), layer(*values)[0])


def _between(on_failure: str) -> Layer:
    x, low = cp.Variable(2), cp.Parameter(2, name="low")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [low <= x, x <= 1])
    return Layer(problem, [low], [x], on_failure=on_failure)


def failed_rows(backend: str) -> None:
    low = torch.tensor([[0.5, -1.0], [2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    with pytest.raises(SolverError) as caught:
        _compiled(_between("raise"), backend)(low)
    assert caught.value.indices == [1]
    layer = _between("nan")
    (found,) = _compiled(layer, backend)(low)
    assert found[1].isnan().all()
    (gradient,) = torch.autograd.grad((found**2).sum(), low)
    assert torch.equal(gradient[1], torch.zeros(2, dtype=torch.float64))
    _close(gradient[0], torch.tensor([1.0, 0.0], dtype=torch.float64), 1e-6)


def bad_values(backend: str) -> None:
    with pytest.raises(ParameterValueError, match="`low` at batch index 0 contains NaN"):
        _compiled(_between("nan"), backend)(torch.full((3, 2), torch.nan))


def settings_of_a_call(backend: str) -> None:
    layer, values = _layer("second-order"), _values("second-order", 2)
    with pytest.raises(SolverError, match="MAX_ITERATIONS"):
        _compiled(lambda *v: layer(*v, solver_args={"max_iters": 1}), backend)(*values)
    options = {"eps": 1e-6, "max_iters": 50}
    loss = _loss(lambda *v: layer(*v, solver_args=options))
    _same_value_and_gradients(loss, _compiled(loss, backend), values)


def layers_of_any_framework(backend: str) -> None:
    case = smooth_layer("second-order")
    loss = _loss(cvxlayer.Layer(*case.build(), **case.options()))
    _same_value_and_gradients(loss, _compiled(loss, backend), _values("second-order", 2))


def the_rest_is_done_outside_of_the_graph(backend: str) -> None:
    layer, values = _layer("quadratic"), _values("quadratic", 2)
    start = layer.solve(*values)
    fast = torch.compile(lambda *v: layer(*v, warm_start=start)[0] + 1.0, backend=backend)
    _close(fast(*values), layer(*values, warm_start=start)[0] + 1.0)
    fast = torch.compile(lambda *v: layer.solve(*v).value * 2.0, backend=backend)
    inputs = [value.requires_grad_() for value in values]
    found, expected = fast(*inputs).sum(), 2.0 * layer.solve(*inputs).value.sum()
    _close(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs))


def operators_are_what_they_claim(backend: str) -> None:
    layer, values = _layer("second-order"), _values("second-order", 2)
    inputs = [value.requires_grad_() for value in values]
    operator = torch.ops.cvxlayer.solve.default
    torch.library.opcheck(operator, (inputs, layer._evaluator.number, "{}", torch.float64))


class _Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = _layer("second-order")

    def forward(self, point: torch.Tensor, A: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return self.layer(point * 2.0, A, r)[0]


def exported_programs(backend: str) -> None:
    model, size = _Model(), torch.export.Dim("size")
    values = _values("second-order", 2)
    shapes = ({0: size}, {0: size}, {0: size})
    program = torch.export.export(model, tuple(values), dynamic_shapes=shapes)
    more = _values("second-order", 4, seed=1)
    _close(program.module()(*more), model(*more))


def second_order(backend: str) -> None:
    gradients(backend, "second-order")


CHECKS = [
    second_order,
    quadratic,
    complex_values,
    geometric,
    batches_of_any_size,
    no_batch_and_only_some_gradients,
    modules_names_and_numbers,
    without_gradients,
    copies_and_pickles,
    failed_rows,
    bad_values,
    settings_of_a_call,
    layers_of_any_framework,
    the_rest_is_done_outside_of_the_graph,
    operators_are_what_they_claim,
    exported_programs,
]


def main(backend: str, names: list[str]) -> None:
    warnings.simplefilter("ignore")
    outcomes = {}
    for check in CHECKS:
        if names and check.__name__ not in names:
            continue
        torch.compiler.reset()
        with ThreadPoolExecutor(1) as alone:
            trouble = alone.submit(check, backend).exception()
        outcomes[check.__name__] = "".join(traceback.format_exception(trouble)) if trouble else ""
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
