# SPDX-License-Identifier: Apache-2.0
"""Rewrites a problem so that CVXPY canonicalizes it with its parameters, not without.

In this order: partial minimizations are written out; parameters that are not inputs become
constants, so that they may multiply inputs; a geometric program changes to logarithms; complex
leaves become real ones; arguments that CVXPY wants free of parameters are set apart; quadratic
forms with parameters are taken apart; and what CVXPY would do to a constraint in ways that differ
between versions is done to it here.

Parameters in the point of a `quad_form` move into an equality of their own, which the
elimination puts back where that pays. A `quad_form` whose matrix depends on inputs leaves a
marker behind, a scalar variable, and CVXPY is shown its matrix as if it were a constraint;
`quadratic.py` then puts the matrix into P. So every CVXPY version will do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.utilities import scopes

from cvxlayer.canonicalize.geometric import GeometricProblem, to_logarithms
from cvxlayer.canonicalize.leaves import domain_of, full_value
from cvxlayer.canonicalize.real import Part, RealProblem, split_complex
from cvxlayer.canonicalize.rules import check_disciplined, check_parametrized, check_partial
from cvxlayer.canonicalize.set_apart import set_apart
from cvxlayer.canonicalize.stand_ins import StandIn, stand_in_for
from cvxlayer.canonicalize.trees import (
    Rewrite,
    TreeRewriter,
    stand_for_partial,
    write_out_partial,
)
from cvxlayer.program.coordinates import Coordinate, Coordinates
from cvxlayer.program.parameters import ParameterSpec

# The class behind `cvxpy.power`, whose name and number differ between versions.
_POWERS = ("power", "Power", "PowerApprox")


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
        rewritten: what CVXPY gets.
        stand_ins: for each constraint of the user's, what stands for it in `rewritten`.
        marked_forms: what was taken out of its objective.
        specs: the inputs, in call order.
        coordinates: θ, made of the inputs.
        inputs: each parameter of `rewritten` that depends on θ, with the matrix from θ to its
            entries (C order).
        outputs: by the id of each variable of the user's, the variables that hold it.
        is_geometric: whether these are its logarithm.
    """

    original: cp.Problem
    rewritten: cp.Problem
    stand_ins: tuple[StandIn, ...]
    marked_forms: tuple[MarkedForm, ...]
    specs: tuple[ParameterSpec, ...]
    coordinates: Coordinates
    inputs: tuple[tuple[cp.Parameter, Any], ...]
    outputs: dict[int, tuple[Part, ...]]
    is_geometric: bool


def prepare(
    problem: cp.Problem, parameters: Sequence[cp.Parameter], *, gp: bool = False
) -> PreparedProblem:
    """Check a problem by the rules and rewrite it for the given inputs.

    Raises:
        NotDppError: the problem is not DCP (DGP) or not DPP.
        UnsupportedProblemError: it needs integers, or has nothing to solve for.
        ParameterValueError: a parameter that is not an input has no value.
    """
    fixed = _with_constants(write_out_partial(problem), parameters)
    check_disciplined(fixed, len(problem.constraints), gp=gp)
    for one, opaque in stand_for_partial(problem, gp=gp):
        check_partial(one, _with_constants(opaque, parameters), gp=gp)
    geometric = to_logarithms(fixed) if gp else GeometricProblem(fixed, {}, {})
    real = split_complex(geometric.problem)
    taken_apart, marked = _take_forms_apart(set_apart(real.problem))
    check_parametrized(taken_apart, fixed.variables(), len(problem.constraints))
    count = len(problem.constraints)
    stand_ins = tuple(stand_in_for(constraint) for constraint in taken_apart.constraints[:count])
    rewritten = cp.Problem(
        taken_apart.objective,
        [c for one in stand_ins for c in one.constraints] + taken_apart.constraints[count:],
    )
    coordinates, inputs = _read_inputs(rewritten, parameters, geometric, real)
    return PreparedProblem(
        problem,
        rewritten,
        stand_ins,
        marked,
        tuple(
            ParameterSpec(p.name(), tuple(p.shape), domain_of(p), bool(p.is_complex()))
            for p in parameters
        ),
        coordinates,
        inputs,
        {
            variable.id: real.parts_of(geometric.variables.get(variable.id, variable))
            for variable in problem.variables()
        },
        gp,
    )


def _with_constants(problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> cp.Problem:
    """Return the problem with every parameter that is not an input replaced by its value."""
    inputs = {parameter.id for parameter in parameters}

    def is_constant(node: Any) -> bool:
        return isinstance(node, cp.Parameter) and node.id not in inputs

    def replace(node: Any, rewrite: Rewrite) -> Any:
        # Exponents are no arguments of their atoms.
        if type(node).__name__ in _POWERS and is_constant(node.p):
            value = float(full_value(node.p)[0])
            return type(node)(rewrite(node.args[0]), value, node.max_denom)
        if type(node).__name__ == "gmatmul" and is_constant(node.A):
            return cp.gmatmul(full_value(node.A).reshape(node.A.shape), rewrite(node.args[0]))
        if not is_constant(node):
            return None
        value = cp.Constant(full_value(node).reshape(node.shape))
        return cp.psd_wrap(value) if node.attributes["PSD"] else value

    return TreeRewriter(replace).problem(problem)


def _take_forms_apart(problem: cp.Problem) -> tuple[cp.Problem, tuple[MarkedForm, ...]]:
    """Take the parameters of quadratic forms out of the objective."""
    replacements: dict[int, Any] = {}
    definitions: list[Any] = []
    marked: list[MarkedForm] = []
    for form in _quadratic_forms(problem.objective.expr):
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
        return problem, ()
    objective = TreeRewriter(lambda node, _: replacements.get(id(node)))(problem.objective)
    return cp.Problem(objective, [*problem.constraints, *definitions]), tuple(marked)


def _read_inputs(
    rewritten: cp.Problem,
    parameters: Sequence[cp.Parameter],
    geometric: GeometricProblem,
    real: RealProblem,
) -> tuple[Coordinates, tuple[tuple[cp.Parameter, Any], ...]]:
    """Say how θ is made of the inputs, and the parameters of the problem of θ."""
    present = {parameter.id for parameter in rewritten.parameters()}
    leaves: list[tuple[Coordinate, tuple[Part, ...]]] = []
    for index, parameter in enumerate(parameters):
        logarithm = geometric.logarithms.get(parameter.id)
        if logarithm is None or parameter.id in present:
            leaves.append((Coordinate(index), real.parts_of(parameter)))
        if logarithm is not None:
            leaves.append((Coordinate(index, is_log=True), real.parts_of(logarithm)))
    sizes = [int(part.matrix.shape[0]) for _, (part, *_) in leaves]
    ends = np.cumsum([0, *sizes])
    inputs: list[tuple[cp.Parameter, Any]] = []
    for (_, parts), start, size in zip(leaves, ends, sizes, strict=False):
        places = sp.csr_array(
            (np.ones(size), (np.arange(size), start + np.arange(size))), shape=(size, ends[-1])
        )
        for part in parts:
            # Its columns are orthogonal: this is the least-squares inverse.
            counts = np.asarray(abs(part.matrix).sum(axis=0)).ravel()
            back = sp.diags_array(1.0 / counts) @ part.matrix.T @ places
            inputs.append((part.leaf, sp.csr_array(back)))
    return Coordinates(tuple(coordinate for coordinate, _ in leaves)), tuple(inputs)


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
