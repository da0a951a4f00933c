# SPDX-License-Identifier: Apache-2.0
"""Checks before anything is read: arguments, DCP or DGP, DPP, and what the engine can take.

Each refusal names the constraint or the objective, the expression in it that breaks the
rule, and a rewrite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cvxpy as cp

from cvxlayer.canonicalize.rewrites import (
    abridge,
    explain_not_dcp,
    explain_not_dgp,
    explain_not_dpp,
    explain_not_dpp_in_logarithms,
)
from cvxlayer.errors import NotDppError, UnsupportedProblemError


def check_arguments(
    problem: cp.Problem, parameters: Sequence[Any], variables: Sequence[Any]
) -> None:
    """Check that `parameters` and `variables` fit the problem.

    Raises:
        ValueError: one is repeated, of the wrong type or not in the problem.
    """
    if not isinstance(problem, cp.Problem):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"`problem` is {type(problem).__name__}; it must be a `cvxpy.Problem`. "
            "Build one with `cvxpy.Problem(objective, constraints)`."
        )
    _check_listed("parameters", parameters, cp.Parameter, {p.id for p in problem.parameters()})
    known = {v.id for v in problem.variables()}
    known |= {dual.id for c in problem.constraints for dual in c.dual_variables}
    _check_listed("variables", variables, cp.Variable, known)


def _check_listed(what: str, listed: Sequence[Any], kind: type, known: set[int]) -> None:
    seen: set[int] = set()
    for place, leaf in enumerate(listed):
        if not isinstance(leaf, kind):
            raise ValueError(
                f"`{what}[{place}]` is {leaf!r} of type {type(leaf).__name__}; it must be a "
                f"`cvxpy.{kind.__name__}`. Pass the objects the problem was built from."
            )
        if leaf.id in seen:
            raise ValueError(
                f"`{what}[{place}]`, `{leaf.name()}`, is listed twice. Each may appear once: "
                "remove the repetition."
            )
        if leaf.id not in known:
            duals = " nor a dual variable of one of its constraints" if what == "variables" else ""
            raise ValueError(
                f"`{what}[{place}]`, `{leaf.name()}`, does not appear in the problem{duals}. "
                "Pass the objects the problem was built from, or leave it out."
            )
        seen.add(leaf.id)


def check_disciplined(problem: cp.Problem, num_own: int, *, gp: bool = False) -> None:
    """Check that the problem, with constants in place, is DCP, or DGP and DPP, and continuous.

    Args:
        problem: the user's problem.
        num_own: how many of its constraints are the user's; others come from within.
        gp: whether to judge it as a geometric program.

    Raises:
        UnsupportedProblemError: integers, no variable.
        NotDppError: not DCP; with `gp`, not DGP or not DPP.
    """
    if not problem.variables():
        raise UnsupportedProblemError(
            "The problem has no variable, so there is nothing to solve for. "
            "Add the variable that the objective should choose."
        )
    _check_leaves(problem)
    for name, part in _parts(problem, num_own):
        if gp and not part.is_dgp():
            raise NotDppError(explain_not_dgp(name, part))
        if gp and not part.is_dgp(dpp=True):
            raise NotDppError(explain_not_dpp_in_logarithms(name, part))
        if not gp and not part.is_dcp():
            raise NotDppError(explain_not_dcp(name, part))


def check_partial(problem: cp.Problem, opaque: cp.Problem, *, gp: bool = False) -> None:
    """Check that partial optima stand where their curvature lets them.

    Args:
        problem: the user's, or one inside it; DCP (DGP) once it is written out.
        opaque: the same with an atom for each partial optimum, and constants in place.
        gp: whether to judge it as a geometric program.

    Raises:
        NotDppError: one does not.
    """
    num_own = len(problem.constraints)
    for (name, _), (_, part) in zip(_parts(problem, num_own), _parts(opaque, num_own), strict=True):
        if not (part.is_dgp() if gp else part.is_dcp()):
            raise NotDppError(
                f"In {name} the optimal value of a `partial_optimize` stands where its curvature "
                "does not allow it. A partial minimum is convex and a partial maximum concave: "
                "bound the one from above and the other from below only."
            )


def check_parametrized(problem: cp.Problem, variables: Sequence[Any], num_own: int) -> None:
    """Check that a DCP problem is DPP.

    Args:
        problem: the problem without quadratic forms that depend on parameters.
        variables: the user's, whose bounds may depend on parameters.
        num_own: as of `check_disciplined`.

    Raises:
        NotDppError: it is not.
    """
    for name, part in _parts(problem, num_own):
        if not part.is_dcp(dpp=True):
            raise NotDppError(explain_not_dpp(name, part))
    for variable in variables:
        if not getattr(variable, "is_dpp", lambda: True)():
            raise NotDppError(
                f"The bounds of the variable `{variable.name()}` are not DPP. Bounds must be "
                "affine in the parameters: declare one parameter for each bound."
            )


def _parts(problem: cp.Problem, num_own: int) -> Iterator[tuple[str, Any]]:
    """Yield the objective and the constraints with the names errors use."""
    yield f"the objective, `{abridge(problem.objective)}`,", problem.objective
    for place, constraint in enumerate(problem.constraints):
        name = f"constraint {place}" if place < num_own else "a constraint of a part"
        yield f"{name}, `{abridge(constraint)}`,", constraint


def _check_leaves(problem: cp.Problem) -> None:
    """Refuse integer leaves."""
    for variable in problem.variables():
        if variable.attributes["integer"] or variable.attributes["boolean"]:
            raise UnsupportedProblemError(
                f"The variable `{variable.name()}` is integer or boolean. Only continuous convex "
                "problems have the derivative a layer needs: drop the attribute (relax the "
                "variable to an interval)."
            )
    if any(type(constraint).__name__ == "FiniteSet" for constraint in problem.constraints):
        raise UnsupportedProblemError(
            "The problem has a `FiniteSet` constraint, which needs integer variables. Only "
            "continuous convex problems have a derivative: relax it to an interval."
        )
