# SPDX-License-Identifier: Apache-2.0
"""Rewrites a problem so that CVXPY canonicalizes it with its parameters, not without.

Parameters that are not inputs become constants before DPP is judged, so they may multiply
inputs. Parameters in the point of a `quad_form` move into an equality of their own, which
the elimination puts back where that pays. A `quad_form` whose matrix depends on inputs
leaves a marker behind, a scalar variable, and CVXPY is shown its matrix as if it were a
constraint; `quadratic.py` then puts the matrix into P. So every CVXPY version will do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import cvxpy as cp
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.utilities import scopes

from cvxlayer.canonicalize.leaves import full_value


@dataclasses.dataclass(frozen=True, eq=False)
class MarkedForm:
    """A quadratic form of the objective whose matrix depends on inputs.

    Attributes:
        marker: the scalar variable that stands for it.
        point: the variable that its point equals.
        matrix: the constraint `matrix == 0`, to be read and dropped.
    """

    marker: cp.Variable
    point: cp.Variable
    matrix: Any


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedProblem:
    """A problem ready to be read, beside the one it stands for.

    Attributes:
        original: the user's problem.
        fixed: the same with its constants in place.
        rewritten: what CVXPY gets; its first constraints stand for the user's, one by one.
        marked_forms: what was taken out of its objective.
    """

    original: cp.Problem
    fixed: cp.Problem
    rewritten: cp.Problem
    marked_forms: tuple[MarkedForm, ...]


def prepare(problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> PreparedProblem:
    """Rewrite a problem for the given inputs.

    Raises:
        ParameterValueError: a parameter that is not an input has no value.
    """
    fixed = _with_constants(problem, parameters)
    replacements: dict[int, Any] = {}
    definitions: list[Any] = []
    marked: list[MarkedForm] = []
    for form in _quadratic_forms(fixed.objective.expr):
        point, matrix = form.args
        if id(form) in replacements or not (point.parameters() or matrix.parameters()):
            continue
        variable = cp.Variable(point.shape)
        definitions.append(variable == point)
        if matrix.parameters():
            marked.append(MarkedForm(cp.Variable(), variable, matrix == 0))
            definitions.append(marked[-1].matrix)
            replacements[id(form)] = marked[-1].marker
        else:
            replacements[id(form)] = QuadForm(variable, matrix)
    if not replacements:
        return PreparedProblem(problem, fixed, fixed, ())
    objective = fixed.objective.tree_copy(id_objects=replacements)
    rewritten = cp.Problem(objective, [*fixed.constraints, *definitions])
    return PreparedProblem(problem, fixed, rewritten, tuple(marked))


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


def _quadratic_forms(expression: Any) -> Iterator[Any]:
    """Yield every `quad_form` that enters an expression with a constant factor."""
    kind = type(expression).__name__
    if isinstance(expression, QuadForm):
        with scopes.dpp_scope():
            is_affine = all(argument.is_affine() for argument in expression.args)
        if is_affine:
            yield expression
    elif kind in ("AddExpression", "NegExpression", "Sum", "Promote") or (
        kind in ("MulExpression", "multiply", "DivExpression")
        and any(not a.parameters() and not a.variables() for a in expression.args)
    ):
        for argument in expression.args:
            yield from _quadratic_forms(argument)
