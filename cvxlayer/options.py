# SPDX-License-Identifier: Apache-2.0
"""The options of a layer, checked once when it is built."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping
from typing import Any

from cvxlayer.errors import OptionError, ShapeError, suggest
from cvxlayer.program.parametric import ParametricConeProgram
from cvxlayer.program.solution import ConeSolution, Solution
from cvxlayer.solve.backend import AbstractBackend, Settings, parse_settings
from cvxlayer.solve.registry import WARM_STARTING, backend_names, get_backend


class OnFailure(enum.Enum):
    """What a layer does about instances that were not solved.

    RAISE: one `SolverError` after the whole batch is solved.
    NAN: NaN in their rows and exactly zero gradient for their parameters.
    """

    RAISE = "raise"
    NAN = "nan"


class DerivativeMode(enum.Enum):
    """How solutions are differentiated, where no numbers have to be given.

    EXACT: the derivative of the solution map; at a kink that of one side, where constraints depend
        on one another that of an adjacent piece.
    LEAST_SQUARES: the same, but the shortest answer where it is not unique.
    """

    EXACT = "exact"
    LEAST_SQUARES = "least_squares"


@dataclasses.dataclass(frozen=True)
class LPGD:
    """Gradients by differences of solutions, for problems whose derivative is zero.

    `Layer(…, derivative=LPGD(tau=0.1))` solves twice more in the backward pass, with the gradient
    of the loss times ±τ added to the objective, and hands on how the solution differs. In linear
    and other piecewise constant problems this points to the better vertex. See
    `differentiate.lagrangian.LagrangianDerivative`.

    Attributes:
        tau: size of the step along the gradient of the loss. Small ones approach the derivative;
            larger ones look further.

    Raises:
        OptionError: `tau` is not a positive number.
    """

    tau: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.tau < float("inf"):
            raise OptionError(
                f"`tau` is {self.tau!r}; it must be a positive number, such as 0.1, the step along "
                "the gradient of the loss."
            )


@dataclasses.dataclass(frozen=True)
class Smoothed:
    """The derivative of the central path, for problems whose own is zero or jumps.

    `Layer(…, derivative=Smoothed(mu=1e-3))` returns the solutions themselves, and differentiates
    those of the barrier problem, x_μ: smooth functions of the parameters, which tend to the
    solutions as μ → 0. In every mode and of first and second order, as the exact one.

    Attributes:
        mu: μ > 0, in the units of the problem: slack times multiplier is μ for every inequality.
            The optimal value of the barrier problem is at most μ per inequality (1 for a
            second-order, k for a semidefinite constraint of order k, 3 for an exponential or a
            power cone) above the true one. Multiplying the objective by a number multiplies the
            μ that has the same effect.

    Raises:
        OptionError: `mu` is not a positive number.
    """

    mu: float = 1e-3

    def __post_init__(self) -> None:
        if not 0.0 < self.mu < float("inf"):
            raise OptionError(
                f"`mu` is {self.mu!r}; it must be a positive number, such as 1e-3: what slack "
                "times multiplier are for each inequality."
            )


Derivative = DerivativeMode | LPGD | Smoothed
_DERIVATIVES: dict[str, Derivative] = {mode.value: mode for mode in DerivativeMode}
_DERIVATIVES["lpgd"] = LPGD()
_DERIVATIVES["smoothed"] = Smoothed()
OPTION_NAMES = ("gp", "solver", "solver_args", "derivative", "on_failure", "verbose")


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """The options of a layer, resolved.

    Attributes:
        backend: the solver.
        settings: its settings, which a call may override.
        on_failure: what happens to rows that were not solved.
        derivative: how solutions are differentiated.
    """

    backend: AbstractBackend
    settings: Settings
    on_failure: OnFailure
    derivative: Derivative = DerivativeMode.EXACT

    @property
    def smoothing(self) -> float:
        """μ of the central path that is differentiated; 0 for the solutions themselves."""
        return float(self.derivative.mu) if isinstance(self.derivative, Smoothed) else 0.0

    @functools.cached_property
    def is_native(self) -> bool:
        """Whether the solver is our own engine."""
        # Of its kind, not itself: a layer that was copied or pickled has one of its own.
        return type(self.backend) is type(get_backend())

    @property
    def is_named(self) -> bool:
        """Whether the solver is one of those that come with cvxlayer."""
        name = self.backend.name
        return name in backend_names() and type(self.backend) is type(get_backend(name))


def resolve_options(
    *,
    solver: str | AbstractBackend | None = None,
    solver_args: Mapping[str, Any] | None = None,
    derivative: str | Derivative = "exact",
    on_failure: str = "raise",
    verbose: bool = False,
    unknown: Mapping[str, Any] | None = None,
) -> LayerOptions:
    """Check the options a user passed to `Layer` and resolve them.

    Args:
        solver: name of a solver, a backend of the user's own, or None for our engine.
        solver_args: see `Settings`; unknown names are refused.
        derivative: "exact", "smoothed" or `Smoothed(mu=…)`, "lpgd" or `LPGD(tau=…)`, or
            "least_squares".
        on_failure: "raise" or "nan".
        verbose: log one line per call on the logger `cvxlayer`.
        unknown: keywords `Layer` does not have.

    Raises:
        OptionError: an option or its value is not valid; names the nearest valid one.
    """
    for name in unknown or ():
        raise OptionError(f"`Layer` has no option `{name}`. {suggest(name, OPTION_NAMES)}")
    modes = [mode.value for mode in OnFailure]
    if on_failure not in modes:
        raise OptionError(
            f"`on_failure` is {on_failure!r}; it must be 'raise' or 'nan'. "
            f"{suggest(str(on_failure), modes)}"
        )
    backend = get_backend(solver)
    settings = parse_settings(backend, solver_args, Settings(verbose=verbose))
    return LayerOptions(backend, settings, OnFailure(on_failure), _read_derivative(derivative))


def _read_derivative(derivative: Any) -> Derivative:
    if isinstance(derivative, (DerivativeMode, LPGD, Smoothed)):
        return derivative
    if not isinstance(derivative, str) or derivative not in _DERIVATIVES:
        names = ", ".join(f"'{name}'" for name in _DERIVATIVES)
        raise OptionError(
            f"`derivative` is {derivative!r}; it must be one of {names}, "
            "`Smoothed(mu=…)` or `LPGD(tau=…)`. "
            f"{suggest(str(derivative), _DERIVATIVES)}"
        )
    return _DERIVATIVES[derivative]


def read_warm_start(
    warm_start: Any,
    backend: AbstractBackend,
    program: ParametricConeProgram,
    batch_shape: tuple[int, ...],
) -> ConeSolution:
    """Check what a user passed as `warm_start` and return the solutions in it.

    Args:
        warm_start: a `Solution`.
        backend: the solver of the call.
        program: what the call solves.
        batch_shape: its batch dimensions.

    Raises:
        OptionError: it is no `Solution`, or that of another program, or the solver cannot
            use it.
        ShapeError: it has other batch dimensions.
    """
    if not isinstance(warm_start, Solution):
        raise OptionError(
            f"`warm_start` is a {type(warm_start).__name__}; it must be None or the `Solution` "
            "that an earlier `layer.solve(…)` returned."
        )
    if not backend.uses_warm_start:
        raise OptionError(
            f"The solver `{backend.name}` cannot start from an earlier solution; leave "
            f"`warm_start` out, or choose {' or '.join(f'`{name}`' for name in WARM_STARTING)}."
        )
    start = warm_start.starting_point
    if start is None:
        raise OptionError(
            "`warm_start` comes from inside of a transform such as `vmap`, where solutions are not "
            "kept; pass one that a plain call of `solve` returned."
        )
    if not program.is_same_as(start.program):
        raise OptionError(
            "`warm_start` is the solution of another problem; pass one that this layer returned."
        )
    if start.batch_shape != batch_shape:
        raise ShapeError(
            f"`warm_start` has the batch shape {start.batch_shape}, this call {batch_shape}; "
            "pass a solution of the same batch."
        )
    return start.cone
