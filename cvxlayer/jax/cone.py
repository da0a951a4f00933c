# SPDX-License-Identifier: Apache-2.0
"""Cone programs as primitives: the solve, and what its derivatives of every order are made of.

`solve` maps θ to (x, y). Its derivative is one linear solve, `apply`, at the point that `refine`
polishes. `apply` is symmetric, so it serves forward and reverse mode; and its own derivative is
another `apply` with `curvature`, the second derivative of the projection onto the cone. The
formulas are those of docs/derivations/derivative.md.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad, batching

from cvxlayer.errors import UnsupportedDerivativeError
from cvxlayer.jax.handlers import (
    Shape,
    batch_by_rows,
    bind,
    count_rows,
    define,
    exact_shape,
    is_zero,
    zero_like,
)
from cvxlayer.jax.maps import multiply
from cvxlayer.jax.reverse import differential
from cvxlayer.program.registered import RegisteredProgram

Arrays = Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Method:
    """How a batch is solved: what handlers need to know beside the numbers.

    Attributes:
        program: what is solved.
        threads: threads over the batch.
        route: how Python finishes what the core's first pass cannot; see `register_route`.
        raises: whether a failed row fails the whole call.
        is_native: whether the core solves, rather than the route alone.
        eps_abs, eps_rel: tolerances.
        max_iterations: limit of one row; 0 for the default.
        width: number of SIMD lanes; 0 chooses.
        polish: whether solutions take a Newton step.
        is_verbose: whether each call is logged.
        mu: of the central path that is differentiated; 0 for the solutions themselves.
        reverse: number of the rule where gradients are pulled back in Python, else 0; see
            `reverse`.
    """

    program: RegisteredProgram
    threads: int
    route: int
    raises: bool
    is_native: bool
    eps_abs: float
    eps_rel: float
    max_iterations: int
    width: int
    polish: bool
    is_verbose: bool
    mu: float
    reverse: int


@dataclasses.dataclass(frozen=True)
class ConePoint:
    """Solutions as `solve` returns them, (batch, …); derivatives flow through x and y.

    Attributes:
        x, y: primal and dual.
        exact_x, exact_y, exact_s: these and the slack as exact numbers; see `exact_shape`.
        status: `Status` codes.
        iterations: iterations of each row.
        primal_residual, dual_residual, gap: (batch, 1).
        solved_by: `SolvedBy` codes.
        is_active: the classification of rows; see `ConeSolution`.
        seconds: wall time of the whole batch, (batch, 1).
    """

    x: Any
    y: Any
    exact_x: Any
    exact_y: Any
    exact_s: Any
    status: Any
    iterations: Any
    primal_residual: Any
    dual_residual: Any
    gap: Any
    solved_by: Any
    is_active: Any
    seconds: Any


def solve(
    method: Method, theta: Arrays, dtype: Any, start: tuple[Any, Any, Any] | None = None
) -> ConePoint:
    """Solve a batch.

    Args:
        method: how.
        theta: the parts of θ.
        dtype: of x and y, float32 or float64.
        start: (x, y, whether usable) to start from, one row for each instance.
    """
    params = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    stopped = () if start is None else tuple(map(jax.lax.stop_gradient, start))
    results = bind(
        _solve,
        *theta,
        *stopped,
        parts=tuple(range(len(theta))),
        starts=int(start is not None),
        is_wide=int(np.dtype(dtype) == np.float64),
        **params,
    )
    return ConePoint(*results)


def _solve_shapes(
    *operands: Any, program: RegisteredProgram, is_wide: int, **_: Any
) -> list[Shape]:
    structure = program.program.structure
    n, m, rows = structure.num_variables, structure.num_rows, count_rows(operands)
    real = np.float64 if is_wide else np.float32
    exact = [exact_shape(rows, length, real) for length in (n, m, m)]
    column: Shape = ((rows, 1), real)
    status: list[Shape] = [((rows,), np.int8), ((rows,), np.int32)]
    ending: list[Shape] = [((rows,), np.int8), ((rows, m), np.int8)]
    points: list[Shape] = [((rows, n), real), ((rows, m), real)]
    return [*points, *exact, *status, column, column, column, *ending, column]


_solve = define("solve", _solve_shapes)


def _jvp_of_solve(primals: Arrays, tangents: Arrays, **params: Any) -> tuple[Any, Any]:
    results = bind(_solve, *primals, **params)
    count = len(params["parts"])
    theta, dtheta = primals[:count], tangents[:count]
    point = ConePoint(*results)
    found = (point.exact_x, point.exact_y, point.exact_s, point.status, point.is_active)
    if params["reverse"]:
        dx, dy = differential(params["reverse"], dtheta, theta, found)
        return results, [dx, dy, *map(zero_like, results[2:])]
    place = _refine(
        theta,
        found,
        params["program"],
        params["threads"],
        params["mu"],
    )
    dx, dy, _ = _sensitivity(place, theta, dtheta, needs_v=False)
    return results, [dx, dy, *map(zero_like, results[2:])]


ad.primitive_jvps[_solve] = _jvp_of_solve


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where solutions are differentiated; see `LinearizationPoint`.

    Attributes:
        program, threads, mu: of the solve.
        x, y, v: the polished point, v = y/ω − ω s; derivatives flow through them.
        balance: ω, a constant.
        exact: v as exact numbers, is_active and has_solution.
    """

    program: RegisteredProgram
    threads: int
    mu: float
    x: Any
    y: Any
    v: Any
    balance: Any
    exact: tuple[Any, Any, Any]


