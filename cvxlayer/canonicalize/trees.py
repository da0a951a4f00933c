# SPDX-License-Identifier: Apache-2.0
"""Rewrites expression trees: constants for parameters, partial minimization written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
from cvxpy.transforms.partial_optimize import PartialProblem

Rewrite = Callable[[Any], Any]


class TreeRewriter:
    """Replaces nodes of expressions and constraints, each shared node once.

    Args:
        replace: given a node and the function that rewrites its arguments, returns what
            stands for the node, or None to keep it with rewritten arguments.
    """

    def __init__(self, replace: Callable[[Any, Rewrite], Any]) -> None:
        self._replace = replace
        # The node is kept beside its image, or another could take its id.
        self._done: dict[int, tuple[Any, Any]] = {}

    def __call__(self, node: Any) -> Any:
        """Return the rewritten node; itself if nothing in it changes."""
        if id(node) in self._done:
            return self._done[id(node)][1]
        image = self._replace(node, self)
        if image is None:
            arguments = [self(argument) for argument in node.args]
            is_same = all(new is old for new, old in zip(arguments, node.args, strict=True))
            image = node if is_same else node.copy(arguments)
        self._done[id(node)] = (node, image)
        return image

    def problem(self, problem: cp.Problem) -> cp.Problem:
        """Return the rewritten problem; itself if nothing in it changes."""
        objective = self(problem.objective)
        constraints = [self(constraint) for constraint in problem.constraints]
        before = [problem.objective, *problem.constraints]
        if all(new is old for new, old in zip([objective, *constraints], before, strict=True)):
            return problem
        return cp.Problem(objective, constraints)


def write_out_partial(problem: cp.Problem) -> cp.Problem:
    """Return the problem with every partial minimization replaced by what it minimizes.

    Its constraints come after those of the problem. This is CVXPY's own reading, made before
    anything else because its rewriting of trees knows no problem inside an expression.
    """
    inner: list[Any] = []

    def replace(node: Any, rewrite: Rewrite) -> Any:
        if not isinstance(node, PartialProblem):
            return None
        (partial,) = node.args
        inner.extend(rewrite(constraint) for constraint in partial.constraints)
        return rewrite(partial.objective.expr)

    rewritten = TreeRewriter(replace).problem(problem)
    return cp.Problem(rewritten.objective, [*rewritten.constraints, *inner]) if inner else rewritten


def stand_for_partial(
    problem: cp.Problem, *, gp: bool = False
) -> list[tuple[cp.Problem, cp.Problem]]:
    """Return the problem and every one inside it, beside each it with atoms for partial optima.

    An atom has the curvature and the sign of the optimum that it stands for. What is minimized may
    have another, an affine objective say, so the problem that is written out does not tell whether
    the optimum may stand where it stands. Empty if there is no partial optimum.
    """
    inside: list[tuple[cp.Problem, cp.Problem]] = []

    def replace(node: Any, rewrite: Rewrite) -> Any:
        if not isinstance(node, PartialProblem):
            return None
        (partial,) = node.args
        opaque = cp.Problem(rewrite(partial.objective), list(map(rewrite, partial.constraints)))
        inside.append((partial, opaque))
        entries = cp.Variable(2, pos=gp, nonneg=node.is_nonneg(), nonpos=node.is_nonpos())
        return cp.max(entries) if isinstance(partial.objective, cp.Minimize) else cp.min(entries)

    outside = TreeRewriter(replace).problem(problem)
    return [(problem, outside), *inside] if inside else []
