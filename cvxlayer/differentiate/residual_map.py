# SPDX-License-Identifier: Apache-2.0
"""The optimality conditions of one cone program as an equation, and its linearization.

    residual(x, v) = (P x + Aᵀ Π(v) + q,  A x + Π(v) − v − b) = 0

where Π projects onto K*, y = Π(v) and s = Π(v) − v. This is the homogeneous residual map
with its free scale fixed to τ = 1. Everything here is dense and for one instance: it is
the readable specification of `native/adjoint/`, which the tests hold it against.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from cvxlayer.cones import projection
from cvxlayer.cones.product import ConeProduct

# Eigenvalues of the KKT matrix below this times the largest count as zero. The matrix is
# equilibrated, its entries are of order one, and rounding leaves about 1e-15.
RANK_TOLERANCE = 1e-11

_MAX_REFINEMENTS = 3
_MAX_POLISH_STEPS = 10
# A complementarity that can tell the faces: there the derivative is that of the solution.
_ON_CENTRAL_PATH = 1e-12
_ROUNDING = 1e-14  # of sᵀy, relative to both


@dataclasses.dataclass(frozen=True, eq=False)
class DenseProgram:
    """One cone program, dense, in whichever scaling it was made in.

    Attributes:
        cones: K.
        P: n × n, both triangles.
        q: n.
        A: m × n.
        b: m, finite.
    """

    cones: ConeProduct
    P: Float[np.ndarray, "n n"]
    q: Float[np.ndarray, " n"]
    A: Float[np.ndarray, "m n"]
    b: Float[np.ndarray, " m"]


@dataclasses.dataclass(frozen=True, eq=False)
class ComplementaryPoint:
    """A primal-dual point that is complementary by construction: y = Π(v), s = Π(v) − v.

    Attributes:
        cones: K.
        x: primal point.
        v: y − s.
        is_active: for each linear row, whether it holds with equality in the neighbourhood
            where we differentiate. Equalities are, unless one was dropped as redundant.
        smoothing: μ, if the symmetric curved cones are to be taken on the central path.
        multiplier: y, where it is not Π(v) because of that.
    """

    cones: ConeProduct
    x: Float[np.ndarray, " n"]
    v: Float[np.ndarray, " m"]
    is_active: Bool[np.ndarray, " num_linear"]
    smoothing: float = 0.0
    multiplier: Float[np.ndarray, " m"] | None = None

    @property
    def y(self) -> Float[np.ndarray, " m"]:
        """The dual point, Π(v)."""
        if self.multiplier is not None:
            return self.multiplier
        y = projection.project_dual(self.cones, self.v[None])[0]
        linear = slice(0, self.cones.num_linear)
        y[linear] = np.where(self.is_active, y[linear], 0.0)
        return y

    @property
    def s(self) -> Float[np.ndarray, " m"]:
        """The slack, Π(v) − v."""
        return self.y - self.v

    def projection_root(self) -> Float[np.ndarray, "m m"]:
        """Return S, the square root of D = DΠ(v); on linear rows 1 if active and 0 if not."""
        if self.smoothing > 0.0:
            root = projection.smoothed_derivative_root(self.cones, self.v[None], self.smoothing)[0]
        else:
            root = projection.project_dual_derivative_root(self.cones, self.v[None])[0]
        linear = np.arange(self.cones.num_linear)
        root[linear, linear] = self.is_active
        return root


def residual(
    program: DenseProgram, point: ComplementaryPoint
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Return (P x + Aᵀy + q, A x + s − b): zero at the solution, for whatever (x, v)."""
    y = point.y
    return (
        program.P @ point.x + program.A.T @ y + program.q,
        program.A @ point.x + y - point.v - program.b,
    )


