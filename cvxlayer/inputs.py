# SPDX-License-Identifier: Apache-2.0
"""The public door: what a value must be, and how values become one batch.

Frameworks do not appear here. An adapter hands in float64 NumPy arrays and gets back rows
for the compiler, or one error that names the parameter and the first offending batch index.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Inexact, Int

from cvxlayer.domains import find_violation
from cvxlayer.errors import ParameterValueError, ShapeError, suggest
from cvxlayer.program.inspection import is_finite
from cvxlayer.program.parameters import ParameterSpec, from_coordinates, to_coordinates

_CALL_OPTIONS = ("solver_args", "warm_start")


@dataclasses.dataclass(frozen=True, eq=False)
class InputRule:
    """What the values of one parameter must satisfy.

    Attributes:
        spec: name, shape and declared domain.
        infinite_sides: the sign of the infinity that is legal in each entry, 0 for none;
            see the notes of `InputBatch`.
        has_domain: whether there is a declared domain to check.
    """

    spec: ParameterSpec
    infinite_sides: Int[np.ndarray, " size"]
    has_domain: bool

    @classmethod
    def of(cls, spec: ParameterSpec, infinite_sides: Int[np.ndarray, " size"]) -> InputRule:
        """Return the rule for a parameter."""
        return cls(spec, infinite_sides, not spec.domain.is_free)


@dataclasses.dataclass(frozen=True, eq=False)
class InputBatch:
    """The values of one call, one row per instance.

    Attributes:
        values: per parameter (B, size), or (1, size) where all instances share one value; of
            complex parameters the coordinates.
        batch_shape: the leading dimensions of all inputs, broadcast; B is their product.
        input_batch_shapes: the leading dimensions each input had.
        rules: what each satisfied.
        has_infinite: whether some entry is infinite.

    Notes:
        NaN is never legal. Infinity is legal only in an entry that moves nothing but the
        right-hand side of linear inequalities, and with the sign that removes them; these
        then have zero multiplier, and the entry has zero gradient.
    """

    values: tuple[Float[np.ndarray, "_ _"], ...]
    batch_shape: tuple[int, ...]
    input_batch_shapes: tuple[tuple[int, ...], ...]
    rules: tuple[InputRule, ...]
    has_infinite: bool

    @property
    def size(self) -> int:
        """B, the number of instances."""
        return math.prod(self.batch_shape)

    def sum_to_input(
        self, index: int, cotangent: Float[np.ndarray, "batch_or_1 size"]
    ) -> Inexact[np.ndarray, "..."]:
        """Return the cotangent of input `index` in the shape it was given in.

        The adjoint of broadcasting: rows that came from one value are added up.
        """
        own, full, spec = self.input_batch_shapes[index], self.batch_shape, self.rules[index].spec
        if self.has_infinite:
            # Exactly zero: what made the bound infinite may multiply by infinity again.
            cotangent = np.where(np.isinf(self.values[index]), 0.0, cotangent)
        if own == full or math.prod(own) == 1:
            return from_coordinates(spec, cotangent, own)
        padded = (1,) * (len(full) - len(own)) + own
        repeated = tuple(axis for axis, length in enumerate(padded) if length != full[axis])
        summed = cotangent.reshape(*full, cotangent.shape[1]).sum(axis=repeated, keepdims=True)
        return from_coordinates(spec, summed, own)


def bind_values(
    rules: Sequence[InputRule], positional: Sequence[Any], named: Mapping[str, Any]
) -> list[Any]:
    """Return one value per parameter, in call order, from positional and by-name values.

    Raises:
        ParameterValueError: a value is missing, given twice, or of an unknown name.
    """
    if not named and len(positional) == len(rules):
        return list(positional)
    names = [rule.spec.name for rule in rules]
    if len(positional) > len(names):
        raise ParameterValueError(
            f"The layer was called with {len(positional)} values; it has {len(names)} "
            f"parameter(s): {_listing(names)}. Pass one value for each, in this order."
        )
    bound = dict(zip(names, positional, strict=False))
    for name, value in named.items():
        if name not in names:
            raise ParameterValueError(
                f"`{name}` is neither a parameter of this layer nor an option of its call. "
                f"{suggest(name, [*names, *_CALL_OPTIONS])}"
            )
        if name in bound:
            raise ParameterValueError(
                f"The parameter `{name}` was given twice, by position and by name. Pass it once."
            )
        if names.count(name) > 1:
            raise ParameterValueError(
                f"More than one parameter is named `{name}`. Pass these by position, or give "
                "them different names."
            )
        bound[name] = value
    missing = [name for name in names if name not in bound]
    if missing:
        raise ParameterValueError(
            f"No value was given for {_listing(missing)}. The layer needs one value for each "
            f"of its parameters: {_listing(names)}."
        )
    return [bound[name] for name in names]


def batch_inputs(
    rules: tuple[InputRule, ...],
    arrays: Sequence[Inexact[np.ndarray, "..."]],
    epsilons: Sequence[float],
    threads: int = 1,
) -> InputBatch:
    """Check every value and broadcast their batch dimensions against each other.

    Args:
        rules: one per parameter, in call order.
        arrays: one value per parameter, float64 or complex128, any number of leading batch
            dimensions.
        epsilons: machine epsilon of the dtype each value was given in; what counts as
            rounding at the border of a domain.
        threads: threads over the batch.

    Raises:
        ShapeError: a value does not end in its parameter's shape, or the batch dimensions
            cannot be broadcast.
        ParameterValueError: a value is NaN, infinite or outside its declared domain.
    """
    rows: list[np.ndarray] = []
    batch_shapes: list[tuple[int, ...]] = []
    has_infinite = False
    for rule, array, epsilon in zip(rules, arrays, epsilons, strict=True):
        value, batch_shape, is_value_finite = check_value(rule, array, epsilon, threads)
        has_infinite |= not is_value_finite
        rows.append(value)
        batch_shapes.append(batch_shape)
    full = _broadcast_shapes(rules, batch_shapes)
    values = tuple(
        _broadcast_rows(value, batch_shape, full)
        for value, batch_shape in zip(rows, batch_shapes, strict=True)
    )
    return InputBatch(values, full, tuple(batch_shapes), rules, has_infinite)


def check_value(
    rule: InputRule, array: Inexact[np.ndarray, "..."], epsilon: float, threads: int = 1
) -> tuple[Float[np.ndarray, "rows size"], tuple[int, ...], bool]:
    """Check one value; arguments and errors as of `batch_inputs`.

    Returns:
        Its coordinates, one row for each instance; its batch dimensions; whether all entries
        are finite.
    """
    spec = rule.spec
    batch_shape = batch_shape_of(spec, array.shape)
    if np.iscomplexobj(array) and not spec.is_complex:
        raise ParameterValueError(
            f"The value of `{spec.name}` is complex; the parameter is real. Pass its real "
            "part, or declare the parameter with `complex=True`."
        )
    value = to_coordinates(spec, array)
    is_value_finite = _is_finite(rule, value, batch_shape, threads)
    if rule.has_domain:
        _check_domain(spec, value, batch_shape, epsilon, threads)
    return value, batch_shape, is_value_finite


def check_shapes(rules: Sequence[InputRule], shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the batch dimensions of values of the given shapes, broadcast.

    Raises:
        ShapeError: as of `batch_inputs`.
    """
    pairs = zip(rules, shapes, strict=True)
    return _broadcast_shapes(rules, [batch_shape_of(rule.spec, shape) for rule, shape in pairs])


