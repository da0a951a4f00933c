# SPDX-License-Identifier: Apache-2.0
"""Every derivative but the plain gradient, as each layer can best be made to give it.

A contender makes it of its layer in the fastest of the ways that work: by transforms, or by a
loop of backward passes. One that has no way gets a dash.
"""

from __future__ import annotations

import abc
import functools
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from cvxpylayers.jax import CvxpyLayer

from tests.benchmarks.contenders import TOLERANCE, CannotError
from tests.benchmarks.layers import (
    CvxpyLayersDiffcp,
    CvxpyLayersMoreau,
    OurLayer,
    ProxsuiteLayer,
    dense_call,
)
from tests.benchmarks.limits import sentence
from tests.benchmarks.targets import is_ours
from tests.benchmarks.workloads import Workload

#: A first call that took as long is not repeated to see what it takes without compilation.
SLOW_SECONDS = 1.0

Function = Callable[..., Any]
"""(values, extra) ↦ a tuple of arrays; what `extra` is depends on the measure."""

MEASURES = ("forward mode", "jacobian", "hessian product", "cotangents", "jit step")
"""extra, and the result:

forward mode: one tangent per parameter ↦ the tangent of the output.
jacobian: nothing, for one instance ↦ d output / d parameter, one array per parameter.
hessian product: one tangent per parameter ↦ the Hessian of ½‖output‖² times them.
cotangents: (K, *output) ↦ their cotangents of each parameter, (K, *parameter).
jit step: a cotangent of the output ↦ the output, then the gradients.
"""


class AbstractTransformed(abc.ABC):
    """A layer, to be differentiated."""

    name: str
    settings: str

    def refuses(self, workload: Workload) -> str | None:
        """Why it cannot do this workload, or None."""
        del workload
        return None

    def variant(self, workload: Workload) -> Workload:
        """The workload in the formulation this layer needs."""
        return workload

    @abc.abstractmethod
    def ways(self, measure: str, workload: Workload) -> list[Function]:
        """What to try, best first; empty if it has no way."""

    @abc.abstractmethod
    def array(self, values: np.ndarray) -> Any:
        """An array of its framework."""

    @abc.abstractmethod
    def finish(self, result: tuple[Any, ...]) -> None:
        """Wait until a result is there."""

    def to_numpy(self, result: tuple[Any, ...]) -> list[np.ndarray]:
        """Return a result as arrays of NumPy."""
        return [np.asarray(part.detach() if torch.is_tensor(part) else part) for part in result]

    def choose(self, measure: str, workload: Workload, *arguments: Any) -> Function:
        """Return the fastest way that gives finite numbers.

        Raises:
            CannotError: there is none; of ours, only if there is nothing to try.
            RuntimeError: not even a loop of plain backward passes gives any.
        """
        reason, found_ways = self.refuses(workload), []
        for way in [] if reason else self.ways(measure, workload):
            try:
                seconds = self._seconds(way, arguments)
            except Exception as error:  # that it cannot is the answer of a peer
                if is_ours(self.name):
                    raise
                reason = sentence(f"{type(error).__name__}: {error}")
                continue
            found_ways.append((seconds, way))
        if not found_ways:
            has_loop = measure in ("jacobian", "cotangents") and not self.refuses(workload)
            raise (RuntimeError if has_loop else CannotError)(reason or "no such derivative")
        return min(found_ways, key=lambda pair: pair[0])[1]

    def _seconds(self, way: Function, arguments: tuple[Any, ...]) -> float:
        """Of the second call, as the first may compile, unless it is slow anyway."""
        start = time.process_time()
        found = self.to_numpy(way(*arguments))
        seconds = time.process_time() - start
        if not all(np.isfinite(part).all() for part in found):
            raise FloatingPointError("not finite")
        if seconds > SLOW_SECONDS:
            return seconds
        start = time.process_time()
        self.finish(way(*arguments))
        return time.process_time() - start


