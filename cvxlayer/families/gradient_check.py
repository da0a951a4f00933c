# SPDX-License-Identifier: Apache-2.0
"""`check=True`: the derivative along one random direction, held against two other truths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cvxlayer.differentiate.array_ops import Array, ArrayOps, Arrays
from cvxlayer.errors import DerivativeCheckError, OptionError

_SEED = 20_000


def check_gradient(
    ops: ArrayOps,
    function: Callable[..., Any],
    is_exact: bool,
    initial: Any,
    theta: tuple[Any, ...],
) -> None:
    """Hold jvp against vjp and, where derivatives are exact, against finite differences.

    Args:
        ops: the framework.
        function: (initial, *theta) ↦ solution.
        is_exact: whether finite differences have to agree.
        initial: the initial guess.
        theta: the point; the direction is random in all its real arrays at once.

    Raises:
        DerivativeCheckError: they disagree, or are not finite.
        OptionError: values are not at hand, or there is nothing to differentiate.
    """
    leaves, definition = ops.flatten(theta)
    places = [i for i, leaf in enumerate(leaves) if ops.is_array(leaf) and ops.is_real(leaf)]
    point = tuple(ops.constant(leaves[place]) for place in places)
    if not point or not all(ops.is_concrete(array) for array in point):
        raise OptionError(
            "`check=True` needs real arrays in theta with values at hand: call it once outside of "
            "jit and vmap, with the parameters as arguments."
        )

    def value(*arrays: Array) -> Array:
        replaced = [ops.constant(leaf) if ops.is_array(leaf) else leaf for leaf in leaves]
        for place, array in zip(places, arrays, strict=True):
            replaced[place] = array
        solution, _ = ops.flatten(function(initial, *ops.unflatten(definition, replaced)))
        return ops.numpy.concatenate([leaf.reshape(-1) for leaf in solution], 0)

    direction = tuple(ops.random_like(array, _SEED + i) for i, array in enumerate(point))
    out, pull = ops.vjp(value, *point)
    cotangent = ops.random_like(out, _SEED - 1)
    tangent = ops.jvp(value, point, direction)
    forward = _dot(ops, cotangent, tangent)
    backward = sum(
        _dot(ops, bar, along) for bar, along in zip(pull(cotangent), direction, strict=True)
    )
    epsilon = float(ops.numpy.finfo(out.dtype).eps)
    _compare("vjp", backward, forward, 100.0 * epsilon**0.5)
    if is_exact:
        step = epsilon ** (1 / 3)
        ends = [value(*_move(point, direction, sign * step)) for sign in (1.0, -1.0)]
        difference = _dot(ops, cotangent, ends[0] - ends[1]) / (2.0 * step)
        _compare("finite differences", difference, forward, 20.0 * step)


def _move(point: Arrays, direction: Arrays, step: float) -> Arrays:
    return tuple(array + step * along for array, along in zip(point, direction, strict=True))


def _dot(ops: ArrayOps, left: Array, right: Array) -> float:
    return float(np.sum(ops.to_numpy(left).astype(float) * ops.to_numpy(right).astype(float)))


def _compare(name: str, other: float, forward: float, tolerance: float) -> None:
    # Written so that NaN fails.
    if not abs(other - forward) <= tolerance * (1.0 + abs(forward)):
        raise DerivativeCheckError(
            f"Along a random direction the jvp is {forward:.6e}, and by {name} it is {other:.6e}. "
            "Either the function is not smooth at the solution, or it uses arrays in a way that "
            "derivatives do not see, such as detaching them."
        )
