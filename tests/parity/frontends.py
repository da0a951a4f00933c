# SPDX-License-Identifier: Apache-2.0
"""NumPy, PyTorch and JAX under one set of names: derivatives of θ ↦ an answer, as NumPy arrays.

Every frontend takes and returns NumPy arrays and computes in its framework between them. What
is differentiated is named by a `Subject`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

import cvxlayer
from tests.catalog.parity_cases import ParityCase, pack, unpack

EPS = 1e-11
ORDERS = ("reverse of reverse", "forward of reverse", "reverse of forward", "forward of forward")
"""The compositions that make a Hessian, the outer one first."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is differentiated.

    Attributes:
        case: the problem.
        reading: see `READINGS`.
        on_failure: as of a layer.
    """

    case: ParityCase
    reading: str
    on_failure: str = "raise"


class NumpyFrontend:
    """The engine behind every framework: values and cotangents."""

    name = "numpy"

    @functools.cache  # noqa: B019 (three live for as long as the tests)
    def layer(self, subject: Subject) -> Any:
        return _layer(cvxlayer.Layer, subject)

    def call(self, subject: Subject, theta: np.ndarray) -> np.ndarray:
        return self.call_with(subject, unpack(theta, subject.case.like), theta.shape[:-1])

    def call_with(self, subject: Subject, values: list[Any], batch: tuple[int, ...]) -> np.ndarray:
        """Call with one value per parameter, whose batch dimensions broadcast to `batch`."""
        found = subject.case.read(self.layer(subject), subject.reading, values)
        return pack([np.asarray(part) for part in found], batch, np.concatenate)

    def vjp(self, subject: Subject, theta: np.ndarray, weights: np.ndarray) -> np.ndarray:
        values = unpack(theta, subject.case.like)
        bars = self.vjp_with(subject, values, weights)
        return pack(bars, theta.shape[:-1], np.concatenate)

    def vjp_with(self, subject: Subject, values: list[Any], weights: np.ndarray) -> list[Any]:
        """Return one cotangent per value, of its shape."""
        evaluation = self.layer(subject)._evaluator.evaluate(values, [0.0] * len(values))
        readings = [evaluation.read_outputs()]
        if subject.reading == "solution":
            duals = [evaluation.read_dual(k) for k in range(subject.case.num_constraints)]
            readings += [evaluation.read_value(), *duals]
        arrays = [array for reading in readings for array in reading.arrays]
        single = (0,) * (weights.ndim - 1)
        bars = iter(unpack(weights, [array[single] for array in arrays]))
        total: list[Any] = [0.0] * len(values)
        for reading in readings:
            own = [next(bars) for _ in reading.arrays]
            parts = reading.pull_back(own, [True] * len(values))
            total = [sum_ + part for sum_, part in zip(total, parts, strict=True)]
        return total

    def jacobian(self, subject: Subject, theta: np.ndarray) -> np.ndarray:
        """Return the Jacobian at one θ, a row for each entry of the answer."""
        size = self.call(subject, theta).size
        return self.vjp(subject, np.broadcast_to(theta, (size, theta.size)), np.eye(size))


class _Differentiating:
    """What PyTorch and JAX share: they have the same transforms under the same names."""

    name: str
    layer_type: Any
    func: Any  # the module with vjp, jvp, vmap, …
    xp: Any  # the module with sin, arange, …

    def array(self, values: Any) -> Any:
        raise NotImplementedError

    def to_numpy(self, array: Any) -> np.ndarray:
        raise NotImplementedError

    def concatenate(self, parts: list[Any], axis: int) -> Any:
        raise NotImplementedError

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        raise NotImplementedError

    @functools.cache  # noqa: B019 (as above)
    def layer(self, subject: Subject) -> Any:
        return _layer(self.layer_type, subject)

    def function(self, subject: Subject) -> Callable[[Any], Any]:
        """Return θ ↦ the answer, on arrays of the framework."""
        layer, case = self.layer(subject), subject.case

        def answer(theta: Any) -> Any:
            found = case.read(layer, subject.reading, unpack(theta, case.like))
            return pack(found, tuple(theta.shape[:-1]), self.concatenate)

        return answer

    def loss(self, subject: Subject) -> Callable[[Any], Any]:
        """Return θ ↦ a scalar with derivatives of its own that sees every entry differently."""
        answer = self.function(subject)

        def loss(theta: Any) -> Any:
            found = answer(theta)
            places = self.array(1.0 + np.arange(found.shape[-1]))
            return (self.xp.sin(0.7 * found) * places).sum()

        return loss

    def run(self, function: Callable[..., Any], *arrays: np.ndarray) -> Any:
        """Compile where the framework does, call, and return NumPy."""
        return self.to_numpy(self.compile(function)(*map(self.array, arrays)))

    # --- what is compared ------------------------------------------------------------------

    def call(self, subject: Subject, theta: np.ndarray) -> np.ndarray:
        return self.to_numpy(self.function(subject)(self.array(theta)))

    def vjp(self, subject: Subject, theta: np.ndarray, weights: np.ndarray) -> np.ndarray:
        def pull(theta: Any, weights: Any) -> Any:
            return self.func.vjp(self.function(subject), theta)[1](weights)[0]

        return self.run(pull, theta, weights)

    def jvp(self, subject: Subject, theta: np.ndarray, along: np.ndarray) -> np.ndarray:
        def push(theta: Any, along: Any) -> Any:
            return self.func.jvp(self.function(subject), (theta,), (along,))[1]

        return self.run(push, theta, along)

    def jacobians(self, subject: Subject, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the Jacobian by rows and by columns."""
        answer = self.function(subject)
        both = self.compile(
            lambda point: (self.func.jacrev(answer)(point), self.func.jacfwd(answer)(point))
        )
        rows, columns = both(self.array(theta))
        return self.to_numpy(rows), self.to_numpy(columns)

    def mapped_cotangents(
        self, subject: Subject, theta: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        def pull(theta: Any, weights: Any) -> Any:
            return self.func.vmap(self.func.vjp(self.function(subject), theta)[1])(weights)[0]

        return self.run(pull, theta, weights)

    def mapped_tangents(self, subject: Subject, theta: np.ndarray, along: np.ndarray) -> np.ndarray:
        def push(theta: Any, along: Any) -> Any:
            answer = self.function(subject)
            return self.func.vmap(lambda d: self.func.jvp(answer, (theta,), (d,))[1])(along)

        return self.run(push, theta, along)

    def nested_call(self, subject: Subject, theta: np.ndarray) -> np.ndarray:
        return self.run(self.func.vmap(self.func.vmap(self.function(subject))), theta)

    def nested_rows(self, subject: Subject, theta: np.ndarray) -> np.ndarray:
        jacobian = self.func.jacrev(self.function(subject))
        return self.run(self.func.vmap(self.func.vmap(jacobian)), theta)

    def gradient(self, subject: Subject, theta: np.ndarray) -> np.ndarray:
        return self.run(self.func.grad(self.loss(subject)), theta)

    def hessian(self, subject: Subject, theta: np.ndarray, order: str) -> np.ndarray:
        return self.run(self.hessian_function(subject, order), theta)

    def hessian_function(self, subject: Subject, order: str) -> Callable[[Any], Any]:
        modes = {"reverse": self.func.jacrev, "forward": self.func.jacfwd}
        outer, inner = order.split(" of ")
        return modes[outer](modes[inner](self.loss(subject)))

    def mapped_hessians(self, subject: Subject, theta: np.ndarray) -> np.ndarray:
        return self.run(self.func.vmap(self.hessian_function(subject, ORDERS[1])), theta)

    def hessian_product(
        self, subject: Subject, theta: np.ndarray, along: np.ndarray, order: str
    ) -> np.ndarray:
        return self.run(self.product_function(subject, order), theta, along)

    def product_function(self, subject: Subject, order: str) -> Callable[[Any, Any], Any]:
        """Return (θ, d) ↦ the Hessian of the loss times d, in any order but forward of forward."""
        grad, jvp, loss = self.func.grad, self.func.jvp, self.loss(subject)

        def forward_of_reverse(theta: Any, along: Any) -> Any:
            return jvp(grad(loss), (theta,), (along,))[1]

        def reverse_of_reverse(theta: Any, along: Any) -> Any:
            return grad(lambda point: (grad(loss)(point) * along).sum())(theta)

        def reverse_of_forward(theta: Any, along: Any) -> Any:
            return grad(lambda point: jvp(loss, (point,), (along,))[1])(theta)

        found = (reverse_of_reverse, forward_of_reverse, reverse_of_forward)
        return dict(zip(ORDERS, found, strict=False))[order]

    def mapped_products(self, subject: Subject, theta: np.ndarray, along: np.ndarray) -> np.ndarray:
        return self.run(self.func.vmap(self.product_function(subject, ORDERS[1])), theta, along)

    def gradients_with(
        self, subject: Subject, values: list[np.ndarray], weights: np.ndarray
    ) -> list[np.ndarray]:
        """Return the gradient of weights · answer for every value, in the shape it was given."""
        batch = weights.shape[:-1]

        def total(*values: Any) -> Any:
            found = subject.case.read(self.layer(subject), subject.reading, values)
            return (pack(found, batch, self.concatenate) * self.array(weights)).sum()

        gradient = self.compile(self.func.grad(total, tuple(range(len(values)))))
        return [self.to_numpy(part) for part in gradient(*map(self.array, values))]


class TorchFrontend(_Differentiating):
    """PyTorch."""

    name = "torch"

    def __init__(self) -> None:
        self.xp = importlib.import_module("torch")
        self.func = self.xp.func
        self.layer_type = importlib.import_module("cvxlayer.torch").Layer

    def array(self, values: Any) -> Any:
        return self.xp.from_numpy(np.array(values))

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.detach().resolve_conj().numpy()

    def concatenate(self, parts: list[Any], axis: int) -> Any:
        return self.xp.cat(parts, axis)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function


class JaxFrontend(_Differentiating):
    """JAX, which compiles all but plain calls."""

    name = "jax"

    def __init__(self) -> None:
        self.func = importlib.import_module("jax")
        self.xp = importlib.import_module("jax.numpy")
        self.layer_type = importlib.import_module("cvxlayer.jax").Layer

    def array(self, values: Any) -> Any:
        return self.xp.asarray(values)

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.asarray(array)

    def concatenate(self, parts: list[Any], axis: int) -> Any:
        return self.xp.concatenate(parts, axis)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.func.jit(function)


def _layer(layer_type: Any, subject: Subject) -> Any:
    options = {"solver_args": {"eps": EPS}, "on_failure": subject.on_failure}
    return layer_type(subject.case.program, **options)
