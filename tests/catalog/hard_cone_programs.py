# SPDX-License-Identifier: Apache-2.0
"""Random cone programs on which solvers stumble: low rank, badly scaled, degenerate, without
a solution. Built backwards, so that the right answer is known."""

from __future__ import annotations

import numpy as np

from cvxlayer.cones import projection
from cvxlayer.cones.product import ConeProduct
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from tests.catalog.cone_programs import batch_of

FAMILIES = ("feasible", "linear", "scaled", "degenerate", "infeasible", "unbounded")
_EXPECTED = {"infeasible": Status.INFEASIBLE, "unbounded": Status.UNBOUNDED}
_SIZE = 4


def hard_batch(family: str, rng: np.random.Generator) -> tuple[ConeProgramBatch, Status]:
    """Return a small random batch of a family and the status each of its rows must get."""
    n = int(rng.integers(2, 20))
    cones = ConeProduct(
        zero=int(rng.integers(0, n // 2 + 1)),
        nonnegative=int(rng.integers(2, 20)),
        second_order=tuple(int(d) for d in rng.integers(2, 8, size=rng.integers(0, 4))),
        exponential=int(rng.choice([0, 0, 1, 3])),
        power=tuple(rng.uniform(0.05, 0.95, size=rng.choice([0, 0, 1, 2]))),
        semidefinite=tuple(int(k) for k in rng.integers(1, 6, size=rng.integers(0, 3))),
    )
    mask = rng.random((cones.size, n)) < rng.choice([0.3, 1.0])
    instances = [_instance(family, n, cones, mask, rng) for _ in range(_SIZE)]
    P, q, A, b = (list(column) for column in zip(*instances, strict=True))
    return batch_of(cones, P, q, A, b), _EXPECTED.get(family, Status.SOLVED)


def _instance(
    family: str, n: int, cones: ConeProduct, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rank = 0 if family == "linear" else int(rng.integers(0, n + 1))
    root = rng.standard_normal((n, rank))
    P, A, x = root @ root.T, rng.standard_normal((cones.size, n)) * mask, rng.standard_normal(n)
    s, y = complementary_pair(cones, rng)
    if family == "degenerate":
        first = cones.zero
        A[first + 1], s[first + 1] = A[first], s[first]
        y[first : cones.num_linear] *= rng.random(cones.nonnegative) < 0.5
    q, b = -P @ x - A.T @ y, A @ x + s
    if family == "scaled":
        return _rescaled(P, q, A, b, cones, rng)
    if family == "infeasible":
        A, b = _contradicted(A, b, cones, rng)
        # With the new rows, so that the dual stays feasible and only one status is right.
        return P, -P @ x - A.T @ y, A, b
    if family == "unbounded":
        return _with_a_ray(P, q, A, x, s, cones, rng)
    return P, q, A, b


def complementary_pair(
    cones: ConeProduct, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return random s ∈ K and y ∈ K* with sᵀy = 0, strictly complementary."""
    s, y = np.zeros(cones.size), np.zeros(cones.size)
    y[: cones.zero] = rng.standard_normal(cones.zero)
    for i in range(cones.zero, cones.num_linear):
        (y if rng.random() < 0.5 else s)[i] = rng.uniform(0.1, 2.0)
    curved = slice(cones.num_linear, cones.size)
    v = rng.standard_normal((1, cones.size))
    y[curved] = projection.project_dual(cones, v)[0, curved]
    s[curved] = y[curved] - v[0, curved]
    return s, y


def _rescaled(
    P: np.ndarray,
    q: np.ndarray,
    A: np.ndarray,
    b: np.ndarray,
    cones: ConeProduct,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    d = 10.0 ** rng.uniform(-2, 2, len(q))
    e = 10.0 ** rng.uniform(-2, 2, len(b))
    for rows in (cone.rows for cone in cones.curved):
        e[rows] = e[rows.start]
    k = 10.0 ** rng.uniform(-4, 4)
    return k * P * d * d[:, None], k * q * d, e[:, None] * A * d, e * b


def _contradicted(
    A: np.ndarray, b: np.ndarray, cones: ConeProduct, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Replace an inequality so that a positive combination of the linear rows reads 0 ≤ −1."""
    weight, row = np.zeros(cones.size), cones.zero
    weight[: cones.num_linear] = rng.standard_normal(cones.num_linear)
    weight[row : cones.num_linear] = np.abs(weight[row : cones.num_linear])
    weight[row] = 1.0
    A, b = A.copy(), b.copy()
    A[row] = -(weight[:row] @ A[:row] + weight[row + 1 :] @ A[row + 1 :])
    b[row] -= 1.0 + weight @ b
    return A, b


def _with_a_ray(
    P: np.ndarray,
    q: np.ndarray,
    A: np.ndarray,
    x: np.ndarray,
    s: np.ndarray,
    cones: ConeProduct,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Open a direction in which nothing stops the objective from falling."""
    ray = rng.standard_normal(len(q))
    along = np.outer(ray, ray) / (ray @ ray)
    away = np.eye(len(q)) - along
    A = A.copy()
    inequality = slice(cones.zero, cones.num_linear)
    for rows in (slice(0, cones.zero), slice(cones.num_linear, None)):
        A[rows] = A[rows] @ away
    A[inequality] *= np.where(A[inequality] @ ray > 0, -1.0, 1.0)[:, None]
    q = q - ray * (q @ ray + 1.0) / (ray @ ray)
    P = away @ P @ away
    return 0.5 * (P + P.T), q, A, A @ x + s