def batch_shape_of(spec: ParameterSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the batch dimensions of one value.

    Raises:
        ShapeError: it does not end in its parameter's shape.
    """
    num_batch = len(shape) - len(spec.shape)
    if num_batch < 0 or shape[num_batch:] != spec.shape:
        raise _wrong_shape(spec, shape)
    return shape[:num_batch]


def _broadcast_shapes(
    rules: Sequence[InputRule], batch_shapes: Sequence[tuple[int, ...]]
) -> tuple[int, ...]:
    different = set(batch_shapes) - {()}
    if len(different) <= 1:
        return different.pop() if different else ()
    try:
        return np.broadcast_shapes(*different)
    except ValueError:
        listing = ", ".join(
            f"`{rule.spec.name}`: {shape}" for rule, shape in zip(rules, batch_shapes, strict=True)
        )
        raise ShapeError(
            f"The batch dimensions of the values cannot be broadcast: {listing}. They must be "
            "equal or 1 in each place, aligned at the last batch dimension."
        ) from None


def _broadcast_rows(
    value: np.ndarray, batch_shape: tuple[int, ...], full: tuple[int, ...]
) -> np.ndarray:
    # A single value stays a single row, so what depends on it alone is computed once.
    if batch_shape == full or value.shape[0] == 1:
        return value
    size = value.shape[1]
    spread = np.broadcast_to(value.reshape(*batch_shape, size), (*full, size))
    return spread.reshape(math.prod(full), size)


def _is_finite(
    rule: InputRule, value: np.ndarray, batch_shape: tuple[int, ...], threads: int
) -> bool:
    """Tell whether all entries are finite; refuse NaN, and infinity where it is not legal."""
    if is_finite(value, threads):
        return True
    not_a_number = np.asarray(np.isnan(value).any(axis=1))
    if not_a_number.any():
        raise ParameterValueError(
            f"{_place(rule.spec, batch_shape, not_a_number)} contains NaN. Every entry must be a "
            "number: look for the operation that produced it, or leave the row out."
        )
    infinite = np.isinf(value)
    wrong = np.asarray((infinite & (np.sign(value) != rule.infinite_sides)).any(axis=1))
    if wrong.any():
        raise ParameterValueError(
            f"{_place(rule.spec, batch_shape, wrong)} contains an infinite entry. Infinity is "
            "legal only in a parameter that is nothing but a bound, on the side where it "
            "removes the bound: pass a finite value."
        )
    return not infinite.any()


def _check_domain(
    spec: ParameterSpec,
    value: np.ndarray,
    batch_shape: tuple[int, ...],
    epsilon: float,
    threads: int,
) -> None:
    stack = from_coordinates(spec, value, (value.shape[0],))
    violation = find_violation(spec.domain, stack, epsilon, threads)
    if violation is not None:
        wrong, words = violation
        raise ParameterValueError(
            f"{_place(spec, batch_shape, wrong)} is outside its declared domain: it must "
            f"be {words}. Correct the value, or declare the parameter without this attribute."
        )


def _place(spec: ParameterSpec, batch_shape: tuple[int, ...], wrong: np.ndarray) -> str:
    """Name the parameter and the first offending batch index, to begin a sentence."""
    if not batch_shape:
        return f"The value of `{spec.name}`"
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), batch_shape))
    return f"The value of `{spec.name}` at batch index {index[0] if len(index) == 1 else index}"


def _wrong_shape(spec: ParameterSpec, shape: tuple[int, ...]) -> ShapeError:
    example = ", ".join(["batch", *map(str, spec.shape)]) + ("," if not spec.shape else "")
    return ShapeError(
        f"The value of `{spec.name}` has shape {shape}; the parameter has shape {spec.shape}. "
        f"Pass {spec.shape}, or ({example}) for a batch."
    )


def _listing(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
