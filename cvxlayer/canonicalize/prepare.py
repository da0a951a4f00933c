# SPDX-License-Identifier: Apache-2.0
"""Rewrites a problem so that CVXPY canonicalizes it with its parameters, not without.

Parameters that are not inputs become constants before DPP is judged, so they may multiply
inputs. Parameters in the point of a `quad_form` move into an equality of their own: CVXPY
otherwise refuses them, and the elimination puts them back where that pays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import cvxpy as cp
from cvxpy.atoms.quad_form import QuadForm

from cvxlayer.canonicalize.leaves import full_value


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedProblem:
    """A problem ready to be read, beside the one it stands for.

    Attributes:
        original: the user's problem.
        rewritten: equivalent; its first constraints stand for the user's, one by one.
    """

    original: cp.Problem
    rewritten: cp.Problem


def prepare(problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> PreparedProblem:
    """Rewrite a problem for the given inputs.

    Raises:
        ParameterValueError: a parameter that is not an input has no value.
    """
    fixed = _with_constants(problem, parameters)
    return PreparedProblem(problem, _with_plain_quadratic_forms(fixed))


def _with_constants(problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> cp.Problem:
    """Return the problem with every parameter that is not an input replaced by its value."""
    inputs = {parameter.id for parameter in parameters}
    constants: dict[int, Any] = {}
    for parameter in problem.parameters():
        if parameter.id not in inputs:
            value = cp.Constant(full_value(parameter).reshape(parameter.shape))
            is_psd = parameter.attributes["PSD"]
            constants[id(parameter)] = cp.psd_wrap(value) if is_psd else value
    if not constants:
        return problem
    return cp.Problem(
        problem.objective.tree_copy(id_objects=constants),
        [constraint.tree_copy(id_objects=constants) for constraint in problem.constraints],
    )


def _with_plain_quadratic_forms(problem: cp.Problem) -> cp.Problem:
    """Return the problem with a variable for each parametric point of a `quad_form`."""
    plain: dict[int, Any] = {}
    definitions: list[Any] = []
    for form in _quadratic_forms(problem.objective.expr):
        point, matrix = form.args
        if point.parameters() and id(form) not in plain:
            variable = cp.Variable(point.shape)
            plain[id(form)] = QuadForm(variable, matrix)
            definitions.append(variable == point)
    if not plain:
        return problem
    objective = problem.objective.tree_copy(id_objects=plain)
    return cp.Problem(objective, [*problem.constraints, *definitions])


def _quadratic_forms(expression: Any) -> Iterator[Any]:
    """Yield every `quad_form` in an expression."""
    if isinstance(expression, QuadForm):
        yield expression
    for argument in expression.args:
        yield from _quadratic_forms(argument)
