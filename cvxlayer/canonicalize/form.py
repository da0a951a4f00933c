# SPDX-License-Identifier: Apache-2.0
"""The cone program between CVXPY's form and the reduced one, with the way back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxlayer.canonicalize.affine_matrix import AffineMatrix
from cvxlayer.canonicalize.answer import AnswerMap
from cvxlayer.cones.product import ConeProduct
from cvxlayer.program.batch import ConeProgramStructure
from cvxlayer.program.infinite import find_infinite_sides
from cvxlayer.program.parameters import ParameterSpec
from cvxlayer.program.parametric import AffineMap, ParametricConeProgram, QuadraticForm


@dataclasses.dataclass(frozen=True, eq=False)
class CanonicalForm:
    """minimize ½xᵀPx + qᵀx + c subject to Ax + s = b, s ∈ K, everything affine in θ.

    Attributes:
        P: n × n, symmetric, both triangles.
        q: n × 1.
        A: m × n.
        b: m × 1.
        constant: c = ½ [θ; 1]ᵀ constant [θ; 1], symmetric.
        cones: K.
        row_group: for each row, the number of the constraint it belongs to.
        primal: the x of CVXPY's form, right for every variable of the user's.
        dual: the y of CVXPY's form, right for every row of the user's.
    """

    P: AffineMatrix
    q: AffineMatrix
    A: AffineMatrix
    b: AffineMatrix
    constant: sp.csr_array
    cones: ConeProduct
    row_group: np.ndarray
    primal: AnswerMap
    dual: AnswerMap

    def shown_variables(self) -> np.ndarray:
        """Return a mask of the variables that an answer to the user depends on."""
        return self.primal.shows_variables() | self.dual.shows_variables()

    def shown_rows(self) -> np.ndarray:
        """Return a mask of the rows whose dual an answer to the user depends on."""
        return self.primal.shows_rows() | self.dual.shows_rows()

    def keep_rows(self, rows: np.ndarray) -> CanonicalForm:
        """Return the form with some of the linear rows dropped; `rows` ascend."""
        num_zero = int(np.sum(rows < self.cones.zero))
        num_nonnegative = int(np.sum(rows < self.cones.num_linear)) - num_zero
        return dataclasses.replace(
            self,
            A=self.A.take(rows, None),
            b=self.b.take(rows, None),
            cones=self.cones.with_linear(num_zero, num_nonnegative),
            row_group=self.row_group[rows],
            primal=self.primal.keep_rows(rows),
            dual=self.dual.keep_rows(rows),
        )

    def keep_variables(self, kept: np.ndarray) -> CanonicalForm:
        """Return the form with some variables dropped, as if they were zero."""
        return dataclasses.replace(
            self,
            P=self.P.take(kept, kept),
            q=self.q.take(kept, None),
            A=self.A.take(None, kept),
            primal=self.primal.keep_variables(kept),
            dual=self.dual.keep_variables(kept),
        )

    def to_program(
        self, specs: tuple[ParameterSpec, ...], *, is_convex: bool = False
    ) -> ParametricConeProgram:
        """Return the same program as sparse affine maps of the given parameters.

        Args:
            specs: the parameters.
            is_convex: whether P is positive semidefinite whatever their values are.
        """
        P_indptr, P_indices, P_matrix, P_offset = self.P.upper_triangle().compressed()
        A_indptr, A_indices, A_matrix, A_offset = self.A.compressed()
        structure = ConeProgramStructure(
            self.P.shape[0], self.cones, P_indptr, P_indices, A_indptr, A_indices, is_convex
        )
        q_matrix, q_offset = self.q.dense_column()
        b_matrix, b_offset = self.b.dense_column()
        return ParametricConeProgram(
            structure,
            tuple(spec.size for spec in specs),
            AffineMap.of(P_matrix, P_offset, specs),
            AffineMap.of(q_matrix, q_offset, specs),
            AffineMap.of(A_matrix, A_offset, specs),
            AffineMap.of(b_matrix, b_offset, specs),
            QuadraticForm(self.constant),
            find_infinite_sides(
                b_matrix, (P_matrix, q_matrix, A_matrix), self.constant, self.cones
            ),
        )


def border(linear: Any) -> sp.csr_array:
    """Return the symmetric M with ½ [θ; 1]ᵀ M [θ; 1] = linear · [θ; 1]."""
    size = linear.shape[1]
    last = sp.csr_array((np.ones(1), (np.array([size - 1]), np.array([0]))), shape=(size, 1))
    half = sp.csr_array(last @ linear)
    return sp.csr_array(half + half.T)
