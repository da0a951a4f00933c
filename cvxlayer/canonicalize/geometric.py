# SPDX-License-Identifier: Apache-2.0
"""Geometric programs (DGP) as convex ones, in the logarithms of variables and parameters.

With x = exp(u) a monomial becomes affine in u and a posynomial the exponential of a convex
function; CVXPY's Dgp2Dcp knows how for each atom. What is ours are the leaves: a parameter
becomes one that holds its logarithm, except where it is an exponent, which stays.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.reductions.dgp2dcp.canonicalizers import DgpCanonMethods
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp

from cvxlayer.errors import UnsupportedProblemError


@dataclasses.dataclass(frozen=True, eq=False)
class GeometricProblem:
    """A geometric program in logarithms.

    Attributes:
        problem: the convex problem; its first constraints stand for the user's, one by one.
            The logarithm of its value is the value.
        variables: by the id of each variable of the user's, its logarithm.
        logarithms: by the id of each parameter that is more than an exponent, its logarithm.
    """

    problem: cp.Problem
    variables: dict[int, cp.Variable]
    logarithms: dict[int, cp.Parameter]


def to_logarithms(problem: cp.Problem) -> GeometricProblem:
    """Change the variables of a DGP problem.

    Raises:
        UnsupportedProblemError: a leaf has an attribute that says nothing about logarithms.
    """
    reduction = _ToLogarithms()
    objective: Any
    objective, further = reduction.canonicalize_tree(problem.objective)
    constraints: list[Any] = []
    for constraint in problem.constraints:
        image, auxiliary = reduction.canonicalize_tree(constraint)
        constraints.append(image)
        further = [*further, *auxiliary]
    return GeometricProblem(
        cp.Problem(objective, [*constraints, *further]),
        reduction.variables,
        reduction.logarithms,
    )


class _ToLogarithms(Dgp2Dcp):
    """CVXPY's reduction with leaves of our own: its own differ from version to version."""

    def __init__(self) -> None:
        super().__init__()
        self.canon_methods = DgpCanonMethods()
        self.variables: dict[int, cp.Variable] = {}
        self.logarithms: dict[int, cp.Parameter] = {}

    def canonicalize_expr(self, expr: Any, args: Any, canonicalize_params: bool = True) -> Any:
        """Return the logarithm of an expression, given those of its arguments."""
        if isinstance(expr, cp.Variable):
            return self._variable(expr)
        if isinstance(expr, cp.Parameter):
            if expr.id not in self.logarithms:
                _check_attributes(expr)
                logarithm = cp.Parameter(expr.shape, name=expr.name(), **_shape_of(expr))
                self.logarithms[expr.id] = logarithm
            return self.logarithms[expr.id], []
        return super().canonicalize_expr(expr, args, canonicalize_params)

    def _variable(self, variable: Any) -> tuple[Any, list[Any]]:
        if variable.id in self.variables:
            return self.variables[variable.id], []
        _check_attributes(variable)
        logarithm = cp.Variable(variable.shape, name=variable.name(), **_shape_of(variable))
        self.variables[variable.id] = logarithm
        lower, upper = variable.attributes.get("bounds") or (None, None)
        return logarithm, self._bound(lower, logarithm, 1.0) + self._bound(upper, logarithm, -1.0)

    def _bound(self, bound: Any, logarithm: Any, side: float) -> list[Any]:
        """Return side · (log x − log bound) ≥ 0 as constraints, where the bound is one."""
        if bound is None:
            return []
        if isinstance(bound, cp.Expression):
            image, auxiliary = self.canonicalize_tree(bound)
            return [*auxiliary, side * (logarithm - image) >= 0]
        values = np.broadcast_to(np.asarray(bound, dtype=np.float64), logarithm.shape)
        binds = (values > 0) & np.isfinite(values)
        if side < 0:
            # Nothing positive lies below: the problem has to be found infeasible.
            binds |= values <= 0
        if not binds.any():
            return []
        with np.errstate(divide="ignore"):
            place = np.flatnonzero(binds.ravel(order="F"))
            limits = np.log(np.maximum(values.ravel(order="F")[place], np.finfo(float).tiny))
        return [side * (cp.vec(logarithm, order="F")[place] - limits) >= 0]


def _shape_of(leaf: Any) -> dict[str, bool]:
    """Return the attributes that a leaf shares with its logarithm."""
    return {"symmetric": True} if leaf.attributes["symmetric"] else {}


def _check_attributes(leaf: Any) -> None:
    for name in ("diag", "PSD", "NSD", "sparsity"):
        if leaf.attributes[name]:
            raise UnsupportedProblemError(
                f"`{leaf.name()}` of a geometric program is declared with `{name}`. Every entry "
                "there is positive, and of logarithms that attribute says nothing: drop it."
            )
