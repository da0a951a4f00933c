# SPDX-License-Identifier: Apache-2.0
"""Gives a variable of its own to an argument that CVXPY wants free of parameters.

The new equality is DPP, and the elimination puts the argument back where that pays. The
perspective of a function is written out here, because CVXPY does it for solvers of its own only.
"""

from __future__ import annotations

import inspect
from typing import Any

import cvxpy as cp
from cvxpy.reductions.dcp2cone.canonicalizers.perspective_canon import perspective_canon
from cvxpy.utilities import scopes

from cvxlayer.canonicalize.trees import Rewrite, TreeRewriter
from cvxlayer.errors import NotDppError

# Which arguments of which atoms.
_WANT_NO_PARAMETERS = {
    "kron": (0, 1),
    "quad_over_lin": (1,),
    "quantum_rel_entr": (0, 1),
    "SuppFuncAtom": (0,),
}


def set_apart(problem: cp.Problem) -> cp.Problem:
    """Return the problem with such arguments in equalities, after its own constraints.

    Raises:
        NotDppError: a function depends on parameters whose perspective is taken.
    """
    definitions: list[Any] = []

    def replace(node: Any, rewrite: Rewrite) -> Any:
        kind = type(node).__name__
        if kind == "perspective":
            return _write_out_perspective(node, rewrite, definitions)
        places = _WANT_NO_PARAMETERS.get(kind, ())
        moved = [place for place in places if _is_movable(node.args[place])]
        if not moved:
            return None
        arguments = [rewrite(argument) for argument in node.args]
        for place in moved:
            variable = cp.Variable(arguments[place].shape)
            definitions.append(variable == arguments[place])
            # All is real here, so that Hermitian says the same.
            is_symmetric = variable.ndim == 2 and (
                arguments[place].is_symmetric() or arguments[place].is_hermitian()
            )
            arguments[place] = cp.symmetric_wrap(variable) if is_symmetric else variable
        return node.copy(arguments)

    rewritten = TreeRewriter(replace).problem(problem)
    if not definitions:
        return problem
    return cp.Problem(rewritten.objective, [*rewritten.constraints, *definitions])


def _is_movable(argument: Any) -> bool:
    """Whether an argument has parameters and is an affine function of variables."""
    if not (argument.parameters() and argument.variables()):
        return False
    with scopes.dpp_scope():
        return bool(argument.is_affine())


def _write_out_perspective(node: Any, rewrite: Rewrite, definitions: list[Any]) -> Any:
    """Return the variable that stands for s f(x / s), and add what binds it."""
    parameters = node.f.parameters()
    if parameters:
        names = ", ".join(f"`{parameter.name()}`" for parameter in parameters)
        raise NotDppError(
            f"The problem contains `perspective` of a function of the parameters {names}, which "
            "CVXPY would take at their present values. Move the parameters out of the function: "
            "give it a variable and add a constraint that makes this equal to the expression."
        )
    context = {}
    if "solver_context" in inspect.signature(perspective_canon).parameters:
        from cvxpy.utilities.solver_context import SolverInfo  # absent from CVXPY 1.7

        # Any solver with every cone will do; this one comes with CVXPY.
        context = {"solver_context": SolverInfo(solver=cp.CLARABEL)}
    arguments = [rewrite(argument) for argument in node.args]
    variable, constraints = perspective_canon(node, arguments, **context)
    definitions.extend(constraints)
    return variable
