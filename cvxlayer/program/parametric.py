# SPDX-License-Identifier: Apache-2.0
"""θ ↦ (P, q, A, b), sparse and affine, with its adjoint beside it."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure


@dataclasses.dataclass(frozen=True, eq=False)
class AffineMap:
    """θ ↦ matrix θ + offset, applied to a whole batch by one sparse product.

    Attributes:
        matrix: linear part, (entries × p) CSR without stored zeros.
        offset: value at θ = 0, (entries,).
    """

    matrix: sp.csr_array
    offset: Float[np.ndarray, " entries"]

    @property
    def is_constant(self) -> bool:
        """Whether no parameter touches any entry."""
        return self.matrix.nnz == 0

    def evaluate(
        self, theta: Float[np.ndarray, "batch p"]
    ) -> Float[np.ndarray, "batch_or_1 entries"]:
        """Return the entries for each row of θ; one row only if nothing depends on θ.

        The adjoint of its linear part is `adjoint`.
        """
        if self.is_constant:
            return self.offset[None, :]
        return (self.matrix @ theta.T + self.offset[:, None]).T

    def adjoint(
        self, entries_bar: Float[np.ndarray, "batch entries"]
    ) -> Float[np.ndarray, "batch p"]:
        """Return the cotangent of θ for a cotangent of the entries."""
        return (self.matrix.T @ entries_bar.T).T


@dataclasses.dataclass(frozen=True, eq=False)
class QuadraticForm:
    """θ ↦ ½ [θ; 1]ᵀ matrix [θ; 1]: the part of the objective without variables.

    Attributes:
        matrix: symmetric, (p + 1) × (p + 1).
    """

    matrix: sp.csr_array

    def evaluate(self, theta: Float[np.ndarray, "batch p"]) -> Float[np.ndarray, " batch"]:
        """Return the value for each row of θ."""
        extended = np.concatenate([theta, np.ones((theta.shape[0], 1))], axis=1)
        return 0.5 * np.einsum("bi,bi->b", extended, (self.matrix @ extended.T).T)

    def gradient(self, theta: Float[np.ndarray, "batch p"]) -> Float[np.ndarray, "batch p"]:
        """Return the gradient in θ for each row of θ."""
        extended = np.concatenate([theta, np.ones((theta.shape[0], 1))], axis=1)
        return (self.matrix @ extended.T).T[:, :-1]


@dataclasses.dataclass(frozen=True, eq=False)
class ParametricConeProgram:
    """A cone program whose data is affine in the parameters.

    θ stacks the parameters in call order, each flattened in C order (the last index
    fastest), so a batch of values is reshaped and never permuted.

    Attributes:
        structure: sizes, patterns, cones.
        num_parameters: p, the length of θ.
        P, q, A, b: the four affine maps, entries ordered as in `ConeProgramBatch`.
        objective_constant: added to ½xᵀPx + qᵀx to give the canonical objective.
    """

    structure: ConeProgramStructure
    num_parameters: int
    P: AffineMap
    q: AffineMap
    A: AffineMap
    b: AffineMap
    objective_constant: QuadraticForm

    def evaluate(self, theta: Float[np.ndarray, "batch p"]) -> ConeProgramBatch:
        """Return the batch of cone programs for a batch of parameter values."""
        return ConeProgramBatch(
            self.structure,
            theta.shape[0],
            self.P.evaluate(theta),
            self.q.evaluate(theta),
            self.A.evaluate(theta),
            self.b.evaluate(theta),
        )