class TorchTransformed(AbstractTransformed):
    """A torch layer; all but ours have backward passes alone."""

    def __init__(self, layer: Any, call_of: Callable[[Workload], Function] | None = None) -> None:
        self._layer = layer
        self._call_of = call_of or (lambda workload: layer.build(workload, 1))
        self.name, self.settings = layer.name, layer.settings

    def refuses(self, workload: Workload) -> str | None:
        return self._layer.refuses(workload)

    def variant(self, workload: Workload) -> Workload:
        return self._layer.variant(workload)

    def array(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))

    def finish(self, result: tuple[Any, ...]) -> None:
        del result

    def ways(self, measure: str, workload: Workload) -> list[Function]:
        call = self._call_of(workload)
        ways = {
            "forward mode": [_tangent],
            "jacobian": [_jacobian_by_map, _jacobian_by_batch, _jacobian_by_loop],
            "hessian product": [_product_by_jvp, _product_by_backward],
            "cotangents": [_cotangents_by_map, _cotangents_by_loop],
            "jit step": [],
        }
        return [functools.partial(way, call) for way in ways[measure]]


def _tangent(call: Function, values: Any, tangents: Any) -> tuple[torch.Tensor, ...]:
    return (torch.func.jvp(lambda *v: call(v), tuple(values), tuple(tangents))[1],)


def _leaves(values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return tuple(value.detach().requires_grad_() for value in values)


def _jacobian_by_map(call: Function, values: Any, _: Any) -> tuple[torch.Tensor, ...]:
    every = tuple(range(len(values)))
    return torch.func.jacrev(lambda *v: call(v), every)(*values)


def _jacobian_by_batch(call: Function, values: Any, _: Any) -> tuple[torch.Tensor, ...]:
    inputs = _leaves(values)
    output = call(inputs)
    units = torch.eye(output.numel(), dtype=output.dtype).reshape(-1, *output.shape)
    rows = torch.autograd.grad(output, inputs, units, is_grads_batched=True)
    return tuple(part.reshape(*output.shape, *part.shape[1:]) for part in rows)


def _jacobian_by_loop(call: Function, values: Any, _: Any) -> tuple[torch.Tensor, ...]:
    inputs = _leaves(values)
    output = call(inputs)
    rows = [
        torch.autograd.grad(entry, inputs, retain_graph=True, materialize_grads=True)
        for entry in output.reshape(-1)
    ]
    return tuple(
        torch.stack(parts).reshape(*output.shape, *value.shape)
        for parts, value in zip(zip(*rows, strict=True), inputs, strict=True)
    )


def _loss(call: Function) -> Function:
    return lambda *values: 0.5 * (call(values) ** 2).sum()


def _product_by_jvp(call: Function, values: Any, tangents: Any) -> tuple[torch.Tensor, ...]:
    gradient = torch.func.grad(_loss(call), tuple(range(len(values))))
    return torch.func.jvp(gradient, tuple(values), tuple(tangents))[1]


def _product_by_backward(call: Function, values: Any, tangents: Any) -> tuple[torch.Tensor, ...]:
    inputs = _leaves(values)
    gradients = torch.autograd.grad(_loss(call)(*inputs), inputs, create_graph=True)
    along = sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True))
    return torch.autograd.grad(along, inputs, materialize_grads=True)


def _cotangents_by_map(call: Function, values: Any, weights: Any) -> tuple[torch.Tensor, ...]:
    _, pull_back = torch.func.vjp(lambda *v: call(v), *values)
    return torch.func.vmap(pull_back)(weights)


def _cotangents_by_loop(call: Function, values: Any, weights: Any) -> tuple[torch.Tensor, ...]:
    inputs = _leaves(values)
    output = call(inputs)
    rows = [torch.autograd.grad(output, inputs, one, retain_graph=True) for one in weights]
    return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))


