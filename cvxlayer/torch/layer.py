# SPDX-License-Identifier: Apache-2.0
"""A convex problem as a `torch.nn.Module`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from cvxlayer.evaluation import Evaluator, build_evaluator
from cvxlayer.options import Derivative
from cvxlayer.program.solution import Solution
from cvxlayer.solve.backend import AbstractBackend
from cvxlayer.torch import ops


class Layer(torch.nn.Module):
    """A parametrized convex problem whose solution is a differentiable function.

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

    Notes:
        Holds no parameters, buffers or state, so `state_dict` is empty and `.to` has
        nothing to move: results follow the inputs. Computes in float64.
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
        super().__init__()
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

    def forward(
        self,
        *values: Any,
        solver_args: Mapping[str, Any] | None = None,
        warm_start: Any = None,
        **named: Any,
    ) -> tuple[torch.Tensor, ...]:
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
            One tensor per variable, of the dtype and on the device of the values; a complex
            variable has the complex dtype that goes with it.

        Raises:
            ShapeError: a value has the wrong shape, or batch dimensions do not broadcast.
            ParameterValueError: a value is missing, not finite, outside its declared
                domain, or not on the device of the others.
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
    ) -> Solution[torch.Tensor]:
        """Return the whole `Solution`; arguments and errors as of a call."""
        bound = self._evaluator.bind(values, named)
        return ops.solve(self._evaluator, bound, solver_args, warm_start)

    def extra_repr(self) -> str:
        """Describe inputs, outputs and solver for `print`."""
        return self._evaluator.describe()
