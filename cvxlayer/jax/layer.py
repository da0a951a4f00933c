# SPDX-License-Identifier: Apache-2.0
"""A convex problem as a function of JAX arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from cvxlayer.evaluation import Evaluator, build_evaluator
from cvxlayer.jax import ops
from cvxlayer.jax.handlers import register_handlers
from cvxlayer.options import Derivative
from cvxlayer.program.solution import Solution
from cvxlayer.solve.backend import AbstractBackend


@jax.tree_util.register_static
class Layer:
    """A parametrized convex problem as a differentiable function of JAX arrays.

    Works under `jit`, `vmap`, `grad`, `jacfwd`, `jacrev`, `hessian`, `lax.scan`, `lax.map`,
    `checkpoint` and `shard_map`, in any combination, and is a pytree without leaves, so that it
    may be a field of an Equinox or Flax module. Runs on the CPU.

    Args:
        problem: a DPP `cvxpy.Problem`, or a `CompiledProgram`.
        parameters: the parameters that become inputs, in call order; left out for a
            compiled program.
        variables: what to return, in order: variables, and duals as
            `constraint.dual_variables[i]`; left out for a compiled program.
        gp: whether the problem is a geometric program (DGP) rather than a DCP one.
        solver: None or "native" for our engine, the name of another solver, or an
            `AbstractBackend`; other solvers are called back in Python.
        solver_args: `eps` (or `eps_abs`, `eps_rel`), `max_iters`, `threads`, `verbose`.
        derivative: "exact", "smoothed" or `Smoothed(mu=…)`, "lpgd" or `LPGD(tau=…)`, or
            "least_squares"; the last two pull gradients back in Python.
        on_failure: "raise" a `SolverError`, or "nan".
        verbose: log one line per call.

    Raises:
        NotDppError: the problem is not DPP.
        UnsupportedProblemError: the problem is outside what this version can solve.
        OptionError: an option is not valid.
        ValueError: a parameter or variable is not one of the problem's, or is repeated.
        MissingDependencyError: the core was built where JAX could not be imported.

    Notes:
        Holds no state. Computes in float64 whether or not `jax_enable_x64` is set: without
        it, values and results are float32 and everything between them float64.

        Values are checked where they are concrete: in a plain call and under `grad`, but not
        under `jit` or `vmap`, where only shapes and dtypes are. There, `on_failure="raise"`
        is an error of XLA (`jax.errors.JaxRuntimeError`) with the sentence of the
        `SolverError`, in which rows are counted over all batch dimensions.
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
        register_handlers()
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
    ) -> tuple[jax.Array, ...]:
        """Return the variables and duals asked for, batch dimensions first.

        Args:
            values: one per parameter, with any leading batch dimensions.
            solver_args: override those of the layer for this call; constants under `jit`.
            warm_start: a `Solution` that `solve` of this layer returned for a batch of the
                same shape, to start from. No derivative flows through it.
            named: values by the name of their parameter.

        Returns:
            One array per variable, of the dtype that JAX promotes the values to; a complex
            variable has the complex dtype that goes with it.

        Raises:
            ShapeError: a value has the wrong shape, or batch dimensions do not broadcast.
            ParameterValueError: a value is missing, not finite or outside its declared domain.
            OptionError: an option is not valid, or `warm_start` is not of this layer.
            SolverError: an instance was not solved (unless `on_failure="nan"`).
        """
        bound = self._evaluator.bind(values, named)
        return ops.call(self._evaluator, bound, solver_args, warm_start)

    def solve(
        self,
        *values: Any,
        solver_args: Mapping[str, Any] | None = None,
        warm_start: Any = None,
        **named: Any,
    ) -> Solution[jax.Array]:
        """Return the whole `Solution`; arguments and errors as of a call.

        It is a pytree: under `jit` its status and statistics are arrays, which the compiled
        function may use and return.
        """
        bound = self._evaluator.bind(values, named)
        return ops.solve(self._evaluator, bound, solver_args, warm_start)

    def __eq__(self, other: object) -> bool:
        """Whether both are copies of one layer, so that compiled code serves both."""
        return isinstance(other, Layer) and self._evaluator is other._evaluator

    def __hash__(self) -> int:
        """Hash as `__eq__` compares."""
        return hash(self._evaluator)

    def __repr__(self) -> str:
        """Describe inputs, outputs and solver."""
        return f"Layer({self._evaluator.describe()})"
