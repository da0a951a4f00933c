# SPDX-License-Identifier: Apache-2.0
"""Small cone programs of every sort on which a solver may stumble, each built around a proof of
how it has to end: a solution, or a certificate that there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from cvxlayer.cones import projection
from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from tests.catalog.cone_programs import batch_of
from tests.catalog.hard_cone_programs import complementary_pair

#: Instances of one structure.
SIZE = 3


@dataclasses.dataclass(frozen=True)
class Program:
    """One dense cone program with the proof of how it ends.

    Attributes:
        P, q, A, b, cones: its data, P symmetric.
        status: how it has to end.
        x, s: a solution, or for UNBOUNDED a ray: Px = 0, Ax + s = 0, qᵀx < 0, s ∈ K.
        y: a solution, or for INFEASIBLE a certificate: Aᵀy = 0, bᵀy < 0, y ∈ K*.
    """

    P: np.ndarray
    q: np.ndarray
    A: np.ndarray
    b: np.ndarray
    cones: ConeProduct
    status: Status
    x: np.ndarray
    y: np.ndarray
    s: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class KnownBatch:
    """Programs of one structure with their proofs.

    Attributes:
        family, sort: what they are.
        batch: the programs.
        programs: the same, dense, with the proofs.
    """

    family: str
    sort: str
    batch: ConeProgramBatch
    programs: tuple[Program, ...]

    @property
    def status(self) -> Status:
        """How every row has to end."""
        return self.programs[0].status


Sizes = Callable[[np.random.Generator, int], ConeProduct]


def _linear(rng: np.random.Generator, n: int) -> ConeProduct:
    return ConeProduct(int(rng.integers(0, n // 2 + 1)), int(rng.integers(n, 2 * n + 3)))


def _with_linear(rng: np.random.Generator, n: int) -> tuple[int, int]:
    return int(rng.integers(0, n // 3 + 1)), int(rng.integers(2, n + 2))


def _second_order(rng: np.random.Generator, n: int) -> ConeProduct:
    dimensions = tuple(int(d) for d in rng.integers(2, 10, size=rng.integers(1, 4)))
    return ConeProduct(*_with_linear(rng, n), dimensions)


def _semidefinite(rng: np.random.Generator, n: int) -> ConeProduct:
    orders = tuple(int(k) for k in rng.integers(2, 6, size=rng.integers(1, 3)))
    return ConeProduct(*_with_linear(rng, n), semidefinite=orders)


def _exponential(rng: np.random.Generator, n: int) -> ConeProduct:
    return ConeProduct(*_with_linear(rng, n), exponential=int(rng.integers(1, 5)))


def _power(rng: np.random.Generator, n: int) -> ConeProduct:
    powers = tuple(rng.uniform(0.05, 0.95, size=rng.integers(1, 4)))
    return ConeProduct(*_with_linear(rng, n), power=powers)


def _mixed(rng: np.random.Generator, n: int) -> ConeProduct:
    return ConeProduct(
        *_with_linear(rng, n),
        (int(rng.integers(2, 8)),),
        (int(rng.integers(2, 5)),),
        1,
        (float(rng.uniform(0.1, 0.9)),),
    )


#: The cones, and whether there is a quadratic part.
SORTS: dict[str, tuple[Sizes, bool]] = {
    "linear": (_linear, False),
    "quadratic": (_linear, True),
    "second-order": (_second_order, False),
    "semidefinite": (_semidefinite, False),
    "exponential": (_exponential, False),
    "power": (_power, False),
    "mixed": (_mixed, True),
}


def known_batch(family: str, sort: str, rng: np.random.Generator) -> KnownBatch:
    """Return a few random programs of a family and a sort."""
    sizes, is_quadratic = SORTS[sort]
    n = int(rng.integers(3, 13))
    cones = sizes(rng, n)
    mask = rng.random((cones.size, n)) < rng.choice([0.5, 1.0])
    rank = int(rng.integers(1, n + 1)) if is_quadratic else 0
    programs = tuple(FAMILIES[family](_Draw(n, cones, mask, rank, rng)) for _ in range(SIZE))
    blocks = ([getattr(program, name) for program in programs] for name in ("P", "q", "A", "b"))
    return KnownBatch(family, sort, batch_of(programs[0].cones, *blocks), programs)


@dataclasses.dataclass(frozen=True)
class _Draw:
    """What the instances of a batch share, and where their numbers come from."""

    n: int
    cones: ConeProduct
    mask: np.ndarray
    rank: int
    rng: np.random.Generator

    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Return P and A."""
        root = self.rng.standard_normal((self.n, self.rank))
        return root @ root.T, self.rng.standard_normal(self.mask.shape) * self.mask


