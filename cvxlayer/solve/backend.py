# SPDX-License-Identifier: Apache-2.0
"""What a solver must be able to do, and the settings every solver understands."""

from __future__ import annotations

import abc
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from cvxlayer.errors import OptionError, Status, suggest
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure
from cvxlayer.program.cone_derivative import ConeDerivative
from cvxlayer.program.solution import ConeSolution

_LOGGER = logging.getLogger("cvxlayer")
_LARGEST_COUNT = 2**31 - 2


@dataclasses.dataclass(frozen=True)
class Settings:
    """Solver settings; each backend converts them in its own file.

    Attributes:
        eps_abs, eps_rel: a row is SOLVED when every residual is below
            `eps_abs + eps_rel * scale`, the scale being the largest term in it.
        max_iters: iteration limit of one row; None for the backend's own default.
        threads: threads over the batch; None for all cores this process may use.
        verbose: log one line per call on the logger `cvxlayer`.
        extra: options only the chosen backend knows, passed on after it checked them.
        warm_start: solutions of other data of the same structure, one for each row, to
            start from; only for a backend that `uses_warm_start`.
    """

    eps_abs: float = 1e-8
    eps_rel: float = 1e-8
    max_iters: int | None = None
    threads: int | None = None
    verbose: bool = False
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    warm_start: ConeSolution | None = None


class AbstractBackend(abc.ABC):
    """A solver of batches of cone programs. Stateless: `setup` returns all it needs.

    Attributes:
        name: what `solver=` accepts.
        extra_options: names `solver_args` may contain beyond those of `Settings`.
        uses_warm_start: whether `Settings.warm_start` means something to it; a layer refuses
            a warm start otherwise.
    """

    name: str
    extra_options: frozenset[str] = frozenset()
    uses_warm_start: bool = False

    @abc.abstractmethod
    def setup(self, structure: ConeProgramStructure) -> Any:
        """Do the work that depends on the structure alone; the result is passed to `solve`.

        Raises:
            UnsupportedProblemError: the structure has a cone this solver lacks.
        """

    @abc.abstractmethod
    def solve(self, prepared: Any, batch: ConeProgramBatch, settings: Settings) -> ConeSolution:
        """Solve every instance; a failed one gets a status and never an exception.

        Must be safe to call from several threads with the same `prepared`.
        """

    def finish(
        self, prepared: Any, batch: ConeProgramBatch, settings: Settings, solution: ConeSolution
    ) -> None:
        """Complete, in place, solutions that a first pass of `solve` left; nothing by default."""
        del prepared, batch, settings, solution

    def derivative(self, settings: Settings) -> ConeDerivative | None:
        """Return an engine of derivatives of the backend's own, or None for ours.

        Called after each solve with its settings; must return the same object each time.
        """
        del settings
        return None


def log_solve(backend: AbstractBackend, solution: ConeSolution) -> None:
    """Log what became of a batch in one line, for `verbose=True`."""
    statuses, counts = np.unique(solution.status, return_counts=True)
    _LOGGER.info(
        "%s: %d rows (%s), at most %d iterations, %.3g s",
        backend.name,
        len(solution.status),
        ", ".join(f"{n} {Status(c).name}" for c, n in zip(statuses, counts, strict=True)) or "none",
        solution.iterations.max(initial=0),
        solution.solve_seconds,
    )


def parse_settings(
    backend: AbstractBackend,
    solver_args: Mapping[str, Any] | None,
    defaults: Settings | None = None,
) -> Settings:
    """Turn the user's `solver_args` into `Settings`, on top of `defaults`.

    Raises:
        OptionError: a name or a value is not valid; names the nearest valid one.
    """
    settings = defaults or Settings()
    if not solver_args:
        return settings
    own = {"eps", "eps_abs", "eps_rel", "max_iters", "threads", "verbose"}
    changes: dict[str, Any] = {}
    extra = dict(settings.extra)
    for name, value in solver_args.items():
        if name == "eps":
            changes["eps_abs"] = changes["eps_rel"] = _positive_float(name, value)
        elif name in ("eps_abs", "eps_rel"):
            changes[name] = _positive_float(name, value)
        elif name in ("max_iters", "threads"):
            changes[name] = _positive_int(name, value)
        elif name == "verbose":
            changes[name] = bool(value)
        elif name in backend.extra_options:
            extra[name] = value
        else:
            valid = own | backend.extra_options
            raise OptionError(
                f"`solver_args` has no option `{name}` for the solver `{backend.name}`. "
                f"{suggest(name, valid)}"
            )
    return dataclasses.replace(settings, extra=extra, **changes)


def _positive_float(name: str, value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value < float("inf")
    ):
        raise OptionError(
            f"The option `{name}` is {value!r}; it must be a positive number, such as 1e-8."
        )
    return float(value)


def _positive_int(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(
            f"The option `{name}` is {value!r}; it must be a positive integer or None."
        )
    # Solvers count in 32 bits; as a limit this is none.
    return min(value, _LARGEST_COUNT)
