# SPDX-License-Identifier: Apache-2.0
"""The cone of symmetric positive semidefinite matrices, as vectors. It is its own dual.

A matrix X of order k is the vector svec(X) of its lower triangle, column by column, with the
off-diagonals times √2, so that svec(X)ᵀsvec(Y) = tr(XY). Everything follows from the
eigenvalues: projecting keeps the positive ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from cvxlayer.cones import central_path


def order_of(size: int) -> int:
    """Return the order k of the matrices whose svec has `size` = k(k+1)/2 entries."""
    order = (math.isqrt(8 * size + 1) - 1) // 2
    assert order * (order + 1) // 2 == size, f"no symmetric matrix has {size} entries"
    return order


def pack(matrix: Float[np.ndarray, "batch order order"]) -> Float[np.ndarray, "batch size"]:
    """Return svec of each symmetric matrix; only the lower triangles are read."""
    row, column = _lower(matrix.shape[1])
    return matrix[:, row, column] * _scale(row, column)


def unpack(point: Float[np.ndarray, "batch size"]) -> Float[np.ndarray, "batch order order"]:
    """Return the symmetric matrix of each svec: the inverse of `pack`, and its adjoint."""
    order = order_of(point.shape[1])
    row, column = _lower(order)
    matrix = np.empty((point.shape[0], order, order))
    matrix[:, row, column] = matrix[:, column, row] = point / _scale(row, column)
    return matrix


def upper_triangle_order(order: int) -> Int[np.ndarray, " size"]:
    """Return where the entries of the upper triangle, column by column, stand in svec.

    Notes:
        `svec[upper_triangle_order(k)]` is the vector of a solver that stacks upper triangles;
        `vector[lower_triangle_order(k)]` is the way back.
    """
    row, column = _lower(order)
    # The upper triangle column by column is the lower one row by row.
    return np.lexsort((column, row))


def lower_triangle_order(order: int) -> Int[np.ndarray, " size"]:
    """Return the inverse permutation of `upper_triangle_order`."""
    return np.argsort(upper_triangle_order(order))


def project(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim"]:
    """Project each row onto the cone: negative eigenvalues become zero.

    Args:
        point: rows svec(X), in any scaling that is constant on the cone.

    Returns:
        The nearest point of the cone, row by row.

    Notes:
        Differentiable where no eigenvalue is zero; where one is, `project_derivative` takes
        the limit in which it is negative.

    Source:
        Malick & Sendov, Clarke generalized Jacobian of the projection onto the cone of
        positive semidefinite matrices, Set-Valued Analysis 14 (2006).
    """
    eigenvalues, vectors = np.linalg.eigh(unpack(point))
    kept = (vectors * np.maximum(eigenvalues, 0.0)[:, None, :]) @ vectors.transpose(0, 2, 1)
    is_inside = np.all(eigenvalues >= 0.0, axis=1, keepdims=True)
    return np.where(is_inside, point, pack(kept))


def project_derivative(point: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, "batch dim dim"]:
    """Return the derivative of `project` at each row: symmetric, 0 ⪯ D ⪯ I.

    Notes:
        With X = V diag(λ) Vᵀ it maps H to V (Ω ∘ (VᵀHV)) Vᵀ. Ω_ij is 1 if both eigenvalues are
        positive, 0 if neither is, and else λ₊/(λ₊ − λ₋), with λ₊ the positive one. Hence it has
        the eigenvalues Ω_ij on the matrices v_i v_jᵀ + v_j v_iᵀ.

    Source:
        `docs/derivations/derivative.md`, "Projections".
    """
    return _spectral(point, lambda weight: weight)


def project_derivative_root(
    point: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the symmetric square root of `project_derivative` at each row."""
    return _spectral(point, np.sqrt)


