# SPDX-License-Identifier: Apache-2.0
"""The options of a layer, checked once when it is built."""

from __future__ import annotations

import dataclasses
import enum
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


OPTION_NAMES = ("gp", "solver", "solver_args", "derivative", "on_failure", "verbose")


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """The options of a layer, resolved.

    Attributes:
        backend: the solver.
        settings: its settings, which a call may override.
        on_failure: what happens to rows that were not solved.
    """

    backend: AbstractBackend
    settings: Settings
    on_failure: OnFailure

    @property
    def is_native(self) -> bool:
        """Whether the solver is our own engine."""
        return self.backend is get_backend()

    @property
    def is_named(self) -> bool:
        """Whether the solver is one of those that come with cvxlayer."""
        name = self.backend.name
        return name in backend_names() and self.backend is get_backend(name)


def resolve_options(
    *,
    solver: str | AbstractBackend | None = None,
    solver_args: Mapping[str, Any] | None = None,
    derivative: str = "exact",
    on_failure: str = "raise",
    verbose: bool = False,
    unknown: Mapping[str, Any] | None = None,
) -> LayerOptions:
    """Check the options a user passed to `Layer` and resolve them.

    Args:
        solver: name of a solver, a backend of the user's own, or None for our engine.
        solver_args: see `Settings`; unknown names are refused.
        derivative: only "exact".
        on_failure: "raise" or "nan".
        verbose: log one line per call on the logger `cvxlayer`.
        unknown: keywords `Layer` does not have.

    Raises:
        OptionError: an option or its value is not valid; names the nearest valid one.
    """
    for name in unknown or ():
        raise OptionError(f"`Layer` has no option `{name}`. {suggest(name, OPTION_NAMES)}")
    if derivative != "exact":
        raise OptionError(
            f"`derivative` is {derivative!r}; only 'exact' is available in this version. "
            "Leave the option out."
        )
    modes = [mode.value for mode in OnFailure]
    if on_failure not in modes:
        raise OptionError(
            f"`on_failure` is {on_failure!r}; it must be 'raise' or 'nan'. "
            f"{suggest(str(on_failure), modes)}"
        )
    backend = get_backend(solver)
    settings = parse_settings(backend, solver_args, Settings(verbose=verbose))
    return LayerOptions(backend, settings, OnFailure(on_failure))


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
