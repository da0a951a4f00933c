# SPDX-License-Identifier: Apache-2.0
"""Cone programs with known properties, built backwards from a solution where they have one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from cvxlayer.cones import projection, semidefinite
from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure


@dataclasses.dataclass(frozen=True, eq=False)
class ConeProgramCase:
    """A batch of cone programs and how each of its rows has to end.

    Attributes:
        name: for the name of the test.
        build: makes the batch.
        status: how every row has to end.
        is_regular: whether the solution and its derivative are unique, so that two good
            solvers and two good derivatives agree.
    """

    name: str
    build: Callable[[np.random.Generator], ConeProgramBatch]
    status: Status = Status.SOLVED
    is_regular: bool = True

    def __str__(self) -> str:
        return self.name


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
    kinks = [np.inf, *np.abs(v[0, cones.zero : cones.num_linear])]
    for cone in cones.curved:
        if cone.kind is ConeKind.SEMIDEFINITE:
            kinks += list(np.abs(np.linalg.eigvalsh(semidefinite.unpack(v[:, cone.rows]))[0]))
            continue
        t, norm = v[0, cone.rows][0], np.linalg.norm(v[0, cone.rows][1:])
        kinks += [abs(t - norm), abs(t + norm)]
    root = projection.project_dual_derivative_root(cones, v)[0]
    kkt = np.block([[P, A.T @ root], [root @ A, root @ root - np.eye(len(root))]])
    return min(kinks) < 0.05 or np.linalg.svd(kkt, compute_uv=False)[-1] < 0.02


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


def _quadratic(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=8, cones=ConeProduct(2, 9))


def _linear(rng: np.random.Generator) -> ConeProgramBatch:
    """A linear program whose solution is a nondegenerate vertex."""
    n, num_equalities, m = 6, 2, 12
    blocks = []
    for _ in range(3):
        A, x = rng.normal(size=(num_equalities + m, n)), rng.normal(size=n)
        is_active = np.arange(num_equalities + m) < n
        y = np.where(is_active, rng.uniform(0.5, 2.0, size=num_equalities + m), 0.0)
        s = np.where(is_active, 0.0, rng.uniform(0.5, 2.0, size=num_equalities + m))
        blocks.append((np.zeros((n, n)), -A.T @ y, A, A @ x + s))
    cones = ConeProduct(num_equalities, m)
    return batch_of(cones, *(list(block) for block in zip(*blocks, strict=True)))


def _second_order(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=9, cones=ConeProduct(0, 0, (3, 4, 1, 2)))


def _mixed(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=10, cones=ConeProduct(2, 6, (4, 3)), density=0.5)


def _semidefinite(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=9, cones=ConeProduct(0, 0, semidefinite=(3, 1, 2)))


def _semidefinite_mixed(rng: np.random.Generator) -> ConeProgramBatch:
    cones = ConeProduct(2, 4, (3,), semidefinite=(4, 2))
    return random_batch(rng, n=12, cones=cones, density=0.5)


def _low_rank(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=8, cones=ConeProduct(2, 12, (5, 4)), rank_P=4, density=1.0)


def _equalities_only(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=6, cones=ConeProduct(3))


def _unconstrained(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=5, cones=ConeProduct())


def _one_variable(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=1, cones=ConeProduct(0, 2), density=1.0)


def _one_instance(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=4, cones=ConeProduct(1, 3), batch=1)


def _badly_scaled(rng: np.random.Generator) -> ConeProgramBatch:
    cones = ConeProduct(2, 6, (3,))
    rows = 10.0 ** rng.uniform(-4, 4, size=cones.size)
    rows[cones.curved[0].rows] = 1e-3
    plain = random_batch(rng, n=7, cones=cones)
    return rescaled(plain, 10.0 ** rng.uniform(-4, 4, size=7), rows, 1.0)


def _tiny_objective(rng: np.random.Generator) -> ConeProgramBatch:
    plain = random_batch(rng, n=6, cones=ConeProduct(1, 7))
    return rescaled(plain, np.ones(6), np.ones(8), 1e-6)


def _huge_objective(rng: np.random.Generator) -> ConeProgramBatch:
    plain = random_batch(rng, n=6, cones=ConeProduct(1, 7))
    return rescaled(plain, np.ones(6), np.ones(8), 1e6)


def _infinite_bounds(rng: np.random.Generator) -> ConeProgramBatch:
    batch = random_batch(rng, n=5, cones=ConeProduct(1, 6))
    b = batch.b.copy()
    # Loosening an inactive row leaves the solution; others are loosened in one instance only.
    b[:, 3] = np.inf
    b[0, 5] = np.inf
    return dataclasses.replace(batch, b=b)


def _duplicated_rows(rng: np.random.Generator) -> ConeProgramBatch:
    """Each inequality and each equality stands there twice: primal unique, dual not."""
    plain = random_batch(rng, n=6, cones=ConeProduct(2, 5), density=1.0)
    instances = [plain.instance(index) for index in range(plain.size)]
    twice = [np.repeat(np.arange(7), 2)] * plain.size
    return batch_of(
        ConeProduct(4, 10),
        [_symmetric(P) for P, _, _, _ in instances],
        [q for _, q, _, _ in instances],
        [A.toarray()[rows] for (_, _, A, _), rows in zip(instances, twice, strict=True)],
        [b[rows] for (_, _, _, b), rows in zip(instances, twice, strict=True)],
    )


def _symmetric(P: sp.csc_array) -> np.ndarray:
    dense = P.toarray()
    return dense + np.triu(dense, 1).T


def _infeasible(rng: np.random.Generator) -> ConeProgramBatch:
    """a'x ≤ −1 and −a'x ≤ −1, beside harmless rows."""
    blocks = []
    for _ in range(3):
        a, others = rng.normal(size=(1, 5)), rng.normal(size=(4, 5))
        A = np.concatenate([others, a, -a])
        blocks.append((np.eye(5), rng.normal(size=5), A, np.array([3.0, 3, 3, 3, -1, -1])))
    return batch_of(ConeProduct(0, 6), *(list(block) for block in zip(*blocks, strict=True)))


def _infeasible_cone(rng: np.random.Generator) -> ConeProgramBatch:
    """‖z‖ ≤ t with t fixed to a negative number."""
    blocks = []
    for _ in range(3):
        A = np.concatenate([np.eye(1, 4), -np.eye(4)])
        b = np.concatenate([-rng.uniform(0.5, 1.5, size=1), np.zeros(4)])
        blocks.append((np.zeros((4, 4)), rng.normal(size=4), A, b))
    return batch_of(ConeProduct(1, 0, (4,)), *(list(block) for block in zip(*blocks, strict=True)))


def _unbounded(rng: np.random.Generator) -> ConeProgramBatch:
    """Nothing stops x from going along a direction that P and A do not see."""
    blocks = []
    for _ in range(3):
        root, A = rng.normal(size=(5, 2)), rng.normal(size=(4, 5))
        root[0], A[:, 0] = 0.0, -np.abs(A[:, 0])
        q = rng.normal(size=5)
        q[0] = -1.0
        blocks.append((root @ root.T, q, A, rng.uniform(0.5, 1.0, size=4)))
    return batch_of(ConeProduct(0, 4), *(list(block) for block in zip(*blocks, strict=True)))


def _unbounded_without_constraints(rng: np.random.Generator) -> ConeProgramBatch:
    P = np.diag([1.0, 0.0, 2.0])
    return batch_of(
        ConeProduct(),
        [P] * 2,
        [rng.normal(size=3) for _ in range(2)],
        [np.zeros((0, 3))] * 2,
        [np.zeros(0)] * 2,
    )


SOLVABLE = [
    ConeProgramCase("quadratic", _quadratic),
    ConeProgramCase("linear", _linear),
    ConeProgramCase("second-order", _second_order),
    ConeProgramCase("mixed", _mixed),
    ConeProgramCase("low-rank", _low_rank),
    ConeProgramCase("equalities-only", _equalities_only),
    ConeProgramCase("unconstrained", _unconstrained),
    ConeProgramCase("one-variable", _one_variable),
    ConeProgramCase("one-instance", _one_instance),
    ConeProgramCase("badly-scaled", _badly_scaled),
    ConeProgramCase("tiny-objective", _tiny_objective),
    ConeProgramCase("huge-objective", _huge_objective),
    ConeProgramCase("infinite-bounds", _infinite_bounds),
    ConeProgramCase("duplicated-rows", _duplicated_rows, is_regular=False),
]
REGULAR = [case for case in SOLVABLE if case.is_regular]
SEMIDEFINITE = [
    ConeProgramCase("semidefinite", _semidefinite),
    ConeProgramCase("semidefinite-mixed", _semidefinite_mixed),
]
UNSOLVABLE = [
    ConeProgramCase("infeasible", _infeasible, Status.INFEASIBLE, is_regular=False),
    ConeProgramCase("infeasible-cone", _infeasible_cone, Status.INFEASIBLE, is_regular=False),
    ConeProgramCase("unbounded", _unbounded, Status.UNBOUNDED, is_regular=False),
    ConeProgramCase(
        "unbounded-without-constraints",
        _unbounded_without_constraints,
        Status.UNBOUNDED,
        is_regular=False,
    ),
]
ALL = SOLVABLE + UNSOLVABLE
