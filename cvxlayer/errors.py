# SPDX-License-Identifier: Apache-2.0
"""Every exception and warning of cvxlayer, and the status of a solved instance."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvxlayer.program.derivative_report import DerivativeReport
    from cvxlayer.program.solution import Solution

_MAX_LISTED_FAILURES = 20


class Status(enum.IntEnum):
    """How the solve of one instance ended.

    NOT_CONVEX: the matrix P of the quadratic part of the objective is not positive semidefinite,
        so that a point that meets the optimality conditions need not be a minimum.

    The numbers are shared with the native core (`native/hsde/status.hpp`).
    """

    SOLVED = 0
    INACCURATE = 1
    INFEASIBLE = 2
    UNBOUNDED = 3
    MAX_ITERATIONS = 4
    NUMERICAL_ERROR = 5
    NOT_CONVEX = 6

    @property
    def has_solution(self) -> bool:
        """Whether x, y, s hold an (at least nearly) optimal point."""
        return self in (Status.SOLVED, Status.INACCURATE)


class CvxLayerError(Exception):
    """Root of every exception that cvxlayer raises on purpose."""


class NotDppError(CvxLayerError, ValueError):
    """The problem is not DCP or not DPP; the message names the expression."""


class ShapeError(CvxLayerError, ValueError):
    """An array has the wrong number of dimensions or the wrong shape."""


class ParameterValueError(CvxLayerError, ValueError):
    """A parameter value is missing, not finite or outside its declared domain."""


class OptionError(CvxLayerError, ValueError):
    """An option or its value is unknown; the message names the nearest valid one."""


class UnsupportedProblemError(CvxLayerError, ValueError):
    """The problem is valid but outside what the chosen engine can solve."""


class UnsupportedDerivativeError(CvxLayerError, NotImplementedError):
    """The derivative asked for, such as one of second order, is not available."""


class ProblemFileError(CvxLayerError, ValueError):
    """A file that should define a problem cannot be read, or does not say which one."""


class MissingDependencyError(CvxLayerError, ImportError):
    """An optional package is not installed; the message names the extra to install."""


class SolverError(CvxLayerError, RuntimeError):
    """At least one instance of a batch was not solved.

    Attributes:
        indices: batch indices of the failed instances (tuples for more than one
            batch dimension, plain integers for one, `()` without a batch).
        statuses: the `Status` of each, in the same order.
        solution: the whole `Solution`, with the good rows intact.
    """

    def __init__(
        self,
        indices: Sequence[Any],
        statuses: Sequence[Status],
        solution: Solution[Any] | None = None,
    ) -> None:
        self.indices = list(indices)
        self.statuses = [Status(status) for status in statuses]
        self.solution = solution
        super().__init__(_describe_failures(self.indices, self.statuses))

    def __reduce__(self) -> tuple[Any, ...]:
        return (SolverError, (self.indices, self.statuses, self.solution))


class ConvergenceError(CvxLayerError, RuntimeError):
    """An implicit function, or a linear system of its derivative, was not solved.

    Attributes:
        indices: the rows that failed; `[0]` where there is no batch.
    """

    def __init__(self, message: str, indices: Sequence[int] = ()) -> None:
        self.indices = list(indices)
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ConvergenceError, (str(self), self.indices))


class DerivativeCheckError(CvxLayerError, AssertionError):
    """`check=True` found a derivative that finite differences or its adjoint contradict."""


class CvxLayerWarning(UserWarning):
    """Root of every warning that cvxlayer issues."""


class InaccurateWarning(CvxLayerWarning):
    """Some rows stopped at the iteration limit close to, but short of, the tolerance."""


class DerivativeWarning(CvxLayerWarning):
    """A derivative is not unique or badly conditioned at some rows."""

    def __init__(
        self, message: str, make_report: Callable[[], DerivativeReport] | None = None
    ) -> None:
        self._make_report = make_report
        super().__init__(message)

    @property
    def report(self) -> DerivativeReport | None:
        """The derivative report of the call, made when asked for; None inside of transforms."""
        return None if self._make_report is None else self._make_report()


_REMEDIES = {
    Status.INFEASIBLE: "INFEASIBLE rows have constraints that contradict each other: "
    "relax a constraint or add a slack variable",
    Status.UNBOUNDED: "UNBOUNDED rows have an objective without a lower bound: "
    "add a bound or a regularization term",
    Status.MAX_ITERATIONS: "MAX_ITERATIONS rows need a larger `max_iters` or a larger `eps`",
    Status.NUMERICAL_ERROR: "NUMERICAL_ERROR rows are badly scaled: "
    'rescale the parameters or try `solver="clarabel"`',
    Status.NOT_CONVEX: "NOT_CONVEX rows have a quadratic objective whose matrix P is not positive "
    "semidefinite: correct the matrix of the quadratic form, for example by clipping its negative "
    "eigenvalues",
}


def _describe_failures(indices: Sequence[Any], statuses: Sequence[Status]) -> str:
    shown = ", ".join(
        f"{index}: {status.name}"
        for index, status in list(zip(indices, statuses, strict=True))[:_MAX_LISTED_FAILURES]
    )
    more = len(indices) - _MAX_LISTED_FAILURES
    tail = f" (and {more} more)" if more > 0 else ""
    remedies = "; ".join(_REMEDIES[s] for s in _REMEDIES if s in statuses)
    return (
        f"{len(indices)} instance(s) of the batch were not solved, at batch index "
        f'{shown}{tail}. {remedies}; or pass `on_failure="nan"` to get NaN in these rows '
        "and zero gradients for their parameters."
    )


def suggest(name: str, valid: Iterable[str]) -> str:
    """Return the sentence that ends a refusal of `name`: the nearest valid spelling.

    Args:
        name: what the user typed.
        valid: the names that would have been accepted.

    Returns:
        "Did you mean `eps`?" or, when nothing is near, the list of valid names.
    """
    options = sorted(valid)
    near = difflib.get_close_matches(name, options, n=1)
    return f"Did you mean `{near[0]}`?" if near else f"Valid names: {', '.join(options)}."