class KktMatrix:
    """The symmetric matrix of the linearized optimality conditions, ready to solve with.

        K = [ P      AᵀS   ]     S = D^{1/2},  D = DΠ(v)
            [ S A   D − I  ]

    A row of K that belongs to an inactive constraint is −1 on the diagonal and nothing else.
    Where K is singular, `solve` returns the shortest solution in the least-squares sense.

    Source:
        `docs/derivations/derivative.md`, "The symmetric system".

    Attributes:
        eigenvalues, eigenvectors: of K.
    """

    def __init__(self, program: DenseProgram, root: Float[np.ndarray, "m m"]) -> None:
        coupling = root @ program.A
        identity = np.eye(len(root))
        self._num_variables = len(program.q)
        self._matrix = np.block([[program.P, coupling.T], [coupling, root @ root - identity]])
        self.eigenvalues, self.eigenvectors = np.linalg.eigh(self._matrix)
        largest = np.max(np.abs(self.eigenvalues), initial=0.0)
        is_zero = np.abs(self.eigenvalues) <= RANK_TOLERANCE * largest
        self._inverse = np.where(is_zero, 0.0, 1.0 / np.where(is_zero, 1.0, self.eigenvalues))

    def solve(
        self, upper: Float[np.ndarray, " n"], lower: Float[np.ndarray, " m"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"], float]:
        """Solve K (u, w) = (upper, lower), refined until refining no longer helps.

        K is symmetric, so this map is its own adjoint.

        Returns:
            u, w, and the residual relative to the right-hand side.
        """
        right = np.concatenate([upper, lower])
        solution = self._apply_inverse(right)
        remainder = right - self._matrix @ solution
        for _ in range(_MAX_REFINEMENTS):
            refined = solution + self._apply_inverse(remainder)
            refined_remainder = right - self._matrix @ refined
            if np.linalg.norm(refined_remainder) >= np.linalg.norm(remainder):
                break
            solution, remainder = refined, refined_remainder
        size = float(np.linalg.norm(right))
        relative = float(np.linalg.norm(remainder)) / size if size > 0.0 else 0.0
        n = self._num_variables
        return solution[:n], solution[n:], relative

    def _apply_inverse(self, right: np.ndarray) -> np.ndarray:
        return self.eigenvectors @ (self._inverse * (self.eigenvectors.T @ right))


def polish(program: DenseProgram, point: ComplementaryPoint) -> ComplementaryPoint:
    """Remove the solver's error by semismooth Newton steps on `residual`.

    Steps are taken while the residual falls; at a regular solution it does so
    quadratically and one to three of them reach rounding.

    Args:
        program: in equilibrated scaling.
        point: near a solution.

    Returns:
        A point whose residual is not larger.

    Source:
        Busseti, Moursi & Boyd, Solution refinement at regular points of conic problems (2019),
        with the symmetric matrix in place of theirs.
    """
    upper, lower = residual(program, point)
    size = _size(upper, lower)
    for _ in range(_MAX_POLISH_STEPS):
        root = point.projection_root()
        dx, eta, _ = KktMatrix(program, root).solve(-upper, -(root @ lower))
        dv = root @ eta + program.A @ dx + lower
        v = point.v + dv
        num_equalities, num_linear = program.cones.zero, program.cones.num_linear
        is_active = v[:num_linear] > 0.0
        is_active[:num_equalities] = True
        candidate = ComplementaryPoint(program.cones, point.x + dx, v, is_active)
        upper, lower = residual(program, candidate)
        if not _size(upper, lower) < size:
            break
        point, size = candidate, _size(upper, lower)
    return point


def return_to_central_path(
    program: DenseProgram, point: ComplementaryPoint, x: np.ndarray, y: np.ndarray, s: np.ndarray
) -> ComplementaryPoint:
    """Return the solver's own (x, y, s), on the central path, where the polish did not pass it.

    There an eigenvalue of s or y is too small to tell on which face of its cone it lies. The
    derivative of the path is that of the solution but for about μ, and needs to know of no face.

    Args:
        program: in equilibrated scaling.
        point: polished, its linear rows settled.
        x: where the polish began.
        y: the same.
        s: the same.

    Returns:
        That point, or `point` where its residual is below μ = sᵀy/ν of the curved cones.
    """
    mu = central_path_parameter(program.cones, y, s)
    reached = np.abs(np.concatenate(residual(program, point))).max(initial=0.0)
    if mu == 0.0 or reached < mu:
        return point
    return ComplementaryPoint(program.cones, x, y - s, point.is_active, mu, y)


def central_path_parameter(cones: ConeProduct, y: np.ndarray, s: np.ndarray) -> float:
    """Return μ = sᵀy/ν of the curved cones, or zero where that is no more than rounding."""
    curved = slice(cones.num_linear, None)
    mu = float(s[curved] @ y[curved]) / max(sum(cone.degree for cone in cones.curved), 1)
    size = np.abs(y[curved]).max(initial=0.0) * np.abs(s[curved]).max(initial=0.0)
    return mu if mu > _ON_CENTRAL_PATH + _ROUNDING * size else 0.0


def _size(upper: np.ndarray, lower: np.ndarray) -> float:
    return float(np.hypot(np.linalg.norm(upper), np.linalg.norm(lower)))
