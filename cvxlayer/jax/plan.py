# SPDX-License-Identifier: Apache-2.0
"""A layer prepared for JAX: its program in the core, and its call as a function of arrays."""

from __future__ import annotations

import dataclasses
import functools
import math
import weakref
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvxlayer.compiler import CompiledProgram
from cvxlayer.errors import Status
from cvxlayer.evaluation import Evaluator, find_derivative
from cvxlayer.inputs import InputRule, batch_shape_of, check_shapes
from cvxlayer.jax import cone, maps
from cvxlayer.jax.handlers import register_handlers
from cvxlayer.jax.reverse import ReverseRule, register_rule
from cvxlayer.jax.route import open_route
from cvxlayer.options import LayerOptions, OnFailure
from cvxlayer.program.cone_derivative import AbstractReverseDerivative
from cvxlayer.program.engine import count_threads
from cvxlayer.program.parameters import OutputSpec
from cvxlayer.program.registered import RegisteredProgram, register_program
from cvxlayer.solve.backend import Settings

# Values hold no reference to their key, so a layer that is gone takes its plan along.
_plans: weakref.WeakKeyDictionary[Evaluator, Plan] = weakref.WeakKeyDictionary()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What a call computes, as arrays alone; one row per instance unless stated.

    Attributes:
        variables: the outputs, in the batch shape of the call and the dtype of its results.
        value: the optimal objective in the user's sense, like these.
        theta: the parts of θ the programs were solved at.
        point: the solutions in canonical scaling.
    """

    variables: tuple[Any, ...]
    value: Any
    theta: tuple[Any, ...]
    point: cone.ConePoint


jax.tree_util.register_dataclass(cone.ConePoint)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A layer as JAX needs it.

    Attributes:
        program: what is solved.
        options: how.
        rules: what values must satisfy.
        registered: the program in the core.
    """

    program: CompiledProgram
    options: LayerOptions
    rules: tuple[InputRule, ...]
    registered: RegisteredProgram

    @functools.cached_property
    def _threads(self) -> int:
        return count_threads(self.options.settings.threads)

    @functools.cached_property
    def _methods(self) -> dict[Any, cone.Method]:
        return {}

    @functools.cached_property
    def _compiled(self) -> dict[Any, Any]:
        return {}

    def method(self, settings: Settings, *, is_checked: bool) -> cone.Method:
        """Return how to solve.

        Args:
            settings: of the call.
            is_checked: whether the caller looks at `status` itself, as it can where values
                are concrete; otherwise the compiled code raises and warns.
        """
        settings = dataclasses.replace(settings, warm_start=None)
        key = (repr(settings), is_checked)
        if key not in self._methods:
            self._methods[key] = self._make_method(settings, is_checked)
        return self._methods[key]

    def _make_method(self, settings: Settings, is_checked: bool) -> cone.Method:
        options = self.options
        raises = not is_checked and (self.options.on_failure is OnFailure.RAISE)
        extra = settings.extra
        return cone.Method(
            program=self.registered,
            threads=count_threads(settings.threads),
            route=open_route(
                self.registered, options, settings, raises=raises, warns=not is_checked
            ),
            raises=raises,
            is_native=options.is_native,
            eps_abs=settings.eps_abs,
            eps_rel=settings.eps_rel,
            max_iterations=settings.max_iters or 0,
            width=extra.get("width", 0),
            polish=bool(extra.get("polish", True)),
            is_verbose=settings.verbose,
            mu=options.smoothing,
            reverse=self._reverse_rule(settings),
        )

    def _reverse_rule(self, settings: Settings) -> int:
        """Return the number of the rule for a derivative that only pulls gradients back, or 0."""
        derivative = find_derivative(self.options, settings)
        if not isinstance(derivative, AbstractReverseDerivative):
            return 0
        threads = count_threads(settings.threads)
        return register_rule(ReverseRule(self.program, derivative, derivative.refusal, threads))

    def run(
        self,
        method: cone.Method,
        values: Sequence[Any],
        dtype: Any,
        start: tuple[Any, Any, Any] | None,
        *,
        wants_value: bool,
    ) -> Answer:
        """Solve a batch; compiled once for each combination of shapes and options."""
        key = (method, np.dtype(dtype), wants_value)
        run = self._compiled.get(key)
        if run is None:
            compute = functools.partial(self._compute, method, np.dtype(dtype), wants_value)
            run = self._compiled[key] = jax.jit(compute, inline=True)
        return run(tuple(values), start)

    def _compute(
        self,
        method: cone.Method,
        dtype: np.dtype,
        wants_value: bool,
        values: tuple[Any, ...],
        start: tuple[Any, Any, Any] | None,
    ) -> Answer:
        rules = self.rules
        full = check_shapes(rules, [value.shape for value in values])
        wide = jax.dtypes.canonicalize_dtype(np.float64)
        rows = [
            _to_rows(rule, value, full, wide) for rule, value in zip(rules, values, strict=True)
        ]
        parts = self.program.coordinates.parts
        theta = tuple(
            jnp.log(rows[part.parameter]) if part.is_log else rows[part.parameter] for part in parts
        )
        point = cone.solve(method, theta, wide, start)
        specs = self.program.outputs
        variables = self.read(range(len(specs)), specs, theta, point, full, dtype)
        value = None
        if wants_value:
            value = self._value(theta, point).reshape(full).astype(dtype)
        return Answer(variables, value, theta, point)

    def read(
        self,
        places: range,
        specs: Sequence[OutputSpec],
        theta: Sequence[Any],
        point: cone.ConePoint,
        batch_shape: tuple[int, ...],
        dtype: np.dtype,
    ) -> tuple[Any, ...]:
        """Return outputs in the shape and dtype of results; NaN where there is no solution."""
        exact = (point.exact_x, point.exact_y)
        outputs = maps.read(self.registered, self._threads, places, theta, point.x, point.y, exact)
        failed = (point.status > Status.INACCURATE)[:, None]
        return tuple(
            _from_rows(spec, jnp.where(failed, jnp.nan, rows), batch_shape, dtype)
            for spec, rows in zip(specs, outputs, strict=True)
        )

    def _value(self, theta: Sequence[Any], point: cone.ConePoint) -> Any:
        recovery = self.registered.recovery
        canonical = maps.read_value(
            self.registered, self._threads, theta, point.x, point.y, point.exact_x
        )[:, 0]
        sign = recovery.sign
        finish = jnp.exp if recovery.is_log_objective else lambda value: value
        value = finish(sign * canonical)
        # Chosen after `finish`, so that no derivative of it is taken at infinity.
        for code, special in (
            (Status.MAX_ITERATIONS, jnp.nan),
            (Status.NUMERICAL_ERROR, jnp.nan),
            (Status.NOT_CONVEX, jnp.nan),
            (Status.INFEASIBLE, finish(sign * jnp.inf)),
            (Status.UNBOUNDED, finish(-sign * jnp.inf)),
        ):
            value = jnp.where(point.status == code, special, value)
        return value