class JaxTransformed(AbstractTransformed):
    """A JAX layer, compiled where it can be."""

    def __init__(self, name: str, settings: str, build: Callable[[Workload], Function]) -> None:
        self.name, self.settings, self._build = name, settings, build

    def array(self, values: np.ndarray) -> jax.Array:
        return jnp.asarray(values)

    def finish(self, result: tuple[Any, ...]) -> None:
        jax.block_until_ready(result)

    def ways(self, measure: str, workload: Workload) -> list[Function]:
        call = self._build(workload)

        def loss(values: Any) -> Any:
            return 0.5 * jnp.sum(call(values) ** 2)

        def step(values: Any, weights: Any) -> Any:
            output, pull_back = jax.vjp(call, values)
            return (output, *pull_back(weights)[0])

        functions: dict[str, Function] = {
            "forward mode": lambda v, t: (jax.jvp(call, (v,), (t,))[1],),
            "jacobian": lambda v, _: tuple(jax.jacrev(call)(v)),
            "hessian product": lambda v, t: tuple(jax.jvp(jax.grad(loss), (v,), (t,))[1]),
            "cotangents": lambda v, w: tuple(jax.vmap(jax.vjp(call, v)[1])(w)[0]),
            "jit step": step,
        }
        compiled = jax.jit(functions[measure])
        loops = {"jacobian": _rows_one_by_one, "cotangents": _pulls_one_by_one}
        if measure not in loops:
            return [compiled]
        function = functools.partial(loops[measure], call)
        return [compiled, jax.jit(functools.partial(function, jax.lax.map)),
                functools.partial(function, _python_loop)]  # fmt: skip


def _python_loop(function: Function, rows: Any) -> Any:
    found = [function(row) for row in rows]
    return tuple(jnp.stack(parts) for parts in zip(*found, strict=True))


def _pulls_one_by_one(call: Function, loop: Function, values: Any, weights: Any) -> Any:
    pull_back = jax.vjp(call, values)[1]
    return tuple(loop(lambda one: pull_back(one)[0], weights))


def _rows_one_by_one(call: Function, loop: Function, values: Any, _: Any) -> Any:
    output, pull_back = jax.vjp(call, values)
    units = jnp.eye(output.size).reshape(output.size, *output.shape)
    rows = loop(lambda one: pull_back(one)[0], units)
    return tuple(part.reshape(*output.shape, *part.shape[1:]) for part in rows)


def _our_jax_layer(workload: Workload) -> Function:
    from cvxlayer.jax import Layer

    layer = Layer(*workload.build(), gp=workload.gp, solver_args={"eps": TOLERANCE, "threads": 1})
    return lambda values: layer(*values)[0]


class JaxPeer(JaxTransformed):
    """cvxpylayers for JAX, in the formulation of one of its torch layers."""

    def __init__(self, peer: Any) -> None:
        def build(workload: Workload) -> Function:
            layer = peer.layer(workload, 1, CvxpyLayer)
            return lambda values: layer(*values)[0]

        name = peer.name.replace("cvxpylayers", "cvxpylayers jax")
        super().__init__(name, peer.settings, build)
        self._peer = peer

    def variant(self, workload: Workload) -> Workload:
        return self._peer.variant(workload)


def _dense(layer: Any) -> TorchTransformed:
    def call_of(workload: Workload) -> Function:
        values = workload.sample(np.random.default_rng(0), 1)
        return dense_call(layer.solver(), workload, values)

    return TorchTransformed(layer, call_of)


def transformed_contenders() -> list[AbstractTransformed]:
    """Ours in both frameworks first, then everyone's."""
    peers = [CvxpyLayersMoreau("auto"), CvxpyLayersDiffcp("dense")]
    contenders: list[AbstractTransformed] = [
        TorchTransformed(OurLayer()),
        JaxTransformed("cvxlayer jax", OurLayer.settings, _our_jax_layer),
        *(TorchTransformed(peer) for peer in peers),
        _dense(ProxsuiteLayer()),
    ]
    if importlib.util.find_spec("qpth") is not None:
        from tests.benchmarks.qpth_layer import QpthLayer

        contenders.append(_dense(QpthLayer()))
    return [*contenders, *map(JaxPeer, peers)]
