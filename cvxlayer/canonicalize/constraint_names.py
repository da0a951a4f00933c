# SPDX-License-Identifier: Apache-2.0
"""Which constraint of the user's each row of a cone program comes from, and what to call it.

CVXPY does not say where the rows of an atom come from. They share variables of CVXPY's own with
the constraint, or the objective, that the atom is in; rows that share none with either are what
was declared of a variable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from cvxlayer.canonicalize.form import CanonicalForm
from cvxlayer.canonicalize.rewrites import abridge
from cvxlayer.program.recovery import ConstraintRows


@dataclasses.dataclass(frozen=True, eq=False)
class Origins:
    """Where the rows of each constraint of the cone program, counted by `row_group`, come from.

    Attributes:
        names: the constraints of the user's, the objective, and what variables were declared as.
        of_group: for each constraint of the cone program, a place in `names`.
    """

    names: tuple[str, ...]
    of_group: np.ndarray

    def of_rows(self, form: CanonicalForm) -> ConstraintRows:
        """Return the origin of each row that a form still has."""
        return ConstraintRows(self.names, self.of_group[form.row_group])


def find_origins(
    form: CanonicalForm,
    problem: Any,
    groups: Sequence[Sequence[int]],
    variable_maps: dict[int, sp.csr_array],
) -> Origins:
    """Find where the rows of a form come from.

    Args:
        form: CVXPY's, not reduced.
        problem: the user's.
        groups: for each of its constraints, the groups of rows that stand for it.
        variable_maps: for each of its variables, by id, the matrix from x to its value.
    """
    num_groups = int(form.row_group.max(initial=-1)) + 1
    num_constraints = len(problem.constraints)
    names = [name_of(constraint) for constraint in problem.constraints]
    names += ["the objective"]
    owner = np.full(num_groups, -1)
    for place, own in enumerate(groups):
        owner[list(own)] = place
    variable_of = np.full(form.P.shape[0], -1)
    for place, variable in enumerate(problem.variables()):
        variable_of[variable_maps[variable.id].indices] = place
    components = _components(form, num_groups, variable_of < 0)
    for group in np.flatnonzero(owner < 0).tolist():
        related = owner[np.flatnonzero(components == components[group])]
        known = related[related >= 0]
        if len(known):
            owner[group] = known.min()
            continue
        shown = variable_of[form.A.column[form.row_group[form.A.row] == group]]
        if not len(shown) or (shown < 0).any():
            owner[group] = num_constraints
            continue
        name = f"the declared domain of {problem.variables()[shown.min()].name()}"
        if name not in names:
            names.append(name)
        owner[group] = names.index(name)
    return Origins(tuple(names), owner)


def name_of(constraint: Any) -> str:
    """Return the label of a constraint, or else its expression in one line of bearable length."""
    return getattr(constraint, "label", None) or abridge(constraint)


def _components(form: CanonicalForm, num_groups: int, is_auxiliary: np.ndarray) -> np.ndarray:
    """Return a number for each group: the same where groups share variables of CVXPY's own."""
    pick = is_auxiliary[form.A.column]
    group, column = form.row_group[form.A.row[pick]], num_groups + form.A.column[pick]
    size = num_groups + len(is_auxiliary)
    graph = sp.coo_array((np.ones(len(group)), (group, column)), shape=(size, size))
    return connected_components(graph, directed=False)[1][:num_groups]