def plan_of(evaluator: Evaluator) -> Plan:
    """Return the plan of a layer, made once.

    Raises:
        MissingDependencyError: see `register_handlers`.
    """
    plan = _plans.get(evaluator)
    if plan is None:
        register_handlers()
        program = evaluator.program
        registered = register_program(program.program, program.recovery)
        plan = _plans[evaluator] = Plan(program, evaluator.options, evaluator.rules, registered)
    return plan


def _to_rows(rule: InputRule, value: Any, full: tuple[int, ...], wide: Any) -> Any:
    """Return a value as rows of real coordinates: one for each instance, or one for all."""
    spec = rule.spec
    own = batch_shape_of(spec, value.shape)
    if rule.infinite_sides.any():
        # A bound that is not there moves nothing.
        value = jnp.where(jnp.isinf(value), jax.lax.stop_gradient(value), value)
    if spec.is_complex:
        value = jnp.stack([jnp.real(value), jnp.imag(value)], axis=-1)
    value = value.astype(wide)
    if math.prod(own) == 1:
        return value.reshape(1, spec.size)
    if own != full:
        value = jnp.broadcast_to(value, (*full, *value.shape[len(own) :]))
    return value.reshape(math.prod(full), spec.size)


def _from_rows(spec: OutputSpec, rows: Any, batch_shape: tuple[int, ...], dtype: np.dtype) -> Any:
    if not spec.is_complex:
        return rows.reshape(batch_shape + spec.shape).astype(dtype)
    pairs = rows.reshape((*batch_shape, *spec.shape, 2))
    number = jnp.result_type(dtype, jnp.complex64)
    return jax.lax.complex(pairs[..., 0], pairs[..., 1]).astype(number)
