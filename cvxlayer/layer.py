# SPDX-License-Identifier: Apache-2.0
"""A convex problem as a function of arrays: what goes in, NumPy, torch or JAX, comes out."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cvxlayer.errors import ParameterValueError
from cvxlayer.evaluation import Evaluation, Evaluator, build_evaluator
from cvxlayer.options import Derivative
from cvxlayer.plain_call import evaluate_plainly
from cvxlayer.program.parameters import ParameterSpec
from cvxlayer.program.solution import Solution
from cvxlayer.reading import Reading
from cvxlayer.solve.backend import AbstractBackend


class Layer:
    """A parametrized convex problem as a function, for the arrays it is called with.

    Torch tensors give torch tensors, differentiable as those of `cvxlayer.torch.Layer`; JAX
    arrays give JAX arrays, as those of `cvxlayer.jax.Layer`; NumPy arrays, lists and numbers
    give NumPy arrays.

    Args:
        problem: a DPP `cvxpy.Problem`, or a `CompiledProgram`.
        parameters: the parameters that become inputs, in call order; left out for a
            compiled program.
        variables: what to return, in order: variables, and duals as
            `constraint.dual_variables[i]`; left out for a compiled program.
        gp: whether the problem is a geometric program (DGP) rather than a DCP one.
        solver: None or "native" for our engine, the name of another solver, or an
            `AbstractBackend`.
        solver_args: `eps` (or `eps_abs`, `eps_rel`), `max_iters`, `threads`, `verbose`.
        derivative: "exact", "smoothed" or `Smoothed(mu=…)`, "lpgd" or `LPGD(tau=…)`, or
            "least_squares".
        on_failure: "raise" a `SolverError`, or "nan".
        verbose: log one line per call.

    Raises:
        NotDppError: the problem is not DPP.
        UnsupportedProblemError: the problem is outside what this version can solve.
        OptionError: an option is not valid.
        ValueError: a parameter or variable is not one of the problem's, or is repeated.
    """

    def __init__(
        self,
        problem: Any,
        parameters: Sequence[Any] | None = None,
        variables: Sequence[Any] | None = None,
        *,
        gp: bool = False,
        solver: str | AbstractBackend | None = None,
        solver_args: Mapping[str, Any] | None = None,
        derivative: str | Derivative = "exact",
        on_failure: str = "raise",
        verbose: bool = False,
        **unknown: Any,
    ) -> None:
        self._evaluator: Evaluator = build_evaluator(
            problem,
            parameters,
            variables,
            gp=gp,
            solver=solver,
            solver_args=solver_args,
            derivative=derivative,
            on_failure=on_failure,
            verbose=verbose,
            unknown=unknown,
        )

    def __call__(
        self,
        *values: Any,
        solver_args: Mapping[str, Any] | None = None,
        warm_start: Any = None,
        **named: Any,
    ) -> tuple[Any, ...]:
        """Return the variables and duals asked for, batch dimensions first.

        Args:
            values: one per parameter, with any leading batch dimensions.
            solver_args: override those of the layer for this call.
            warm_start: a `Solution` that `solve` of this layer returned for a batch of the
                same shape, to start from; worth it where values change little from call to
                call. None starts from scratch. Where it leads does not depend on it, up to
                the tolerance.
            named: values by the name of their parameter.

        Returns:
            One array per variable, of the dtype that the values promote to, or for complex
            variables the complex dtype that goes with it.

        Raises:
            ShapeError: a value has the wrong shape, or batch dimensions do not broadcast.
            ParameterValueError: a value is missing, not finite or outside its declared
                domain, or the values mix frameworks.
            OptionError: an option is not valid, or `warm_start` is not of this layer.
            SolverError: an instance was not solved (unless `on_failure="nan"`).
        """
        bound = self._evaluator.bind(values, named)
        ops = _adapter(bound)
        if ops is not None:
            return ops.call(self._evaluator, bound, solver_args, warm_start)
        arrays, epsilons, dtype = _as_arrays(self._evaluator, bound)
        made = evaluate_plainly(self._evaluator, arrays, epsilons, solver_args, warm_start)
        if isinstance(made, Evaluation) and self._evaluator.must_raise(made):
            raise made.failure(_report(made, dtype))
        return _cast(made.read_outputs(), dtype)

    def solve(
        self,
        *values: Any,
        solver_args: Mapping[str, Any] | None = None,
        warm_start: Any = None,
        **named: Any,
    ) -> Solution[Any]:
        """Return the whole `Solution`; arguments and errors as of a call."""
        bound = self._evaluator.bind(values, named)
        ops = _adapter(bound)
        if ops is not None:
            return ops.solve(self._evaluator, bound, solver_args, warm_start)
        arrays, epsilons, dtype = _as_arrays(self._evaluator, bound)
        evaluation = self._evaluator.evaluate(arrays, epsilons, solver_args, warm_start)
        solution = _report(evaluation, dtype)
        if self._evaluator.must_raise(evaluation):
            raise evaluation.failure(solution)
        return solution

    def __repr__(self) -> str:
        """Describe inputs, outputs and solver."""
        return f"Layer({self._evaluator.describe()})"


def _adapter(values: Sequence[Any]) -> Any:
    """Return what calls a layer with tensors or with JAX arrays; None for NumPy."""
    # Either can only exist if its framework is loaded, so nothing is imported to look.
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    has_torch = torch is not None and any(isinstance(value, torch.Tensor) for value in values)
    if jax is not None and any(isinstance(value, jax.Array) for value in values):
        if has_torch:
            raise ParameterValueError(
                "The layer was called with a torch tensor and a JAX array; it never converts "
                "from one framework to the other. Pass all values in one of them."
            )
        # Imported here: `import cvxlayer` must not import a framework.
        from cvxlayer.jax import ops

        return ops
    if has_torch:
        # Imported here: as above.
        from cvxlayer.torch import ops

        return ops
    return None


def _as_arrays(
    evaluator: Evaluator, values: Sequence[Any]
) -> tuple[list[np.ndarray], list[float], np.dtype]:
    """Return wide arrays, the machine epsilon each came with, and the dtype of real results."""
    arrays: list[np.ndarray] = []
    epsilons: list[float] = []
    # Python numbers take part as such, so that they do not widen float32 (NEP 50).
    promoting: list[Any] = []
    for rule, value in zip(evaluator.rules, values, strict=True):
        array = _as_array(rule.spec, value)
        is_inexact = array.dtype.kind in "fc"
        epsilons.append(float(np.finfo(array.dtype).eps) if is_inexact else 0.0)
        promoting.append(value if type(value) in (int, float, complex) else array.dtype)
        wide = np.complex128 if array.dtype.kind == "c" else np.float64
        arrays.append(array.astype(wide, copy=False))
    dtype = np.result_type(*promoting) if promoting else np.dtype(np.float64)
    if dtype.kind not in "fc":
        dtype = np.dtype(np.float64)
    return arrays, epsilons, np.empty(0, dtype).real.dtype


def _as_array(spec: ParameterSpec, value: Any) -> np.ndarray:
    name = spec.name
    if isinstance(value, np.ma.MaskedArray):
        raise ParameterValueError(
            f"The value of `{name}` is a masked array; a masked entry has no value to solve "
            "with. Fill it with `.filled(…)`."
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ParameterValueError(
            f"The value of `{name}` is not an array of numbers: {error}. Pass an array, or "
            "lists nested to one shape."
        ) from error
    largest = {"f": 8, "i": 8, "u": 8, "b": 8, "c": 16 if spec.is_complex else 0}
    if array.dtype.itemsize > largest.get(array.dtype.kind, 0):
        allowed = "complex64, complex128 or real" if spec.is_complex else "real"
        raise ParameterValueError(
            f"The value of `{name}` has the dtype {array.dtype}; it must be {allowed}: float16, "
            "float32, float64 or an integer. Convert it with "
            f"`.astype({'complex' if spec.is_complex else 'float'})`."
        )
    return array


def _cast(reading: Reading, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """Return the arrays with a dtype, the complex ones with the complex dtype that holds it."""
    wide = np.result_type(dtype, np.complex64)
    return tuple(
        array.astype(wide if array.dtype.kind == "c" else dtype, copy=False)
        for array in reading.arrays
    )


def _report(evaluation: Evaluation, dtype: np.dtype) -> Solution[Any]:
    outputs = _cast(evaluation.read_outputs(), dtype)
    (value,) = _cast(evaluation.read_value(), dtype)
    return evaluation.report(outputs, value, functools.partial(_find_dual, evaluation, dtype))


def _find_dual(evaluation: Evaluation, dtype: np.dtype, constraint: Any) -> Any:
    duals = _cast(evaluation.read_dual(constraint), dtype)
    return duals[0] if len(duals) == 1 else duals
