# SPDX-License-Identifier: Apache-2.0
"""What CVXPY is told to canonicalize for: a solver with our cones, in our order of rows.

It keeps quadratic objectives, takes bounds as constraints, and never solves anything.
"""

from __future__ import annotations

from typing import Any, ClassVar

import cvxpy as cp
import cvxpy.constraints
import numpy as np
import scipy.sparse as sp
from cvxpy.reductions.solvers.conic_solvers.conic_solver import ConicSolver

# From CVXPY 1.8 on, this is what a semidefinite constraint becomes; before, it stays.
_SEMIDEFINITE = getattr(cvxpy.constraints, "SvecPSD", cp.PSD)
CONES: tuple[type, ...] = (cp.Zero, cp.NonNeg, cp.SOC, _SEMIDEFINITE, cp.ExpCone, cp.PowCone3D)
"""The constraints that it leaves in a problem."""


class ConeFormSolver(ConicSolver):
    """Ends a chain of CVXPY's reductions in the parametrized cone program itself."""

    SUPPORTED_CONSTRAINTS: ClassVar[list[type]] = list(CONES)
    EXP_CONE_ORDER: ClassVar[list[int]] = [0, 1, 2]
    PSD_SQRT2_SCALING = True

    @property
    def PSD_TRIANGLE_KIND(self) -> Any:
        """The lower triangle, column by column; asked by CVXPY ≥ 1.8."""
        from cvxpy.utilities.psd_utils import TriangleKind  # absent from CVXPY 1.7

        return TriangleKind.LOWER

    @staticmethod
    def psd_format_mat(constr: Any) -> sp.csc_array:
        """Return the matrix from a matrix, column by column, to its svec; asked by CVXPY 1.7."""
        order = constr.expr.shape[0]
        column, row = np.triu_indices(order)
        size = np.arange(len(row))
        # Both triangles are read, as the constraint is about the symmetric part.
        weight = np.where(row == column, 0.5, np.sqrt(0.5))
        return sp.csc_array(
            (
                np.concatenate([weight, weight]),
                (
                    np.concatenate([size, size]),
                    np.concatenate([row + order * column, column + order * row]),
                ),
            ),
            shape=(len(row), order * order),
        )

    def name(self) -> str:
        """Return a name that is no solver's of CVXPY."""
        return "CVXLAYER"

    def import_solver(self) -> None:
        """Do nothing: there is nothing to import."""

    def is_installed(self) -> bool:
        """Return that it is."""
        return True

    def supports_quad_obj(self) -> bool:
        """Return that quadratic objectives are kept."""
        return True

    def apply(self, problem: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the cone program, its rows in our order, without evaluating it."""
        formatted = self.format_constraints(problem, self.EXP_CONE_ORDER)
        return {"param_prob": formatted}, {}

    def cite(self, *_: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return no citation."""
        return ""

    def solve_via_data(self, *args: Any, **options: Any) -> Any:
        """Refuse: this is a form, not a solver."""
        raise NotImplementedError("A cone form does not solve.")
