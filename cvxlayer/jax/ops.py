# SPDX-License-Identifier: Apache-2.0
"""A call of a layer with JAX arrays: what is checked, what is computed, what comes back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from cvxlayer.errors import OptionError, ParameterValueError, SolverError, Status
from cvxlayer.evaluation import Evaluator
from cvxlayer.inputs import batch_inputs, check_shapes
from cvxlayer.jax import cone
from cvxlayer.jax.plan import Answer, Plan, plan_of
from cvxlayer.jax.pytrees import assemble
from cvxlayer.jax.reporting import DerivativeJudge
from cvxlayer.notices import batch_index, warn_inaccurate
from cvxlayer.options import read_warm_start
from cvxlayer.program.engine import count_threads
from cvxlayer.program.parameters import ParameterSpec
from cvxlayer.program.solution import ConeSolution, Residuals, Solution, SolvedBy, StartingPoint
from cvxlayer.solve.backend import Settings, parse_settings


@dataclasses.dataclass(frozen=True, eq=False)
class _Request:
    """One call, read.

    Attributes:
        plan: the layer.
        values: the values as JAX arrays.
        dtype: of real results.
        batch_shape: the leading dimensions of all values, broadcast.
        settings: of the solver.
        start: where to start from, or None.
        is_concrete: whether the values can be looked at now.
    """

    plan: Plan
    values: tuple[Any, ...]
    dtype: np.dtype
    batch_shape: tuple[int, ...]
    settings: Settings
    start: tuple[Any, Any, Any] | None
    is_concrete: bool

    def run(self, *, wants_value: bool) -> tuple[Answer, np.ndarray | None]:
        """Return the answer, and the statuses if they can be looked at now."""
        if self.is_concrete:
            answer = self._run(wants_value, is_checked=True)
            status = _concrete(answer.point.status)
            if status is not None:
                return answer, np.asarray(status)
        # Inside `jax.jit` and the like, even of constants: there the compiled code has to judge.
        return self._run(wants_value, is_checked=False), None

    def _run(self, wants_value: bool, *, is_checked: bool) -> Answer:
        method = self.plan.method(self.settings, is_checked=is_checked)
        return self.plan.run(method, self.values, self.dtype, self.start, wants_value=wants_value)


def call(
    evaluator: Evaluator,
    values: Sequence[Any],
    solver_args: Mapping[str, Any] | None,
    warm_start: Any,
) -> tuple[Any, ...]:
    """Return the outputs of a layer for one value per parameter, in call order."""
    request = _read(evaluator, values, solver_args, warm_start)
    answer, status = request.run(wants_value=False)
    if status is not None and status.any():
        _warn(answer)
        if evaluator.raises and (status > Status.INACCURATE).any():
            answer, _ = request.run(wants_value=True)
            raise _failure(request, status, _report(request, answer, status))
    return answer.variables


def solve(
    evaluator: Evaluator,
    values: Sequence[Any],
    solver_args: Mapping[str, Any] | None,
    warm_start: Any,
) -> Solution[Any]:
    """Return the whole `Solution` for one value per parameter, in call order."""
    request = _read(evaluator, values, solver_args, warm_start)
    answer, status = request.run(wants_value=True)
    solution = _report(request, answer, status)
    if status is not None and status.any():
        _warn(answer)
        if evaluator.raises and (status > Status.INACCURATE).any():
            raise _failure(request, status, solution)
    return solution


def is_jax_value(value: Any) -> bool:
    """Whether a value is an array of JAX, concrete or traced."""
    return isinstance(value, jax.Array)


def _read(
    evaluator: Evaluator,
    values: Sequence[Any],
    solver_args: Mapping[str, Any] | None,
    warm_start: Any,
) -> _Request:
    plan, options, rules = plan_of(evaluator), evaluator.options, evaluator.rules
    settings = options.settings
    if solver_args:
        settings = parse_settings(options.backend, solver_args, settings)
    for rule, value in zip(rules, values, strict=True):
        _check_kind(rule.spec, value)
    dtype = _result_dtype(values)
    arrays = tuple(jnp.asarray(value) for value in values)
    concrete = [_concrete(array) for array in arrays]
    is_concrete = all(array is not None for array in concrete)
    if is_concrete:
        known = [_to_numpy(array) for array in concrete]
        epsilons = [_epsilon(array) for array in arrays]
        inputs = batch_inputs(rules, known, epsilons, count_threads(settings.threads))
        batch_shape = inputs.batch_shape
    else:
        batch_shape = check_shapes(rules, [array.shape for array in arrays])
    start = None if warm_start is None else _read_start(evaluator, warm_start, batch_shape)
    return _Request(plan, arrays, dtype, batch_shape, settings, start, is_concrete)


def _read_start(
    evaluator: Evaluator, warm_start: Any, batch_shape: tuple[int, ...]
) -> tuple[Any, Any, Any]:
    options, program = evaluator.options, evaluator.program.program
    found = read_warm_start(warm_start, options.backend, program, batch_shape)
    if not options.is_native:
        raise OptionError(
            f"`cvxlayer.jax` starts from an earlier solution only with its own engine, not with "
            f"the solver `{options.backend.name}`. Leave `warm_start` out."
        )
    wide = jax.dtypes.canonicalize_dtype(np.float64)
    usable = (jnp.asarray(found.status) <= Status.INACCURATE).astype(jnp.int8)
    return jnp.asarray(found.x, wide), jnp.asarray(found.y, wide), usable


def _report(request: _Request, answer: Answer, status: np.ndarray | None) -> Solution[Any]:
    point, shape = answer.point, request.batch_shape
    solved_by = point.solved_by.reshape(shape)
    codes: Any = point.status.reshape(shape)
    if status is not None and not shape:
        codes, solved_by = Status(int(status[0])), SolvedBy(int(solved_by))
    residuals = {
        "primal": point.primal_residual.reshape(shape),
        "dual": point.dual_residual.reshape(shape),
        "gap": point.gap.reshape(shape),
    }
    start = {
        "program": request.plan.registered.program,
        "cone": _cone_solution(point),
        "batch_shape": shape,
    }
    fields = {
        "variables": answer.variables,
        "value": answer.value,
        "status": codes,
        "iterations": point.iterations.reshape(shape),
        "residuals": assemble(Residuals, residuals),
        "solved_by": solved_by,
        "solve_seconds": point.seconds.max(initial=0.0),
        "_find_dual": _Duals(answer.theta, point, request.plan, shape, request.dtype),
        "_start": assemble(StartingPoint, start),
        "_judge": DerivativeJudge(
            answer.theta, point, request.plan, shape, request.settings.threads
        ),
    }
    return assemble(Solution, fields)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Duals:
    """Finds the dual of a constraint in an answer."""

    theta: tuple[Any, ...]
    point: cone.ConePoint
    plan: Plan = dataclasses.field(metadata={"static": True})
    batch_shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    dtype: np.dtype = dataclasses.field(metadata={"static": True})

    def __call__(self, constraint: Any) -> Any:
        recovery = self.plan.registered.recovery
        duals = [
            self._read(len(recovery.outputs) + place) for place in recovery.find_duals(constraint)
        ]
        return duals[0] if len(duals) == 1 else tuple(duals)

    def _read(self, place: int) -> Any:
        spec = self.plan.registered.outputs[place].spec
        (dual,) = self.plan.read(
            range(place, place + 1), [spec], self.theta, self.point, self.batch_shape, self.dtype
        )
        return dual


def _cone_solution(point: cone.ConePoint) -> ConeSolution:
    fields = {
        "x": point.x,
        "y": point.y,
        "s": point.exact_s,
        "status": point.status,
        "iterations": point.iterations,
        "primal_residual": point.primal_residual[:, 0],
        "dual_residual": point.dual_residual[:, 0],
        "gap": point.gap[:, 0],
        "solved_by": point.solved_by,
        "is_active": point.is_active,
        "solve_seconds": point.seconds.max(initial=0.0),
        "scaling": None,
        "adjoints": None,
    }
    return assemble(ConeSolution, fields)


def _warn(answer: Answer) -> None:
    """Warn of inaccurate rows, where the numbers are there."""
    point = answer.point
    fields = {field.name: np.asarray(_concrete(getattr(point, field.name))) for field in _FIELDS}
    warn_inaccurate(_cone_solution(cone.ConePoint(**fields)))


_FIELDS = dataclasses.fields(cone.ConePoint)


def _failure(request: _Request, status: np.ndarray, solution: Solution[Any]) -> SolverError:
    failed = np.flatnonzero(status > Status.INACCURATE).tolist()
    statuses = [Status(int(status[row])) for row in failed]
    indices = [batch_index(row, request.batch_shape) for row in failed]
    return SolverError(indices, statuses, solution)


def _check_kind(spec: ParameterSpec, value: Any) -> None:
    if not isinstance(value, jax.Array | np.ndarray | np.generic | int | float | complex):
        raise ParameterValueError(
            f"The value of `{spec.name}` is a {type(value).__name__}; this layer takes JAX and "
            "NumPy arrays and Python numbers. Convert it with `jax.numpy.asarray`."
        )
    dtype = jnp.result_type(value)
    is_number = jnp.issubdtype(dtype, jnp.number) or dtype == np.bool_
    if not is_number or (jnp.issubdtype(dtype, jnp.complexfloating) and not spec.is_complex):
        allowed = "complex64, complex128 or real" if spec.is_complex else "real"
        raise ParameterValueError(
            f"The value of `{spec.name}` has the dtype {dtype}; it must be {allowed}: float16, "
            "bfloat16, float32, float64 or an integer. Convert it with "
            f"`.astype({'complex' if spec.is_complex else 'float'})`."
        )


def _result_dtype(values: Sequence[Any]) -> np.dtype:
    """Return the dtype of real results: what JAX promotes the values to."""
    dtype = jnp.result_type(*values) if values else jnp.result_type(float)
    if not jnp.issubdtype(dtype, jnp.inexact):
        dtype = jnp.result_type(float)
    return jnp.finfo(dtype).dtype


def _epsilon(array: Any) -> float:
    is_inexact = jnp.issubdtype(array.dtype, jnp.inexact)
    return float(jnp.finfo(array.dtype).eps) if is_inexact else 0.0


def _to_numpy(array: Any) -> np.ndarray:
    is_complex = jnp.issubdtype(array.dtype, jnp.complexfloating)
    return np.asarray(array).astype(np.complex128 if is_complex else np.float64, copy=False)


def _concrete(value: Any) -> Any:
    """Return the array that a value is, or of which a derivative is taken; None if traced."""
    while isinstance(value, Tracer):
        value = getattr(value, "primal", None)
    return value