def project_second_derivative(
    point: Float[np.ndarray, "batch dim"],
    first: Float[np.ndarray, "batch dim"],
    second: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim"]:
    """Return D²Π(v)[p, p'] at each row v: symmetric, and linear in each direction.

    Args:
        point: v = svec(X).
        first: p = svec(H).
        second: p' = svec(H').

    Notes:
        With H and H' in the basis of eigenvectors of X, its entry (i, j) there is

            Σₖ f[λᵢ, λₖ, λⱼ] (Hᵢₖ H'ₖⱼ + H'ᵢₖ Hₖⱼ),    f = max(·, 0),

        f[·, ·, ·] the divided differences of second order.

    Source:
        Daleckii & Krein; Bhatia, Matrix Analysis (1997), section V.3.
    """
    eigenvalues, vectors = np.linalg.eigh(unpack(point))
    inverse = vectors.transpose(0, 2, 1)
    H, G = (inverse @ unpack(direction) @ vectors for direction in (first, second))
    weights = second_divided_differences(eigenvalues)
    half = np.einsum("bikj,bik,bkj->bij", weights, H, G)
    return pack(vectors @ (half + half.transpose(0, 2, 1)) @ inverse)


def second_divided_differences(
    eigenvalues: Float[np.ndarray, "batch order"],
) -> Float[np.ndarray, "batch order order order"]:
    """Return f[λᵢ, λₖ, λⱼ] for f = max(·, 0), a zero eigenvalue counted as negative.

    Two positive ones a, b and one other −c give c/((a+c)(b+c)); one positive a and two others
    −b, −c give a/((a+b)(a+c)); equal signs give zero. Repeated eigenvalues need no limit.
    """
    size, is_positive = np.abs(eigenvalues), eigenvalues > 0.0
    is_mixed = is_positive[:, :, None] != is_positive[:, None, :]
    total = size[:, :, None] + size[:, None, :]
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=is_mixed)
    # Of three, the one whose sign is not that of the others is on two of the mixed pairs.
    lone = size[:, :, None, None] * inverse[:, :, :, None] * inverse[:, :, None, :]
    return lone + np.einsum("bkij->bikj", lone) + np.einsum("bjik->bikj", lone)


def smoothed_derivative_root(
    point: Float[np.ndarray, "batch dim"], mu: float
) -> Float[np.ndarray, "batch dim dim"]:
    """Return the root of the derivative of V ↦ Y on the central path: V = Y − μY⁻¹, Y ≻ 0.

    Notes:
        Like `project_derivative_root`, which is its limit for μ → 0, with another Ω; see
        `central_path.differences`.

    Source:
        `docs/derivations/derivative.md`, "Where the faces cannot be told".
    """
    return _spectral(point, np.sqrt, lambda values: central_path.differences(values, mu))


def divided_differences(
    eigenvalues: Float[np.ndarray, "batch order"],
) -> Float[np.ndarray, "batch order order"]:
    """Return Ω of `project_derivative`: (max(λ_i, 0) − max(λ_j, 0)) / (λ_i − λ_j)."""
    first, second = eigenvalues[:, :, None], eigenvalues[:, None, :]
    positive, negative = np.maximum(first, second), np.minimum(first, second)
    is_mixed = (positive > 0.0) & (negative <= 0.0)
    ratio = np.divide(
        positive, positive - negative, out=np.zeros_like(first - second), where=is_mixed
    )
    return np.where(is_mixed, ratio, np.where(positive > 0.0, 1.0, 0.0))


def _spectral(
    point: np.ndarray,
    function: Callable[[np.ndarray], np.ndarray],
    differences: Callable[[np.ndarray], np.ndarray] = divided_differences,
) -> np.ndarray:
    """Return Q diag(function(svec Ω)) Qᵀ, with Q the congruence H ↦ V H Vᵀ on vectors."""
    eigenvalues, vectors = np.linalg.eigh(unpack(point))
    row, column = _lower(vectors.shape[1])
    weights = function(differences(eigenvalues))[:, row, column]
    congruence = _congruence(vectors)
    product = (congruence * weights[:, None, :]) @ congruence.transpose(0, 2, 1)
    return 0.5 * (product + product.transpose(0, 2, 1))


def _congruence(vectors: np.ndarray) -> np.ndarray:
    """Return the orthogonal matrix Q with svec(V H Vᵀ) = Q svec(H), for each orthogonal V."""
    row, column = _lower(vectors.shape[1])
    left, right = vectors[:, row], vectors[:, column]
    # Entry (a, c) for a, c ∈ {(i, j)}: half the √2 of both, and each pair in both orders.
    both = left[:, :, row] * right[:, :, column] + left[:, :, column] * right[:, :, row]
    scale = _scale(row, column)
    return both * (scale[:, None] * scale[None, :]) * 0.5


def _lower(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of each entry of svec."""
    column, row = np.triu_indices(order)
    return row, column


def _scale(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    return np.where(row == column, 1.0, math.sqrt(2.0))


# Self-dual.
project_dual = project
project_dual_derivative = project_derivative
project_dual_derivative_root = project_derivative_root
project_dual_second_derivative = project_second_derivative
