# SPDX-License-Identifier: Apache-2.0
"""The layer for compilers (`torch.compile`, `torch.export`): one custom operator, no graph break.

A compiler cannot look into the core, so it is told the shapes of what comes out and which other
operator is the derivative. Operators take tensors, numbers and strings only: a layer is known by
its evaluator's number, the settings of a call are written out.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cvxlayer.errors import UnsupportedDerivativeError
from cvxlayer.evaluation import Evaluation, Evaluator, find_evaluator
from cvxlayer.program.solution import ConeSolution
from cvxlayer.torch.conversion import (
    as_tensors,
    machine_epsilon,
    result_dtype,
    to_gradient,
    to_numpy,
    to_tensors,
)

# What the derivative needs of a solution: x, y, s, status, is_active.
_NUM_KEPT = 5


def can_call(solver_args: Mapping[str, Any] | None) -> bool:
    """Tell whether the operator can take the settings of a call."""
    values = (solver_args or {}).values()
    return all(value is None or isinstance(value, bool | int | float | str) for value in values)


def call(
    evaluator: Evaluator, values: Sequence[Any], solver_args: Mapping[str, Any] | None
) -> tuple[torch.Tensor, ...]:
    """Return the outputs of a layer, inside of a function that is being compiled."""
    tensors, dtype = as_tensors(evaluator, values)
    # The compiler can follow this, but not the json module.
    pairs = ", ".join([f"{name!r}: {value!r}" for name, value in (solver_args or {}).items()])
    results = torch.ops.cvxlayer.solve(tensors, evaluator.number, f"{{{pairs}}}", dtype)
    return tuple(results[:-_NUM_KEPT])


@torch.library.custom_op(
    "cvxlayer::solve",
    mutates_args=(),
    schema="(Tensor[] values, int layer, str solver_args, ScalarType dtype) -> Tensor[]",
)
def _solve(values: Any, layer: Any, solver_args: Any, dtype: Any) -> Any:
    evaluator = find_evaluator(layer)
    arrays = [to_numpy(value) for value in values]
    epsilons = [machine_epsilon(value) for value in values]
    evaluation = evaluator.evaluate(arrays, epsilons, ast.literal_eval(solver_args))
    if evaluator.must_raise(evaluation):
        raise evaluation.failure(None)
    cone = evaluation.solution.cone
    codes = (np.array(code, dtype=np.int8) for code in (cone.status, cone.is_active))
    kept = [torch.from_numpy(array) for array in (cone.x, cone.y, cone.s, *codes)]
    return [*to_tensors(evaluation.read_outputs(), dtype, values), *kept]


@_solve.register_fake
def _(values: Any, layer: Any, solver_args: Any, dtype: Any) -> Any:
    del solver_args
    evaluator = find_evaluator(layer)
    shapes = (
        value.shape[: value.ndim - len(rule.spec.shape)]
        for rule, value in zip(evaluator.rules, values, strict=True)
    )
    batch_shape = torch.broadcast_shapes(*shapes)
    device = values[0].device if values else torch.get_default_device()
    outputs = [
        torch.empty(
            (*batch_shape, *spec.shape),
            dtype=result_dtype(spec.is_complex, dtype),
            device=device,
        )
        for spec in evaluator.program.outputs
    ]
    rows, structure = math.prod(batch_shape), evaluator.program.program.structure
    n, m = structure.num_variables, structure.num_rows
    kept = [torch.empty((rows, size), dtype=torch.float64, device="cpu") for size in (n, m, m)]
    kept.append(torch.empty((rows,), dtype=torch.int8, device="cpu"))
    kept.append(torch.empty((rows, m), dtype=torch.int8, device="cpu"))
    return [*outputs, *kept]


@torch.library.custom_op(
    "cvxlayer::pull_back",
    mutates_args=(),
    schema="(Tensor[] values, Tensor[] kept, Tensor?[] cotangents, bool[] needs, int layer,"
    " str solver_args) -> Tensor[]",
)
def _pull_back(
    values: Any, kept: Any, cotangents: Any, needs: Any, layer: Any, solver_args: Any
) -> Any:
    settings = ast.literal_eval(solver_args)
    evaluation = _restored(find_evaluator(layer), values, kept, settings)
    bars = [None if bar is None else to_numpy(bar) for bar in cotangents]
    found = evaluation.pull_back_outputs(bars, needs)
    return [
        to_gradient(gradient, value)
        for gradient, value in zip(found, values, strict=True)
        if gradient is not None
    ]


@_pull_back.register_fake
def _(values: Any, kept: Any, cotangents: Any, needs: Any, layer: Any, solver_args: Any) -> Any:
    del kept, cotangents, layer, solver_args
    # New memory, dense whatever the strides of the values.
    return [
        torch.empty(value.shape, dtype=value.dtype, device=value.device)
        for value in itertools.compress(values, needs)
    ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    values, ctx.layer, ctx.solver_args, _ = inputs
    kept = output[-_NUM_KEPT:]
    ctx.mark_non_differentiable(*kept)
    ctx.save_for_backward(*values, *kept)


def _backward(ctx: Any, bars: Sequence[torch.Tensor | None]) -> tuple[Any, ...]:
    values, kept = ctx.saved_tensors[:-_NUM_KEPT], ctx.saved_tensors[-_NUM_KEPT:]
    needs = [value.requires_grad for value in values]
    cotangents = list(bars[:-_NUM_KEPT])
    found = iter(
        torch.ops.cvxlayer.pull_back(values, kept, cotangents, needs, ctx.layer, ctx.solver_args)
    )
    return [next(found) if need else None for need in needs], None, None, None


_solve.register_autograd(_backward, setup_context=_setup_context)


def _restored(
    evaluator: Evaluator,
    values: Sequence[torch.Tensor],
    kept: Sequence[torch.Tensor],
    solver_args: Mapping[str, Any],
) -> Evaluation:
    """Return the evaluation whose solutions were kept."""
    x, y, s, status, is_active = (part.numpy(force=True) for part in kept)
    zero, none = np.zeros(len(x)), np.zeros(len(x), np.int64)
    cone = ConeSolution(x, y, s, status, none, zero, zero, zero, none, is_active, 0.0)
    if evaluator.options.backend.derivative(evaluator.options.settings) is not None:
        raise UnsupportedDerivativeError(
            "The solver's own derivative is not available inside of compiled functions. Leave "
            "out `mode`, or call the layer outside."
        )
    epsilons = [machine_epsilon(value) for value in values]
    arrays = [to_numpy(value) for value in values]
    return evaluator.evaluate(arrays, epsilons, solver_args, known=cone)
