# SPDX-License-Identifier: Apache-2.0
"""The maps around the solve as primitives: what data multiply, and the way back to the user.

With w = (x, y, τ) let T(θ; w₁, w₂) = x₂ᵀP x₁ + y₁ᵀA x₂ + y₂ᵀA x₁ + τ₁(qᵀx₂ − bᵀy₂), where P, q, A
and b depend on θ. `multiply` is its gradient in (x₂, y₂), `weigh` that in θ: each is the
transpose of the other, and `multiply` with τ = 0 its own. τ is a constant, 0 or 1.

θ comes as its parts, each with one row for each instance or one for all. Where tangents of only
some parts are there, `parts` says of which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.core import ShapedArray
from jax.interpreters import ad, batching

from cvxlayer.jax.handlers import (
    Params,
    Shape,
    bind,
    count_rows,
    define,
    fold_rows,
    is_zero,
    unfold_rows,
    zero_like,
)
from cvxlayer.program.registered import RegisteredProgram

Arrays = Sequence[Any]


def multiply(
    program: RegisteredProgram,
    threads: int,
    theta: Arrays,
    x: Any,
    y: Any,
    *,
    tau: int,
    is_affine: bool,
) -> tuple[Any, Any]:
    """Return (P x + Aᵀy + τ q, A x − τ b) at θ, or with data that are linear in a tangent of it.

    Args:
        program: what is solved.
        threads: threads over the batch.
        theta: all parts; for a tangent, those that are symbolic zeros are left out.
        x: (batch, n).
        y: (batch, m).
        tau: 0 or 1.
        is_affine: whether the data at θ are meant, rather than their linear part.
    """
    parts = tuple(k for k, part in enumerate(theta) if not is_zero(part))
    r, t = bind(
        _multiply,
        *(theta[k] for k in parts),
        x,
        y,
        program=program,
        threads=threads,
        parts=parts,
        tau=float(tau),
        is_affine=int(is_affine),
    )
    return r, t


def read(
    program: RegisteredProgram,
    threads: int,
    places: range,
    theta: Arrays,
    x: Any,
    y: Any,
    exact: tuple[Any, Any],
) -> list[Any]:
    """Return outputs, (batch, size) each.

    Args:
        program: what was solved.
        threads: threads over the batch.
        places: which outputs, as `program.outputs` counts them.
        theta: all parts.
        x: (batch, n); what derivatives flow through.
        y: (batch, m).
        exact: both as exact numbers, which the values are computed from.
    """
    params: Params = {"first": places.start, "count": len(places), "parts": _all_parts(theta)}
    return bind(_read, *theta, x, y, *exact, program=program, threads=threads, **params)


def read_value(
    program: RegisteredProgram, threads: int, theta: Arrays, x: Any, y: Any, exact_x: Any
) -> Any:
    """Return the canonical objective, (batch, 1); arguments as of `read`."""
    (value,) = bind(
        _value, *theta, x, y, exact_x, program=program, threads=threads, parts=_all_parts(theta)
    )
    return value


def _all_parts(theta: Arrays) -> tuple[int, ...]:
    return tuple(range(len(theta)))


# --- multiply and weigh ------------------------------------------------------------------


def _multiply_shapes(*operands: Any, program: RegisteredProgram, **_: Any) -> list[Shape]:
    x, y = operands[-2:]
    rows = count_rows(operands)
    return [((rows, x.shape[1]), x.dtype), ((rows, y.shape[1]), x.dtype)]


_multiply = define("multiply", _multiply_shapes)


def _jvp_of_multiply(primals: Arrays, tangents: Arrays, **params: Any) -> tuple[Any, Any]:
    results = bind(_multiply, *primals, **params)
    program, threads, parts = params["program"], params["threads"], params["parts"]
    *theta, x, y = primals
    *dtheta, dx, dy = tangents
    terms: list[Any] = []
    if not all(map(is_zero, dtheta)):
        spread = _spread(program, parts, dtheta)
        tau = int(params["tau"])
        terms.append(multiply(program, threads, spread, x, y, tau=tau, is_affine=False))
    if not (is_zero(dx) and is_zero(dy)):
        points = [ad.instantiate_zeros(d) for d in (dx, dy)]
        terms.append(bind(_multiply, *theta, *points, **{**params, "tau": 0.0}))
    return results, [sum(term[1:], term[0]) for term in zip(*terms, strict=True)]


def _spread(program: RegisteredProgram, parts: Sequence[int], values: Arrays) -> list[Any]:
    """Return one entry for each part of θ: those that are not there are symbolic zeros."""
    nothing = ad.Zero(ShapedArray((1, 0), jnp.float32))
    full: list[Any] = [nothing] * len(program.program.parameter_sizes)
    for part, value in zip(parts, values, strict=True):
        full[part] = value
    return full


def _transpose_of_multiply(cotangents: Arrays, *operands: Any, **params: Any) -> list[Any]:
    *theta, x, y = operands
    if ad.is_undefined_primal(x) or ad.is_undefined_primal(y):
        assert params["tau"] == 0.0, "affine in x and y unless τ = 0"
        bars = [ad.instantiate_zeros(bar) for bar in cotangents]
        back = zip((x, y), bind(_multiply, *theta, *bars, **params), strict=True)
        points = [bar if ad.is_undefined_primal(point) else None for point, bar in back]
        return [*[None] * len(theta), *points]
    wanted = [k for k, part in enumerate(theta) if ad.is_undefined_primal(part)]
    bars = [ad.instantiate_zeros(bar) for bar in cotangents]
    found = bind(
        _weigh,
        x,
        y,
        *bars,
        program=params["program"],
        threads=params["threads"],
        parts=tuple(params["parts"][k] for k in wanted),
        rows=tuple(theta[k].aval.shape[0] for k in wanted),
        tau=params["tau"],
    )
    result: list[Any] = [None] * len(operands)
    for k, bar in zip(wanted, found, strict=True):
        result[k] = bar
    return result


ad.primitive_jvps[_multiply] = _jvp_of_multiply
ad.primitive_transposes[_multiply] = _transpose_of_multiply


def _weigh_shapes(
    *operands: Any, program: RegisteredProgram, parts: Any, rows: Any, **_: Any
) -> list[Shape]:
    sizes, dtype = program.program.parameter_sizes, operands[0].dtype
    return [((num, sizes[part]), dtype) for part, num in zip(parts, rows, strict=True)]


_weigh = define("weigh", _weigh_shapes)


def _jvp_of_weigh(primals: Arrays, tangents: Arrays, **params: Any) -> tuple[Any, Any]:
    results = bind(_weigh, *primals, **params)
    x, y, x2, y2 = primals
    terms: list[Any] = []
    if not (is_zero(tangents[0]) and is_zero(tangents[1])):
        points = [ad.instantiate_zeros(d) for d in tangents[:2]]
        terms.append(bind(_weigh, *points, x2, y2, **{**params, "tau": 0.0}))
    if not (is_zero(tangents[2]) and is_zero(tangents[3])):
        points = [ad.instantiate_zeros(d) for d in tangents[2:]]
        terms.append(bind(_weigh, x, y, *points, **params))
    return results, [sum(term[1:], term[0]) for term in zip(*terms, strict=True)]


def _transpose_of_weigh(cotangents: Arrays, *operands: Any, **params: Any) -> list[Any]:
    program = params["program"]
    is_wanted = [ad.is_undefined_primal(operand) for operand in operands]
    is_second = is_wanted[2] or is_wanted[3]
    x, y = operands[:2] if is_second else operands[2:]
    assert is_second or params["tau"] == 0.0, "affine in the first point unless τ = 0"
    spread = _spread(program, params["parts"], cotangents)
    if all(map(is_zero, spread)):
        return [None] * 4
    back = multiply(
        program, params["threads"], spread, x, y, tau=int(params["tau"]), is_affine=False
    )
    pairs = zip((*back, *back), is_wanted, strict=True)
    return [bar if wanted else None for bar, wanted in pairs]


ad.primitive_jvps[_weigh] = _jvp_of_weigh
ad.primitive_transposes[_weigh] = _transpose_of_weigh


def _batch_with_sums(
    primitive: Any, operands: Arrays, axes: Sequence[int | None], **params: Any
) -> tuple[list[Any], list[int]]:
    """Batch a primitive that sums over the instances into parts of θ with a single row."""
    size, rows, folded = fold_rows(operands, axes, 0)
    own = params["rows"]
    each = tuple(size * rows for _ in own)
    results = bind(primitive, *folded, **{**params, "rows": each})
    unfolded = [unfold_rows(result, size, rows) for result in results]
    for k, num in enumerate(own):
        if num == 1 and rows != 1:
            unfolded[k] = unfolded[k].sum(axis=1, keepdims=True)
    return unfolded, [0] * len(unfolded)


batching.primitive_batchers[_weigh] = lambda operands, axes, **params: _batch_with_sums(
    _weigh, operands, axes, **params
)


# --- read --------------------------------------------------------------------------------


def _outputs_of(params: Params) -> tuple[Any, ...]:
    first = params["first"]
    return params["program"].outputs[first : first + params["count"]]


def _read_shapes(*operands: Any, **params: Any) -> list[Shape]:
    rows, dtype = operands[-1].shape[0], operands[-3].dtype
    return [((rows, output.spec.size), dtype) for output in _outputs_of(params)]


_read = define("read", _read_shapes)


def _jvp_of_read(primals: Arrays, tangents: Arrays, **params: Any) -> tuple[Any, Any]:
    results = bind(_read, *primals, **params)
    *dtheta, dx, dy = tangents[:-2]
    points = [ad.instantiate_zeros(d) for d in (dx, dy)]
    parts = tuple(k for k, part in enumerate(dtheta) if not is_zero(part))
    linear = bind(_read_linear, *(dtheta[k] for k in parts), *points, **{**params, "parts": parts})
    tangents_out = [
        result * tangent if output.is_log else tangent
        for output, result, tangent in zip(_outputs_of(params), results, linear, strict=True)
    ]
    return results, tangents_out


ad.primitive_jvps[_read] = _jvp_of_read


def _read_linear_shapes(*operands: Any, **params: Any) -> list[Shape]:
    rows, dtype = count_rows(operands), operands[-1].dtype
    return [((rows, output.spec.size), dtype) for output in _outputs_of(params)]


_read_linear = define("read_linear", _read_linear_shapes)


def _jvp_of_read_linear(primals: Arrays, tangents: Arrays, **params: Any) -> tuple[Any, Any]:
    *dtheta, dx, dy = tangents
    there = [k for k, part in enumerate(dtheta) if not is_zero(part)]
    parts = tuple(params["parts"][k] for k in there)
    points = [ad.instantiate_zeros(d) for d in (dx, dy)]
    moved = bind(_read_linear, *(dtheta[k] for k in there), *points, **{**params, "parts": parts})
    return bind(_read_linear, *primals, **params), moved


def _transpose_of_read_linear(cotangents: Arrays, *operands: Any, **params: Any) -> list[Any]:
    *theta, x, y = operands
    wanted = [k for k, part in enumerate(theta) if ad.is_undefined_primal(part)]
    *theta_bar, x_bar, y_bar = bind(
        _read_adjoint,
        *(ad.instantiate_zeros(bar) for bar in cotangents),
        **{
            **params,
            "parts": tuple(params["parts"][k] for k in wanted),
            "rows": tuple(theta[k].aval.shape[0] for k in wanted),
        },
    )
    result: list[Any] = [None] * len(theta)
    for k, bar in zip(wanted, theta_bar, strict=True):
        result[k] = bar
    points = zip((x, y), (x_bar, y_bar), strict=True)
    return [*result, *(bar if ad.is_undefined_primal(point) else None for point, bar in points)]


ad.primitive_jvps[_read_linear] = _jvp_of_read_linear
ad.primitive_transposes[_read_linear] = _transpose_of_read_linear


def _read_adjoint_shapes(
    *operands: Any, program: RegisteredProgram, parts: Any, rows: Any, **_: Any
) -> list[Shape]:
    sizes, structure = program.program.parameter_sizes, program.program.structure
    batch, dtype = operands[0].shape[0], operands[0].dtype
    theta = [((num, sizes[part]), dtype) for part, num in zip(parts, rows, strict=True)]
    lengths = (structure.num_variables, structure.num_rows)
    return [*theta, *(((batch, length), dtype) for length in lengths)]


_read_adjoint = define("read_adjoint", _read_adjoint_shapes)
batching.primitive_batchers[_read_adjoint] = lambda operands, axes, **params: _batch_with_sums(
    _read_adjoint, operands, axes, **params
)


def _jvp_of_read_adjoint(primals: Arrays, tangents: Arrays, **params: Any) -> tuple[Any, Any]:
    moved = bind(_read_adjoint, *(ad.instantiate_zeros(d) for d in tangents), **params)
    return bind(_read_adjoint, *primals, **params), moved


def _transpose_of_read_adjoint(cotangents: Arrays, *operands: Any, **params: Any) -> list[Any]:
    *theta, x, y = cotangents
    there = [k for k, part in enumerate(theta) if not is_zero(part)]
    others = {key: value for key, value in params.items() if key != "rows"}
    parts = tuple(params["parts"][k] for k in there)
    points = [ad.instantiate_zeros(d) for d in (x, y)]
    back = bind(_read_linear, *(theta[k] for k in there), *points, **{**others, "parts": parts})
    pairs = zip(operands, back, strict=True)
    return [bar if ad.is_undefined_primal(operand) else None for operand, bar in pairs]


ad.primitive_jvps[_read_adjoint] = _jvp_of_read_adjoint
ad.primitive_transposes[_read_adjoint] = _transpose_of_read_adjoint


# --- the optimal value -------------------------------------------------------------------


def _value_shapes(*operands: Any, **_: Any) -> list[Shape]:
    return [((operands[-1].shape[0], 1), operands[-2].dtype)]


_value = define("value", _value_shapes)


def _jvp_of_value(primals: Arrays, tangents: Arrays, **params: Any) -> tuple[Any, Any]:
    """By the envelope theorem: dV = ½xᵀdP x + dqᵀx + yᵀ(dA x − db), and the constant's."""
    program, threads = params["program"], params["threads"]
    value = bind(_value, *primals, **params)
    *theta, x, y, _ = primals
    dtheta = tangents[: len(theta)]
    if all(map(is_zero, dtheta)):
        return value, [zero_like(value[0])]
    at_point = multiply(program, threads, dtheta, x, y, tau=1, is_affine=False)
    nowhere = (jnp.zeros_like(x), jnp.zeros_like(y))
    alone = multiply(program, threads, dtheta, *nowhere, tau=1, is_affine=False)
    pairs = zip((x, y), at_point, alone, strict=True)
    twice = sum((point * (a + b)).sum(axis=1, keepdims=True) for point, a, b in pairs)
    return value, [0.5 * twice + _constant_tangent(program, theta, dtheta)]


def _constant_tangent(program: RegisteredProgram, theta: Arrays, dtheta: Arrays) -> Any:
    """Return the tangent of ½[θ; 1]ᵀM[θ; 1]."""
    form = program.program.objective_constant
    if form.is_constant:
        return 0.0
    matrix: Any = form.matrix.tocoo()
    rows = max(part.shape[0] for part in theta)

    def stack(parts: Arrays, last: float) -> Any:
        columns = [jnp.broadcast_to(part, (rows, part.shape[1])) for part in parts]
        return jnp.concatenate([*columns, jnp.full((rows, 1), last, columns[0].dtype)], axis=1)

    # What may be infinite multiplies nothing here.
    finite = [jnp.where(jnp.isinf(part), 0, part) for part in theta]
    point = stack(finite, 1.0)
    moved = stack([ad.instantiate_zeros(part) for part in dtheta], 0.0)
    weights = matrix.data.astype(point.dtype)
    products = weights * point[:, matrix.row] * moved[:, matrix.col]
    return products.sum(axis=1, keepdims=True)


ad.primitive_jvps[_value] = _jvp_of_value