def _refine(
    theta: Arrays, point: Arrays, program: RegisteredProgram, threads: int, mu: float
) -> _Place:
    params = {"program": program, "threads": threads, "mu": mu, "parts": tuple(range(len(theta)))}
    x, y, v, balance, *exact = bind(_refine_p, *theta, *point, **params)
    return _Place(program, threads, mu, x, y, v, balance, (exact[0], exact[1], exact[2]))


def _refine_shapes(*operands: Any, program: RegisteredProgram, **_: Any) -> list[Shape]:
    structure = program.program.structure
    n, m, rows = structure.num_variables, structure.num_rows, operands[-1].shape[0]
    real = np.float32 if operands[-3].dtype == np.uint32 else np.float64
    exact = exact_shape(rows, m, real)
    points: list[Shape] = [((rows, length), real) for length in (n, m, m, m)]
    return [*points, exact, ((rows, m), np.int8), ((rows,), np.int8)]


_refine_p = define("refine", _refine_shapes)


def _jvp_of_refine(primals: Arrays, tangents: Arrays, **params: Any) -> tuple[Any, Any]:
    count = len(params["parts"])
    theta, dtheta = primals[:count], tangents[:count]
    how = (params["program"], params["threads"], params["mu"])
    place = _refine(theta, primals[count:], *how)
    moved = _sensitivity(place, theta, dtheta, needs_v=True)
    constants = (place.balance, *place.exact)
    return [place.x, place.y, place.v, *constants], [*moved, *map(zero_like, constants)]


ad.primitive_jvps[_refine_p] = _jvp_of_refine


def _sensitivity(
    place: _Place, theta: Arrays, dtheta: Arrays, *, needs_v: bool
) -> tuple[Any, Any, Any]:
    """Return (dx, dy, dv), v = y/ω − ω s; the last is None if not needed."""
    product = functools.partial(multiply, place.program, place.threads)
    r, t = product(dtheta, place.x, place.y, tau=1, is_affine=False)
    dx, dy = apply(place, theta, -r[:, None], -t[:, None])
    dx, dy = dx[:, 0], dy[:, 0]
    if not needs_v:
        return dx, dy, None
    _, moved = product(theta, dx, jnp.zeros_like(dy), tau=0, is_affine=True)
    # ds = db − dA x − A dx, and t = dA x − db.
    return dx, dy, dy / place.balance + place.balance * (t + moved)


def apply(place: _Place, theta: Arrays, gx: Any, gy: Any) -> tuple[Any, Any]:
    """Solve P λ + Aᵀν = gx, ν/ω = D p, p = ω (A λ − gy) + ν/ω, for several right-hand sides.

    D is DΠ(v).

    A symmetric map of (gx, gy); the transpose of the derivative of the solution map, and so
    also that derivative.

    Args:
        place: where.
        theta: the parts of θ.
        gx: (batch, sides, n).
        gy: (batch, sides, m).
    """
    lam, nu = bind(
        _apply,
        *theta,
        place.v,
        place.balance,
        *place.exact,
        gx,
        gy,
        program=place.program,
        threads=place.threads,
        mu=place.mu,
        parts=tuple(range(len(theta))),
    )
    return lam, nu


def _apply_shapes(*operands: Any, **_: Any) -> list[Shape]:
    gx, gy = operands[-2:]
    return [(gx.shape, gx.dtype), (gy.shape, gy.dtype)]


_apply = define("apply", _apply_shapes)


def _split_apply(values: Arrays, params: dict[str, Any]) -> tuple[Arrays, Arrays, Any, Any]:
    """Return θ; v, ω and the exact point; gx; gy."""
    count = len(params["parts"])
    return values[:count], values[count:-2], values[-2], values[-1]


