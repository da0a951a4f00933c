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