def _solved(
    P: np.ndarray, A: np.ndarray, x: np.ndarray, y: np.ndarray, s: np.ndarray, cones: ConeProduct
) -> Program:
    return Program(P, -P @ x - A.T @ y, A, A @ x + s, cones, Status.SOLVED, x, y, s)


def _feasible(draw: _Draw) -> Program:
    P, A = draw.matrices()
    s, y = complementary_pair(draw.cones, draw.rng)
    return _solved(P, A, draw.rng.standard_normal(draw.n), y, s, draw.cones)


def _degenerate(draw: _Draw) -> Program:
    """Twice as many active constraints as needed, and some without a multiplier."""
    P, A = draw.matrices()
    s, y = complementary_pair(draw.cones, draw.rng)
    inequality = slice(draw.cones.zero, draw.cones.num_linear)
    count = draw.cones.nonnegative
    s[inequality] = 0.0
    y[inequality] = draw.rng.uniform(0.1, 2.0, count) * (draw.rng.random(count) < 0.4)
    for cone in draw.cones.curved[: len(draw.cones.curved) // 2]:
        y[cone.rows] = 0.0  # at the border of its cone without a multiplier
    return _solved(P, A, draw.rng.standard_normal(draw.n), y, s, draw.cones)


def _redundant(draw: _Draw) -> Program:
    """Every linear row stands there twice, the second time in another unit."""
    program, cones = _feasible(draw), draw.cones
    zero, linear = cones.zero, cones.num_linear
    again = [*range(zero), *range(zero), *range(zero, linear), *range(zero, linear)]
    rows = np.array(again + list(range(linear, cones.size)), dtype=int)
    unit = np.ones(len(rows))
    unit[zero : 2 * zero] = draw.rng.uniform(0.5, 2.0, zero)
    unit[zero + linear : 2 * linear] = draw.rng.uniform(0.5, 2.0, linear - zero)
    y = program.y[rows] / unit
    y[: 2 * linear] /= 2.0
    twice = ConeProduct(
        2 * zero, 2 * cones.nonnegative, *(getattr(cones, name) for name in _CURVED)
    )
    A, s = unit[:, None] * program.A[rows], unit * program.s[rows]
    return _solved(program.P, A, program.x, y, s, twice)


_CURVED = ("second_order", "semidefinite", "exponential", "power")


def _rank_deficient(draw: _Draw) -> Program:
    """Some variables are combinations of others, and so are some equality rows."""
    P, A = draw.matrices()
    rng, cut = draw.rng, max(1, draw.n // 2)
    mix = rng.standard_normal((cut, draw.n - cut))
    A[:, cut:] = A[:, :cut] @ mix
    P[:, cut:] = P[:, :cut] @ mix
    P[cut:] = mix.T @ P[:cut]
    zero = draw.cones.zero
    if zero > 1:
        A[zero - 1] = rng.standard_normal(zero - 1) @ A[: zero - 1]
    s, y = complementary_pair(draw.cones, rng)
    P = 0.5 * (P + P.T)
    return _solved(P, A, rng.standard_normal(draw.n), y, s, draw.cones)


def _narrow(draw: _Draw) -> Program:
    """Feasible by a hair: a slab of width 1e-6 around the solution, and a half-space."""
    P, A = draw.matrices()
    s, y = complementary_pair(draw.cones, draw.rng)
    first = draw.cones.zero
    A[first + 1] = -A[first]
    y[first] = y[first + 1] = 0.0
    s[first], s[first + 1] = 1e-6 * draw.rng.random(), 1e-6
    return _solved(P, A, draw.rng.standard_normal(draw.n), y, s, draw.cones)


def _far(draw: _Draw) -> Program:
    """A solution of size 1e4 beside data of size one."""
    P, A = draw.matrices()
    s, y = complementary_pair(draw.cones, draw.rng)
    return _solved(P, A, 1e4 * draw.rng.standard_normal(draw.n), y, s, draw.cones)


def _infeasible(draw: _Draw, contradiction: float = 1.0) -> Program:
    """Aᵀy = 0 and bᵀy = −contradiction with y inside of K*; the dual stays feasible."""
    P, A = draw.matrices()
    rng, cones = draw.rng, draw.cones
    y = projection.project_dual(cones, rng.standard_normal((1, cones.size)))[0]
    y += 0.5 * inside(cones)
    y /= np.linalg.norm(y)
    A = A - np.outer(y, y @ A)
    b = (
        A @ rng.standard_normal(draw.n)
        + projection.project(cones, rng.standard_normal((1, cones.size)))[0]
    )
    b -= y * (y @ b + contradiction)
    dual = projection.project_dual(cones, rng.standard_normal((1, cones.size)))[0]
    x = rng.standard_normal(draw.n)
    q = -P @ x - A.T @ dual
    return Program(P, q, A, b, cones, Status.INFEASIBLE, x, y, np.zeros(cones.size))


def _barely_infeasible(draw: _Draw) -> Program:
    return _infeasible(draw, 1e-3)


def _unbounded(draw: _Draw, decrease: float = 1.0) -> Program:
    """Px = 0, Ax + s = 0 and qᵀx = −decrease with s inside of K, at a feasible program."""
    P, A = draw.matrices()
    rng, cones = draw.rng, draw.cones
    ray = rng.standard_normal(draw.n)
    ray /= np.linalg.norm(ray)
    s = projection.project(cones, rng.standard_normal((1, cones.size)))[0]
    s += 0.5 * inside(cones)
    A = A - np.outer(A @ ray + s, ray)
    away = np.eye(draw.n) - np.outer(ray, ray)
    P = away @ P @ away
    slack = projection.project(cones, rng.standard_normal((1, cones.size)))[0]
    b = A @ rng.standard_normal(draw.n) + slack
    q = rng.standard_normal(draw.n)
    q -= ray * (q @ ray + decrease)
    P, y = 0.5 * (P + P.T), np.zeros(cones.size)
    return Program(P, q, A, b, cones, Status.UNBOUNDED, ray, y, s)


def _barely_unbounded(draw: _Draw) -> Program:
    return _unbounded(draw, 1e-3)


def _scaled(program: Program, rng: np.random.Generator) -> Program:
    """The same in units of 1e-3 to 1e3, the cost in 1e-6 to 1e6."""
    d = 10.0 ** rng.uniform(-3, 3, len(program.q))
    e = 10.0 ** rng.uniform(-3, 3, len(program.b))
    for cone in program.cones.curved:
        e[cone.rows] = e[cone.rows.start]
    k = 10.0 ** rng.uniform(-6, 6)
    return dataclasses.replace(
        program,
        P=k * program.P * d * d[:, None],
        q=k * program.q * d,
        A=e[:, None] * program.A * d,
        b=e * program.b,
        x=program.x / d,
        y=k * program.y / e,
        s=e * program.s,
    )


def inside(cones: ConeProduct) -> np.ndarray:
    """Return a point inside of both K and K*; zero on equality rows."""
    point = np.zeros(cones.size)
    point[cones.zero : cones.num_linear] = 1.0
    for cone in cones.curved:
        if cone.kind is ConeKind.SECOND_ORDER:
            point[cone.rows.start] = 1.0
        elif cone.kind is ConeKind.SEMIDEFINITE:
            order = int(cone.parameter)
            diagonal = np.cumsum([0, *range(order, 1, -1)])
            point[cone.rows.start + diagonal] = 1.0
        elif cone.kind is ConeKind.EXPONENTIAL:
            point[cone.rows] = (-1.05, 0.56, 1.26)
        else:
            point[cone.rows] = (np.sqrt(1.0 + cone.parameter), np.sqrt(2.0 - cone.parameter), 0.0)
    return point


FAMILIES: dict[str, Callable[[_Draw], Program]] = {
    "feasible": _feasible,
    "badly scaled": lambda draw: _scaled(_feasible(draw), draw.rng),
    "degenerate": _degenerate,
    "redundant": _redundant,
    "rank-deficient": _rank_deficient,
    "nearly infeasible": _narrow,
    "far away": _far,
    "infeasible": _infeasible,
    "barely infeasible": _barely_infeasible,
    "infeasible, badly scaled": lambda draw: _scaled(_infeasible(draw), draw.rng),
    "unbounded": _unbounded,
    "barely unbounded": _barely_unbounded,
    "unbounded, badly scaled": lambda draw: _scaled(_unbounded(draw), draw.rng),
}