def _jvp_of_apply(primals: Arrays, tangents: Arrays, **params: Any) -> tuple[Any, Any]:
    theta, point, _, gy = _split_apply(primals, params)
    dtheta, (dv, *_), dgx, dgy = _split_apply(tangents, params)
    program, threads, mu = params["program"], params["threads"], params["mu"]
    lam, nu = bind(_apply, *primals, **params)
    rx, ry = ad.instantiate_zeros(dgx), ad.instantiate_zeros(dgy)
    product = functools.partial(_multiply_sides, program, threads)
    if not all(map(is_zero, dtheta)):
        r, t = product(dtheta, lam, nu, is_affine=False)
        rx, ry = rx - r, ry - t
    bend = None
    if not is_zero(dv) and (mu > 0.0 or program.program.structure.cones.curved):
        weight = point[1][:, None]
        _, moved = product(theta, lam, jnp.zeros_like(nu), is_affine=True)
        steps = jnp.broadcast_to(dv[:, None], nu.shape)
        sides = (weight * (moved - gy) + nu / weight, steps)
        (change,) = bind(_curvature, *point, *sides, program=program, threads=threads, mu=mu)
        bend = weight * change
        back, _ = product(theta, jnp.zeros_like(lam), bend, is_affine=True)
        rx, ry = rx - back, ry - change / weight
    dlam, dnu = bind(_apply, *theta, *point, rx, ry, **params)
    return [lam, nu], [dlam, dnu if bend is None else dnu + bend]


def _multiply_sides(
    program: RegisteredProgram,
    threads: int,
    theta: Arrays,
    x: Any,
    y: Any,
    *,
    is_affine: bool,
) -> tuple[Any, Any]:
    """`multiply`, with τ = 0, of several points for each instance."""
    batch, sides = x.shape[:2]
    if sides != 1:
        theta = [part if is_zero(part) else _repeat(part, sides) for part in theta]
    flat = [value.reshape(batch * sides, value.shape[2]) for value in (x, y)]
    r, t = multiply(program, threads, theta, *flat, tau=0, is_affine=is_affine)
    return r.reshape(x.shape), t.reshape(y.shape)


def _repeat(part: Any, sides: int) -> Any:
    return part if part.shape[0] == 1 else jnp.repeat(part, sides, axis=0)


def _transpose_of_apply(cotangents: Arrays, *operands: Any, **params: Any) -> list[Any]:
    gx, gy = operands[-2:]
    bars = [ad.instantiate_zeros(bar) for bar in cotangents]
    back = zip((gx, gy), bind(_apply, *operands[:-2], *bars, **params), strict=True)
    found = [bar if ad.is_undefined_primal(operand) else None for operand, bar in back]
    return [*[None] * (len(operands) - 2), *found]


def _batch_sides(
    primitive: Any, operands: Arrays, axes: Sequence[int | None], **params: Any
) -> tuple[list[Any], list[int]]:
    """Batch by more right-hand sides if only these are batched, so that K is factored once."""
    *first, gx, gy = operands
    if any(axis is not None for axis in axes[:-2]):
        return batch_by_rows(primitive, operands, axes, **params)
    (size,) = {g.shape[a] for g, a in zip((gx, gy), axes[-2:], strict=True) if a is not None}
    sides: list[Any] = []
    for side, axis in zip((gx, gy), axes[-2:], strict=True):
        if axis is None:
            side = jnp.broadcast_to(side[:, None], (side.shape[0], size, *side.shape[1:]))
        else:
            side = jnp.moveaxis(side, axis, 1)
        sides.append(side.reshape(side.shape[0], -1, side.shape[3]))
    results = bind(primitive, *first, *sides, **params)
    return [r.reshape(r.shape[0], size, -1, r.shape[2]) for r in results], [1] * len(results)


ad.primitive_jvps[_apply] = _jvp_of_apply
ad.primitive_transposes[_apply] = _transpose_of_apply
batching.primitive_batchers[_apply] = functools.partial(_batch_sides, _apply)


def _curvature_shapes(*operands: Any, **_: Any) -> list[Shape]:
    return [(operands[-1].shape, operands[-1].dtype)]


_curvature = define("curvature", _curvature_shapes)


def _jvp_of_curvature(primals: Arrays, tangents: Arrays, **params: Any) -> tuple[Any, Any]:
    if not is_zero(tangents[0]):
        raise UnsupportedDerivativeError(
            "A layer with curved cones, or with `derivative=Smoothed(…)`, was differentiated three "
            "times; derivatives of first and second order are available, and of every order where "
            "all constraints are linear and the derivative is exact."
        )
    *point, p, p2 = primals
    dp, dp2 = tangents[-2:]
    results = bind(_curvature, *primals, **params)
    terms = []
    if not is_zero(dp):
        terms.append(bind(_curvature, *point, dp, p2, **params)[0])
    if not is_zero(dp2):
        terms.append(bind(_curvature, *point, p, dp2, **params)[0])
    return results, [sum(terms[1:], terms[0]) if terms else zero_like(results[0])]


def _transpose_of_curvature(cotangents: Arrays, *operands: Any, **params: Any) -> list[Any]:
    *point, p, p2 = operands
    other = p2 if ad.is_undefined_primal(p) else p
    (back,) = bind(_curvature, *point, cotangents[0], other, **params)
    found = [back if ad.is_undefined_primal(operand) else None for operand in (p, p2)]
    return [*[None] * len(point), *found]


ad.primitive_jvps[_curvature] = _jvp_of_curvature
ad.primitive_transposes[_curvature] = _transpose_of_curvature
