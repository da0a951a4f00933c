# SPDX-License-Identifier: Apache-2.0
"""How batches of cone programs are made: from dense instances, at random, in other units."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp

from cvxlayer.cones import projection, semidefinite
from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure


def batch_of(
    cones: ConeProduct,
    P: list[np.ndarray],
    q: list[np.ndarray],
    A: list[np.ndarray],
    b: list[np.ndarray],
) -> ConeProgramBatch:
    """Return the batch of dense instances; the patterns are the union of their nonzeros.

    Args:
        cones: K.
        P: symmetric, n × n, one of each instance.
        q: n.
        A: m × n.
        b: m.
    """
    P_pattern = sp.csc_array(np.triu(np.any(np.array(P) != 0.0, axis=0)).astype(float))
    A_pattern = sp.csc_array(np.any(np.array(A) != 0.0, axis=0).astype(float))
    for pattern in (P_pattern, A_pattern):
        pattern.sort_indices()
    structure = ConeProgramStructure(
        num_variables=len(q[0]),
        cones=cones,
        P_indptr=P_pattern.indptr.astype(np.int32),
        P_indices=P_pattern.indices.astype(np.int32),
        A_indptr=A_pattern.indptr.astype(np.int32),
        A_indices=A_pattern.indices.astype(np.int32),
    )
    return ConeProgramBatch(
        structure,
        len(q),
        np.array([_entries(P_pattern, dense) for dense in P]),
        np.array(q),
        np.array([_entries(A_pattern, dense) for dense in A]),
        np.array(b),
    )


def _entries(pattern: sp.csc_array, dense: np.ndarray) -> np.ndarray:
    columns = np.repeat(np.arange(pattern.shape[1]), np.diff(pattern.indptr))
    return dense[pattern.indices, columns]


def random_batch(
    rng: np.random.Generator,
    *,
    n: int,
    cones: ConeProduct,
    batch: int = 3,
    rank_P: int | None = None,
    density: float = 0.7,
) -> ConeProgramBatch:
    """Return feasible, bounded programs with a strictly complementary random solution.

    With x and v drawn at random, y = Π(v) and s = y − v are complementary; q and b follow.
    Draws whose solution is nearly degenerate are drawn again: primal and dual are unique.

    Args:
        rng: source of randomness.
        n: number of variables.
        cones: K.
        batch: number of instances.
        rank_P: rank of P; None for n.
        density: share of the entries of A that are not zero.
    """
    m = cones.size
    mask = rng.random((m, n)) < density
    # A row without entries would make every draw degenerate.
    mask[np.arange(m), rng.permutation(max(m, n))[:m] % n] = True
    blocks: list[tuple[np.ndarray, ...]] = []
    while len(blocks) < batch:
        root = rng.normal(size=(n, n if rank_P is None else rank_P))
        P, A = root @ root.T / n, rng.normal(size=(m, n)) * mask
        x, v = rng.normal(size=n), rng.normal(size=(1, m)) * 2.0
        if _is_nearly_degenerate(cones, P, A, v):
            continue
        y = projection.project_dual(cones, v)
        s = (y - v)[0]
        blocks.append((P, -P @ x - A.T @ y[0], A, A @ x + s))
    return batch_of(cones, *(list(block) for block in zip(*blocks, strict=True)))


def _is_nearly_degenerate(cones: ConeProduct, P: np.ndarray, A: np.ndarray, v: np.ndarray) -> bool:
    """Whether v is close to a kink of the projection, or the KKT matrix there to singular."""
    # What costs most is asked last: of most draws it need not be.
    kinks = [np.inf, *np.abs(v[0, cones.zero : cones.num_linear])]
    three_dimensional: list[slice] = []
    for cone in cones.curved:
        if cone.kind is ConeKind.SEMIDEFINITE:
            kinks += list(np.abs(np.linalg.eigvalsh(semidefinite.unpack(v[:, cone.rows]))[0]))
        elif cone.kind in (ConeKind.EXPONENTIAL, ConeKind.POWER):
            three_dimensional.append(cone.rows)
        else:
            t, norm = v[0, cone.rows][0], np.linalg.norm(v[0, cone.rows][1:])
            kinks += [abs(t - norm), abs(t + norm)]
    if min(kinks) < 0.05:
        return True
    root = projection.project_dual_derivative_root(cones, v)[0]
    kkt = np.block([[P, A.T @ root], [root @ A, root @ root - np.eye(len(root))]])
    if np.linalg.svd(kkt, compute_uv=False)[-1] < 0.02:
        return True
    return any(_distance_to_a_kink(cones, v, rows) < 0.05 for rows in three_dimensional)


def _distance_to_a_kink(cones: ConeProduct, v: np.ndarray, rows: slice) -> float:
    """The first of a few distances within which the derivative of the projection jumps."""
    at = projection.project_dual_derivative(cones, v)
    directions = np.concatenate([np.eye(3), -np.eye(3)])
    for distance in (0.01, 0.05, 0.1):
        around = np.repeat(v, 6, axis=0)
        around[:, rows] += distance * directions
        if np.abs(projection.project_dual_derivative(cones, around) - at).max() > 0.3:
            return distance
    return np.inf


def rescaled(
    batch: ConeProgramBatch, columns: np.ndarray, rows: np.ndarray, objective: float
) -> ConeProgramBatch:
    """Return the same programs in other units: x/columns, rows of (A, b) and the cost scaled.

    `rows` has to be constant on each curved cone.
    """
    structure = batch.structure
    P_columns = _columns(structure.P_indptr)
    A_columns = _columns(structure.A_indptr)
    return dataclasses.replace(
        batch,
        P=batch.P * columns[structure.P_indices] * columns[P_columns] * objective,
        q=batch.q * columns * objective,
        A=batch.A * rows[structure.A_indices] * columns[A_columns],
        b=batch.b * rows,
    )


def _columns(indptr: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
