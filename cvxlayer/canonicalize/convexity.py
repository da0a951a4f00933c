# SPDX-License-Identifier: Apache-2.0
"""Decides, once for a problem, whether solves have to test that P is positive semidefinite."""

from __future__ import annotations

import scipy.sparse as sp

from cvxlayer.canonicalize.affine_matrix import AffineMatrix
from cvxlayer.errors import NotDppError
from cvxlayer.program.convexity import is_positive_semidefinite


def is_surely_convex(P: AffineMatrix) -> bool:
    """Tell whether P is positive semidefinite whatever the parameters are.

    Args:
        P: of CVXPY's form, both triangles. Elimination substitutes variables in it, which leaves
            it positive semidefinite.

    Returns:
        True for a constant P; False for one with parameters, whose declared domains are checked
        where a layer is called but not by who calls the compiled program or the cone program.

    Raises:
        NotDppError: P is constant and has a negative eigenvalue.
    """
    if P.is_parametric.any():
        return False
    if not is_positive_semidefinite(sp.csc_array(sp.triu(P.constant(), format="csc"))):
        raise NotDppError(
            "The objective is not convex: the constant matrix of its quadratic part has a negative "
            "eigenvalue, though it is declared positive semidefinite (`psd_wrap` or "
            "`assume_PSD=True`). Correct the matrix, for example by clipping its negative "
            "eigenvalues."
        )
    return True
