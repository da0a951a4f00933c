# SPDX-License-Identifier: Apache-2.0
"""Cone programs with known properties, built backwards from a solution where they have one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from cvxlayer.cones.product import ConeProduct
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from tests.catalog.batches import batch_of, random_batch, rescaled


@dataclasses.dataclass(frozen=True, eq=False)
class ConeProgramCase:
    """A batch of cone programs and how each of its rows has to end.

    Attributes:
        name: for the name of the test.
        build: makes the batch.
        status: how every row has to end.
        is_regular: whether the solution and its derivative are unique, so that two good
            solvers and two good derivatives agree.
        is_three_dimensional: whether it has exponential or power cones.
    """

    name: str
    build: Callable[[np.random.Generator], ConeProgramBatch]
    status: Status = Status.SOLVED
    is_regular: bool = True
    is_three_dimensional: bool = False

    def __str__(self) -> str:
        return self.name


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


def _dense_rows(rng: np.random.Generator) -> ConeProgramBatch:
    """Large enough for derivatives to leave inactive rows out of the matrix."""
    return random_batch(rng, n=20, cones=ConeProduct(2, 15), batch=5, density=1.0)


def _second_order(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=9, cones=ConeProduct(0, 0, (3, 4, 1, 2)))


def _mixed(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=10, cones=ConeProduct(2, 6, (4, 3)), density=0.5)


def _semidefinite(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=9, cones=ConeProduct(0, 0, semidefinite=(3, 1, 2)))


def _semidefinite_mixed(rng: np.random.Generator) -> ConeProgramBatch:
    cones = ConeProduct(2, 4, (3,), semidefinite=(4, 2))
    return random_batch(rng, n=12, cones=cones, density=0.5)


def _unit_diagonal(rng: np.random.Generator) -> ConeProgramBatch:
    """A linear cost over matrices of order 5 with a diagonal of ones: solutions of low rank."""
    column, row = np.triu_indices(5)
    A, b = -np.eye(15)[:, row != column], (row == column).astype(float)
    costs = [rng.normal(size=10) for _ in range(4)]
    cones = ConeProduct(semidefinite=(5,))
    return batch_of(cones, [np.zeros((10, 10))] * 4, costs, [A] * 4, [b] * 4)


def _badly_scaled_semidefinite(rng: np.random.Generator) -> ConeProgramBatch:
    cones = ConeProduct(1, 3, semidefinite=(3, 2))
    rows = 10.0 ** rng.uniform(-4, 4, size=cones.size)
    for cone, size in zip(cones.curved, (1e-3, 1e2), strict=True):
        rows[cone.rows] = size
    plain = random_batch(rng, n=8, cones=cones)
    return rescaled(plain, 10.0 ** rng.uniform(-4, 4, size=8), rows, 1.0)


def _exponential(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=8, cones=ConeProduct(exponential=3))


def _power(rng: np.random.Generator) -> ConeProgramBatch:
    return random_batch(rng, n=8, cones=ConeProduct(power=(0.3, 0.5, 0.9)))


def _three_dimensional_mixed(rng: np.random.Generator) -> ConeProgramBatch:
    cones = ConeProduct(2, 4, (3,), exponential=2, power=(0.2, 0.6))
    return random_batch(rng, n=12, cones=cones, density=0.5)


def _badly_scaled_exponential(rng: np.random.Generator) -> ConeProgramBatch:
    cones = ConeProduct(1, 3, exponential=2, power=(0.4,))
    rows = 10.0 ** rng.uniform(-4, 4, size=cones.size)
    for cone, size in zip(cones.curved, (1e-3, 1e2, 10.0), strict=True):
        rows[cone.rows] = size
    plain = random_batch(rng, n=9, cones=cones)
    return rescaled(plain, 10.0 ** rng.uniform(-4, 4, size=9), rows, 1.0)


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


def _infeasible_semidefinite(rng: np.random.Generator) -> ConeProgramBatch:
    """A matrix of order 2 with a negative number on its diagonal."""
    A = np.array([[0.0], [-1.0], [0.0]])
    bounds = [np.array([1.0, 0.0, -c]) for c in rng.uniform(0.5, 2.0, size=3)]
    costs = [rng.normal(size=1) for _ in range(3)]
    cones = ConeProduct(semidefinite=(2,))
    return batch_of(cones, [np.zeros((1, 1))] * 3, costs, [A] * 3, bounds)


def _unbounded_semidefinite(rng: np.random.Generator) -> ConeProgramBatch:
    """maximize x with x I + C ⪰ 0."""
    A = np.array([[-1.0], [0.0], [-1.0]])
    bounds = [rng.normal(size=3) for _ in range(3)]
    cones = ConeProduct(semidefinite=(2,))
    return batch_of(cones, [np.zeros((1, 1))] * 3, [-np.ones(1)] * 3, [A] * 3, bounds)


def _infeasible_exponential(rng: np.random.Generator) -> ConeProgramBatch:
    """exp(x₁) ≤ x₂ and exp(−x₁) ≤ c − x₂ with c < 2."""
    A = np.array([[-1.0, 0], [0, 0], [0, -1], [1, 0], [0, 0], [0, 1]])
    b = np.array([0.0, 1, 0, 0, 1, 0])
    last = np.eye(6)[5]
    bounds = [b + c * last for c in rng.uniform(-1.0, 1.5, size=3)]
    costs = list(rng.normal(size=(3, 2)))
    return batch_of(ConeProduct(exponential=2), [np.zeros((2, 2))] * 3, costs, [A] * 3, bounds)


def _infeasible_power(rng: np.random.Generator) -> ConeProgramBatch:
    """√(x₁x₂) ≥ 1 + c with x₁ + x₂ ≤ 2."""
    A = np.array([[1.0, 1], [-1, 0], [0, -1], [0, 0]])
    bounds = [np.array([2.0, 0, 0, 1.0 + c]) for c in rng.uniform(0.2, 1.0, size=3)]
    costs = list(rng.normal(size=(3, 2)))
    cones = ConeProduct(0, 1, power=(0.5,))
    return batch_of(cones, [np.zeros((2, 2))] * 3, costs, [A] * 3, bounds)


def _unbounded_exponential(rng: np.random.Generator) -> ConeProgramBatch:
    """minimize x₁ with exp(x₁) ≤ x₂."""
    A = np.array([[-1.0, 0], [0, 0], [0, -1]])
    costs = [np.array([rate, 0.0]) for rate in rng.uniform(0.5, 2.0, size=3)]
    cones, b = ConeProduct(exponential=1), np.array([0.0, 1, 0])
    return batch_of(cones, [np.zeros((2, 2))] * 3, costs, [A] * 3, [b] * 3)


def _unbounded_power(rng: np.random.Generator) -> ConeProgramBatch:
    """minimize x₁ + x₂ − c z with |z| ≤ x₁^0.3 x₂^0.7 and c above 1/(0.3^0.3 0.7^0.7) = 1.84."""
    costs = [np.array([1.0, 1.0, -c]) for c in rng.uniform(2.2, 3.0, size=3)]
    cones, A = ConeProduct(power=(0.3,)), -np.eye(3)
    return batch_of(cones, [np.zeros((3, 3))] * 3, costs, [A] * 3, [np.zeros(3)] * 3)


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


SEMIDEFINITE = [
    ConeProgramCase("semidefinite", _semidefinite),
    ConeProgramCase("semidefinite-mixed", _semidefinite_mixed),
]
SOLVABLE = [
    ConeProgramCase("quadratic", _quadratic),
    ConeProgramCase("linear", _linear),
    ConeProgramCase("dense-rows", _dense_rows),
    ConeProgramCase("second-order", _second_order),
    ConeProgramCase("mixed", _mixed),
    *SEMIDEFINITE,
    ConeProgramCase("semidefinite-low-rank", _unit_diagonal),
    ConeProgramCase("badly-scaled-semidefinite", _badly_scaled_semidefinite),
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
    ConeProgramCase("exponential", _exponential, is_three_dimensional=True),
    ConeProgramCase("power", _power, is_three_dimensional=True),
    ConeProgramCase("three-dimensional-mixed", _three_dimensional_mixed, is_three_dimensional=True),
    ConeProgramCase(
        "badly-scaled-exponential", _badly_scaled_exponential, is_three_dimensional=True
    ),
]
REGULAR = [case for case in SOLVABLE if case.is_regular]
UNSOLVABLE = [
    ConeProgramCase(name, build, status, False, name.endswith(("exponential", "power")))
    for name, build, status in [
        ("infeasible", _infeasible, Status.INFEASIBLE),
        ("infeasible-cone", _infeasible_cone, Status.INFEASIBLE),
        ("infeasible-semidefinite", _infeasible_semidefinite, Status.INFEASIBLE),
        ("infeasible-exponential", _infeasible_exponential, Status.INFEASIBLE),
        ("infeasible-power", _infeasible_power, Status.INFEASIBLE),
        ("unbounded", _unbounded, Status.UNBOUNDED),
        ("unbounded-without-constraints", _unbounded_without_constraints, Status.UNBOUNDED),
        ("unbounded-semidefinite", _unbounded_semidefinite, Status.UNBOUNDED),
        ("unbounded-exponential", _unbounded_exponential, Status.UNBOUNDED),
        ("unbounded-power", _unbounded_power, Status.UNBOUNDED),
    ]
]
ALL = SOLVABLE + UNSOLVABLE
THREE_DIMENSIONAL = [case for case in ALL if case.is_three_dimensional]
