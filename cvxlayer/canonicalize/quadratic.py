# SPDX-License-Identifier: Apache-2.0
"""Puts quadratic forms with a parametric matrix back into P, where `prepare.py` took them out."""

from __future__ import annotations

import dataclasses

import numpy as np

from cvxlayer.canonicalize.affine_matrix import AffineMatrix
from cvxlayer.canonicalize.form import CanonicalForm


@dataclasses.dataclass(frozen=True, eq=False)
class FormPlace:
    """Where CVXPY put the parts of one marked quadratic form.

    Attributes:
        marker: the variable that stands for it in q.
        point: the variables of its point.
        rows: the rows 0 = −matrix(θ), column by column.
    """

    marker: int
    point: np.ndarray
    rows: np.ndarray


def absorb(form: CanonicalForm, places: list[FormPlace]) -> CanonicalForm:
    """Replace each marker with cost c by c zᵀM(θ)z, that is 2c M(θ) in P.

    The marker has a constant cost and appears nowhere else, because only forms that enter
    the objective with a constant factor are marked.
    """
    if not places:
        return form
    total = form.P
    dropped_rows = [np.empty(0, dtype=int)]
    for place in places:
        cost = form.q.take(np.array([place.marker]), None)
        assert not cost.is_parametric.any()
        assert place.marker not in form.A.column
        assert not np.isin(form.A.row, place.rows).any()
        factor = float(cost.value.sum())
        matrix = form.b.take(place.rows, None)
        size = len(place.point)
        part = AffineMatrix.of_terms(
            total.shape,
            total.num_parameters,
            place.point[matrix.row % size],
            place.point[matrix.row // size],
            matrix.parameter,
            # Half of 2c M(θ), with b = −M(θ); its transpose is the other half.
            -factor * matrix.value,
        )
        total = total + part + part.T
        dropped_rows.append(place.rows)
    kept = np.setdiff1d(np.arange(form.A.shape[1]), [place.marker for place in places])
    rows = np.setdiff1d(np.arange(form.A.shape[0]), np.concatenate(dropped_rows))
    return dataclasses.replace(form, P=total).keep_rows(rows).keep_variables(kept)
