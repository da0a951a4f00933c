# SPDX-License-Identifier: Apache-2.0
"""Checks before anything is read: arguments, DCP, DPP, and what the engine can take.

Each refusal names the constraint or the objective, the expression in it that breaks the
rule, and a rewrite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cvxpy as cp

from cvxlayer.canonicalize.prepare import PreparedProblem
from cvxlayer.canonicalize.rewrites import abridge, explain_not_dcp, explain_not_dpp
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


def check_problem(prepared: PreparedProblem, *, gp: bool = False) -> None:
    """Check that the problem is DCP and DPP and that the engine can take it.

    Raises:
        UnsupportedProblemError: integers, complex numbers, geometric program, no variable.
        NotDppError: not DCP, or not DPP.
    """
    problem = prepared.fixed
    if gp:
        raise UnsupportedProblemError(
            "Geometric programs (`gp=True`) need the exponential cone, which this version does "
            "not have. Write the problem in log variables with quadratic or linear terms only."
        )
    if not problem.variables():
        raise UnsupportedProblemError(
            "The problem has no variable, so there is nothing to solve for. "
            "Add the variable that the objective should choose."
        )
    _check_leaves(problem)
    for name, part in _parts(problem):
        if not part.is_dcp():
            raise NotDppError(explain_not_dcp(name, part))
    for name, part in _parts(prepared.rewritten):
        if not part.is_dcp(dpp=True):
            raise NotDppError(explain_not_dpp(name, part))
    for variable in problem.variables():
        if not getattr(variable, "is_dpp", lambda: True)():
            raise NotDppError(
                f"The bounds of the variable `{variable.name()}` are not DPP. Bounds must be "
                "affine in the parameters: declare one parameter for each bound."
            )


def _parts(problem: cp.Problem) -> Iterator[tuple[str, Any]]:
    """Yield the objective and the constraints with the names errors use."""
    yield f"the objective, `{abridge(problem.objective)}`,", problem.objective
    for place, constraint in enumerate(problem.constraints):
        yield f"constraint {place}, `{abridge(constraint)}`,", constraint


def _check_leaves(problem: cp.Problem) -> None:
    """Refuse integer and complex leaves."""
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
    leaves = [*problem.variables(), *problem.parameters(), *problem.constants()]
    for leaf in leaves:
        if leaf.is_complex():
            raise UnsupportedProblemError(
                f"`{leaf.name()}` is complex. This version takes real problems only: write the "
                "real and the imaginary part as two real arrays."
            )


# Which cone an atom needs, for atoms whose cone is not always second-order or linear.
_CONE_OF_ATOM: dict[str, tuple[str, ...]] = {
    "ExpCone": (
        "exp", "log", "log1p", "entr", "kl_div", "rel_entr", "log_sum_exp", "logistic", "xexp",
        "log_det", "perspective",
    ),
    "PSD": (
        "lambda_max", "lambda_sum_largest", "sigma_max", "normNuc", "MatrixFrac", "log_det",
        "tr_inv", "von_neumann_entr", "quantum_rel_entr", "QuadForm",
    ),
    "PowCone": ("Power", "PowerApprox", "Pnorm", "PnormApprox", "geo_mean", "GeoMean",
                "GeoMeanApprox"),
}  # fmt: skip


def describe_unsupported_cone(problem: cp.Problem, constraint: Any) -> str:
    """Return the refusal of a problem whose form has a cone the engine lacks."""
    kind = type(constraint).__name__
    family = next((f for f in _CONE_OF_ATOM if f.lower() in kind.lower()), kind)
    culprits: list[str] = []
    for name, part in _parts(problem):
        atoms = [a.__name__ for a in part.atoms() if a.__name__ in _CONE_OF_ATOM.get(family, ())]
        if type(part).__name__ in (kind, family):
            culprits.append(f"{name} is a {family} constraint")
        elif atoms:
            listed = ", ".join(f"`{atom}`" for atom in dict.fromkeys(atoms))
            culprits.append(f"{name} uses {listed}")
    if family == "PSD":
        culprits += [
            f"the variable `{v.name()}` is declared PSD or NSD"
            for v in problem.variables()
            if v.attributes["PSD"] or v.attributes["NSD"]
        ]
    where = "; ".join(culprits) or "it comes from an atom of the problem"
    return (
        f"The problem needs the {_CONE_NAMES.get(family, family)} cone: {where}. This version "
        "solves with zero, nonnegative and second-order cones: replace the atom by a linear, "
        "quadratic or norm expression."
    )


_CONE_NAMES = {"ExpCone": "exponential", "PSD": "positive semidefinite", "PowCone": "power"}
