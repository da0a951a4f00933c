# SPDX-License-Identifier: Apache-2.0
"""The cone primitives as functions that every transform of PyTorch understands.

Each has a backward rule, a forward rule and a rule for `vmap`. The first two are those of
`differentiate/cone_rules.py`; the last folds the mapped dimension into the rows of the batch, or,
where only right-hand sides are mapped, into right-hand sides of the same factorization.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd import Function
from torch.autograd.forward_ad import (
    _set_fwd_grad_enabled,  # pyright: ignore[reportPrivateUsage]
    unpack_dual,
)

from cvxlayer.cone_calls import ConeCalls
from cvxlayer.differentiate.cone_pattern import ConePattern
from cvxlayer.differentiate.cone_rules import ConeData, ConeRules, Point, Solved, Statistics
from cvxlayer.errors import UnsupportedDerivativeError
from cvxlayer.torch.batched_grads import apply_rule, is_batched
from cvxlayer.torch.folding import fold, fold_rows
from cvxlayer.torch.trace_ops import TorchOps

Tensors = tuple[torch.Tensor | None, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class TorchPrimitives:
    """The primitives of one call.

    Attributes:
        calls: the engine.
        pattern: where the entries of P and A are.
        ops: the functions that the rules are written over.
    """

    calls: ConeCalls
    pattern: ConePattern
    ops: TorchOps

    @property
    def rules(self) -> ConeRules:
        """The derivatives of the primitives, written with the primitives."""
        return ConeRules(self.pattern, self.ops, self)

    def solve(self, problem: ConeData) -> Solved:
        """Solve one instance for each row of the problem."""
        found = _Solve.apply(self, *problem)
        return Solved(*found[:5], statistics=Statistics(*found[5:]))

    def value(self, problem: ConeData, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return ½xᵀPx + qᵀx with the derivative of the envelope theorem."""
        return _Value.apply(self, *problem, x, y)

    def refine(self, problem: ConeData, solved: Solved) -> Point:
        """Return where each solution is differentiated."""
        return Point(*_Refine.apply(self, *problem, *solved[:5]))

    def kkt_apply(
        self,
        problem: ConeData,
        point: Point,
        gx: torch.Tensor | None,
        gy: torch.Tensor | None,
        gs: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (λ, ν) for R right-hand sides of each row."""
        return _KktApply.apply(self, *problem, *point, gx, gy, gs)

    def curvature(
        self, problem: ConeData, point: Point, p: torch.Tensor, p2: torch.Tensor
    ) -> torch.Tensor:
        """Return D²Π(v)[p, p′]."""
        guarded = point._replace(v=_NoDerivative.apply(point.v))
        return _Curvature.apply(self, *problem, *guarded, p, p2)


class _Solve(Function):
    """(P, q, A, b) ↦ (x, y, s) and what is known of each row."""

    @staticmethod
    def forward(engine: TorchPrimitives, *problem: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if is_batched(problem):
            return apply_rule(_Solve, engine, problem)
        solved = engine.calls.solve(ConeData(*map(_to_numpy, problem)))
        assert solved.statistics is not None
        # Solutions that are already known are the caller's own: not to be shared.
        arrays = [np.array(part) for part in (*solved[:5], *solved.statistics)]
        return tuple(_to_tensor(array, problem[0]) for array in arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.engine = inputs[0]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[3:])
        _save(ctx, *inputs[1:], *output[:5])

    @staticmethod
    def backward(ctx: Any, *bars: torch.Tensor | None) -> Tensors:
        saved = ctx.saved_tensors
        if all(bar is None for bar in bars[:3]):
            return (None,) * 5
        needs = ctx.needs_input_grad[1:]
        problem, solved = ConeData(*saved[:4]), Solved(*saved[4:9])
        return (None, *ctx.engine.rules.solve_vjp(problem, solved, *bars[:3], needs))

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> Tensors:
        with _outer_levels():
            saved = _primals(ctx)
            problem, solved = ConeData(*saved[:4]), Solved(*saved[4:9])
            change = ctx.engine.rules.solve_jvp(problem, solved, ConeData(*tangents[1:]))
        return (*change, *(None,) * 7)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return fold_rows(_Solve, info, in_dims, args[0], args[1:])


class _Value(Function):
    """(P, q, A, b, x, y) ↦ ½xᵀPx + qᵀx at a solution; constant in x and y to first order."""

    @staticmethod
    def forward(engine: TorchPrimitives, *tensors: Any) -> torch.Tensor:
        if is_batched(tensors):
            return apply_rule(_Value, engine, tensors)
        return engine.rules.value(ConeData(*tensors[:4]), tensors[4])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        del output
        ctx.engine = inputs[0]
        _save(ctx, *inputs[1:])

    @staticmethod
    def backward(ctx: Any, *bars: torch.Tensor) -> Tensors:
        *problem, x, y = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:5]
        bar = ctx.engine.rules.value_vjp(ConeData(*problem), x, y, bars[0], needs)
        return (None, *bar, None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> torch.Tensor:
        with _outer_levels():
            *_, x, y = _primals(ctx)
            return ctx.engine.rules.value_jvp(x, y, ConeData(*tangents[1:5]))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return fold_rows(_Value, info, in_dims, args[0], args[1:])


class _Refine(Function):
    """(P, q, A, b), (x, y, s) ↦ the point; differentiated as (x, y, s) ↦ (x, y, y/ω − ωs)."""

    @staticmethod
    def forward(engine: TorchPrimitives, *tensors: Any) -> tuple[torch.Tensor, ...]:
        if is_batched(tensors):
            return apply_rule(_Refine, engine, tensors)
        arrays: list[Any] = [_to_numpy(tensor) for tensor in tensors]
        point = engine.calls.refine(ConeData(*arrays[:4]), Solved(*arrays[4:9]))
        return tuple(_to_tensor(array, tensors[0]) for array in point)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        del inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[3:])
        _save(ctx, output[3])

    @staticmethod
    def backward(ctx: Any, *bars: torch.Tensor | None) -> Tensors:
        (balance,), (x_bar, y_bar, v_bar) = ctx.saved_tensors, bars[:3]
        s_bar = None
        if v_bar is not None:
            y_bar = v_bar / balance if y_bar is None else y_bar + v_bar / balance
            s_bar = -v_bar * balance
        return (*(None,) * 5, x_bar, y_bar, s_bar, None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> Tensors:
        dx, dy, ds = tangents[5:8]
        with _outer_levels():
            (balance,) = _primals(ctx)
            dv = None if dy is None else dy / balance
            if ds is not None:
                dv = -ds * balance if dv is None else dv - ds * balance
            # A tangent that is an input has to be another tensor.
            dx, dy = (None if part is None else 1.0 * part for part in (dx, dy))
        return dx, dy, dv, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return fold_rows(_Refine, info, in_dims, args[0], args[1:])


class _KktApply(Function):
    """(P, q, A, b), point, (gx, gy, gs) ↦ (λ, ν); depends on P, A, v and the right-hand sides."""

    @staticmethod
    def forward(engine: TorchPrimitives, *tensors: Any) -> tuple[torch.Tensor, ...]:
        if is_batched(tensors):
            return apply_rule(_KktApply, engine, tensors)
        arrays = [None if tensor is None else _to_numpy(tensor) for tensor in tensors]
        problem, point, right = ConeData(*arrays[:4]), Point(*arrays[4:10]), arrays[10:]
        lam, nu = engine.calls.kkt_apply(problem, point, *right)
        return _to_tensor(lam, tensors[0]), _to_tensor(nu, tensors[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.engine = inputs[0]
        ctx.set_materialize_grads(False)
        _save(ctx, *inputs[1:], *output)

    @staticmethod
    def _unpack(saved: Sequence[Any]) -> tuple[Any, ...]:
        return ConeData(*saved[:4]), Point(*saved[4:10]), saved[10:13], saved[13:]

    @staticmethod
    def backward(ctx: Any, *bars: torch.Tensor | None) -> Tensors:
        if all(bar is None for bar in bars):
            return (None,) * 14
        needs = ctx.needs_input_grad
        at = _KktApply._unpack(ctx.saved_tensors)
        problem_bar, v_bar, right_bar = ctx.engine.rules.kkt_vjp(
            *at, *bars, needs=(needs[1], needs[3], needs[7])
        )
        right_bar = (
            bar if needed else None for bar, needed in zip(right_bar, needs[11:], strict=True)
        )
        return (None, *problem_bar, None, None, v_bar, None, None, None, *right_bar)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> Tensors:
        d_problem, dv, d_right = ConeData(*tangents[1:5]), tangents[7], tangents[11:]
        with _outer_levels():
            at = _KktApply._unpack(_primals(ctx))
            return ctx.engine.rules.kkt_jvp(*at, d_problem, dv, d_right)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return fold(_KktApply, info, in_dims, args[0], args[1:])


class _Curvature(Function):
    """(P, q, A, b), point, (p, p′) ↦ D²Π(v)[p, p′]; its derivative in v is refused."""

    @staticmethod
    def forward(engine: TorchPrimitives, *tensors: Any) -> torch.Tensor:
        if is_batched(tensors):
            return apply_rule(_Curvature, engine, tensors)
        arrays = [_to_numpy(tensor) for tensor in tensors]
        bent = engine.calls.curvature(ConeData(*arrays[:4]), Point(*arrays[4:10]), *arrays[10:])
        return _to_tensor(bent, tensors[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        del output
        ctx.engine = inputs[0]
        _save(ctx, *inputs[1:])

    @staticmethod
    def backward(ctx: Any, *bars: torch.Tensor) -> Tensors:
        saved = ctx.saved_tensors
        problem, point = ConeData(*saved[:4]), Point(*saved[4:10])
        right_bar = ctx.engine.rules.curvature_vjp(problem, point, *saved[10:], bars[0])
        # Whoever asks for the cotangent of v meets `_NoDerivative`.
        return (*(None,) * 7, torch.zeros_like(point.v), *(None,) * 3, *right_bar)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> torch.Tensor:
        with _outer_levels():
            saved = _primals(ctx)
            problem, point = ConeData(*saved[:4]), Point(*saved[4:10])
            return ctx.engine.rules.curvature_jvp(problem, point, *saved[10:], *tangents[11:])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return fold(_Curvature, info, in_dims, args[0], args[1:])


class _NoDerivative(Function):
    """The identity, whose derivative is refused: only there would the third derivative of Π be."""

    generate_vmap_rule = True

    @staticmethod
    def forward(v: torch.Tensor) -> torch.Tensor:
        return v.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Keep nothing: there is no derivative to compute."""

    @staticmethod
    def backward(ctx: Any, *bars: torch.Tensor) -> None:
        raise _third_order()

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> None:
        raise _third_order()


def _third_order() -> UnsupportedDerivativeError:
    return UnsupportedDerivativeError(
        "A second derivative of a layer was differentiated again. Its problem has a curved cone "
        "(second-order, semidefinite, exponential or power), or its derivative is smoothed; there "
        "are derivatives of first and second order only. Detach the second derivative, or leave "
        "out `create_graph`."
    )


def _save(context: Any, *tensors: torch.Tensor | None) -> None:
    context.save_for_backward(*tensors)
    context.save_for_forward(*tensors)


def _outer_levels() -> Any:
    """Let a forward rule be differentiated by the forward modes around its own.

    PyTorch switches forward mode off inside of `jvp`: plain operations would have no tangents
    at outer levels, and a second derivative would silently lack terms.
    """
    return _set_fwd_grad_enabled(True)


def _primals(context: Any) -> list[Any]:
    """Return what was saved, without the tangents of the level whose rule is at work."""
    return [
        unpack_dual(tensor).primal if tensor is not None and tensor.is_floating_point() else tensor
        for tensor in context.saved_tensors
    ]


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy(force=True)


def _to_tensor(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(array).to(like.device)
