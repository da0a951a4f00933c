# SPDX-License-Identifier: Apache-2.0
"""Derivatives that only pull gradients back: `LPGD(…)` and "least_squares", through Python.

The differential of the solve is a primitive without values: all that can be done with it is to
transpose it, which calls the engine of the derivative back from compiled code.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from cvxlayer.compiler import CompiledProgram
from cvxlayer.errors import UnsupportedDerivativeError
from cvxlayer.jax.handlers import batch_by_rows, bind
from cvxlayer.notices import warn_not_unique
from cvxlayer.program.cone_derivative import ConeDerivative
from cvxlayer.program.parametric import AffineAdjoint
from cvxlayer.program.solution import ConeSolution

Arrays = Sequence[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class ReverseRule:
    """What pulls cotangents of (x, y) back to θ, on the host.

    Attributes:
        program: what was solved.
        derivative: the engine.
        refusal: what to say where another derivative is asked for.
        threads: threads over the batch.
    """

    program: CompiledProgram
    derivative: ConeDerivative
    refusal: str
    threads: int

    def pull_back(self, targets: Sequence[int], theta: Arrays, *rest: Any) -> list[np.ndarray]:
        """Return the cotangents of the parts of θ.

        Args:
            targets: the number of rows each is to have: one where all instances share the part.
            theta: the parts, with one row or one for each instance; before the rows there may
                be dimensions of `jax.vmap`, here and below.
            rest: x, y, s, status, is_active, x̄ and ȳ, a row for each instance.
        """
        # JAX's own arrays, of which not even views may be written to.
        theta = [np.asarray(part) for part in theta]
        x, y, s, status, is_active, x_bar, y_bar = map(np.array, rest)
        lead, rows = x.shape[:-2], x.shape[-2]
        count = int(np.prod(lead, dtype=int)) * rows
        is_folded = lead != ()
        values = [
            _wide(part)
            if target == part.shape[-2] == 1 and not is_folded
            else _fold(np.broadcast_to(part, (*lead, rows, part.shape[-1])))
            for part, target in zip(theta, targets, strict=True)
        ]
        none, nothing = np.zeros(count, np.int64), np.zeros(count)
        cone = ConeSolution(
            x=_fold(x),
            y=_fold(y),
            s=_fold(s),
            status=status.reshape(count),
            iterations=none,
            primal_residual=nothing,
            dual_residual=nothing,
            gap=nothing,
            solved_by=none,
            is_active=is_active.reshape(count, -1),
            solve_seconds=0.0,
        )
        bars = self._pull_back(values, cone, _fold(x_bar), _fold(y_bar))
        return [
            _unfold(bar, lead, rows, target).astype(part.dtype)
            for bar, target, part in zip(bars, targets, theta, strict=True)
        ]

    def _pull_back(
        self, values: Sequence[np.ndarray], cone: ConeSolution, x_bar: Any, y_bar: Any
    ) -> Sequence[np.ndarray]:
        program, needs = self.program.program, [True] * len(values)
        cotangent = self.derivative.vjp(
            self.program.prepare(self.derivative),
            program.evaluate(values, len(cone.x), self.threads),
            cone,
            x_bar,
            y_bar,
            None,
            needs=program.needs(needs),
            threads=self.threads,
        )
        warn_not_unique(cotangent.residual, (len(cone.x),))
        adjoint = AffineAdjoint(values, needs, self.threads)
        program.add_adjoint_to(adjoint, cotangent)
        return [bar for bar in adjoint.total() if bar is not None]


# Compiled code may be run at any later time, so what is registered is never dropped.
_rules: dict[int, ReverseRule] = {}
_numbers = itertools.count(1)


def register_rule(rule: ReverseRule) -> int:
    """Return the number by which `differential` finds a rule."""
    number = next(_numbers)
    _rules[number] = rule
    return number


def differential(number: int, dtheta: Arrays, theta: Arrays, point: Arrays) -> tuple[Any, Any]:
    """Return (dx, dy), which can be transposed and nothing else.

    Args:
        number: of the rule.
        dtheta: tangents of the parts of θ.
        theta: the parts.
        point: exact x, y and s, status and is_active of the solve.
    """
    tangents = map(ad.instantiate_zeros, dtheta)
    parts = tuple(range(2 * len(theta)))
    dx, dy = bind(_differential, *tangents, *theta, *point, number=number, parts=parts)
    return dx, dy


_differential = Primitive("cvxlayer_reverse")
_differential.multiple_results = True


def _shapes(*operands: Any, number: int, parts: tuple[int, ...]) -> list[Any]:
    structure, real = _rules[number].program.program.structure, operands[0].dtype
    rows = operands[len(parts)].shape[0]
    sizes = (structure.num_variables, structure.num_rows)
    return [ShapedArray((rows, size), real) for size in sizes]


def _refuse(*_: Any, number: int, **__: Any) -> Any:
    raise UnsupportedDerivativeError(_rules[number].refusal)


def _transpose(cotangents: Arrays, *operands: Any, number: int, parts: tuple[int, ...]) -> Any:
    count = len(parts) // 2
    bars = [ad.instantiate_zeros(bar) for bar in cotangents]
    targets = tuple(operand.aval.shape[0] for operand in operands[:count])
    found = _call_back(
        number, targets, tuple(operands[count : 2 * count]), *operands[2 * count :], *bars
    )
    return [*found, *[None] * (len(operands) - count)]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _call_back(number: int, targets: tuple[int, ...], theta: Arrays, *rest: Any) -> Any:
    shapes = [
        jax.ShapeDtypeStruct((target, part.shape[1]), part.dtype)
        for target, part in zip(targets, theta, strict=True)
    ]
    pull_back = functools.partial(_rules[number].pull_back, targets)
    return jax.pure_callback(pull_back, shapes, theta, *rest, vmap_method="broadcast_all")


@_call_back.defjvp
def _jvp_of_call_back(number: int, targets: Any, primals: Any, tangents: Any) -> Any:
    raise UnsupportedDerivativeError(_rules[number].refusal)


def _jvp_of_differential(primals: Arrays, tangents: Arrays, **params: Any) -> Any:
    return _refuse(**params)


_differential.def_abstract_eval(_shapes)
_differential.def_impl(_refuse)
mlir.register_lowering(_differential, lambda context, *_, **params: _refuse(**params))
ad.primitive_jvps[_differential] = _jvp_of_differential
ad.primitive_transposes[_differential] = _transpose
batching.primitive_batchers[_differential] = functools.partial(batch_by_rows, _differential)


def _wide(array: Any) -> np.ndarray:
    """Return doubles, also from the pairs of uint32 that they travel as; see `exact_shape`."""
    array = np.ascontiguousarray(array)
    if array.dtype == np.uint32:
        return array.view(np.float64)
    return array.astype(np.float64, copy=False)


def _fold(array: Any) -> np.ndarray:
    """Return one row for each instance of every dimension before the rows."""
    array = np.asarray(array)
    return _wide(array.reshape(-1, array.shape[-1]))


def _unfold(bar: np.ndarray, lead: tuple[int, ...], rows: int, target: int) -> np.ndarray:
    """Undo `_fold`, summed over the rows where they shared a part."""
    if bar.shape[0] == 1 and lead == ():
        return bar
    bar = bar.reshape(*lead, rows, bar.shape[-1])
    return bar.sum(-2, keepdims=True) if target == 1 != rows else bar
