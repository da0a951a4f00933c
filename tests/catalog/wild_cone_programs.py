# SPDX-License-Identifier: Apache-2.0
"""Cone programs as nobody would write them, for Hypothesis to search: empty, repeated, without
bounds, contradictory, indefinite, far out of scale, and with numbers that are none."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
from hypothesis import strategies as st

from cvxlayer.cones import projection
from cvxlayer.cones.product import ConeProduct
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure
from tests.catalog.cone_programs import rescaled

BLOCKS = ("P", "q", "A", "b")
LAYOUTS = ("rows", "columns", "strided", "backwards")
# Numbers that are legal doubles and illegal, or nearly so, as data.
TROUBLE = (
    *(float("nan"), float("inf"), float("-inf")),
    *(1e300, -1e300, 1e160, 1e-160, -1e-300, 5e-324, -0.0, 0.0),
)
FINITE_TROUBLE = tuple(value for value in TROUBLE if np.isfinite(value))


@dataclasses.dataclass(frozen=True)
class WildProgram:
    """A recipe of a batch, made of small numbers so that Hypothesis can simplify it.

    Attributes:
        n: number of variables.
        zero, nonnegative, second_order: the cones, as in `ConeProduct`.
        density: share of the entries of A that are stored.
        quadratic: kind of P, one of `QUADRATICS`.
        values: how entries are drawn, one of `VALUES`.
        origin: how b and q come about, one of `ORIGINS`.
        repeats: whether the first linear rows stand there twice.
        spread: powers of ten by which rows, columns and the cost differ in size.
        batch: number of instances.
        shared: blocks that all instances share.
        layout: how the blocks lie in memory, one of `LAYOUTS`.
        seed: of everything else.
    """

    n: int
    zero: int
    nonnegative: int
    second_order: tuple[int, ...]
    density: float
    quadratic: str
    values: str
    origin: str
    repeats: bool
    spread: int
    batch: int
    shared: frozenset[str]
    layout: str
    seed: int

    @property
    def cones(self) -> ConeProduct:
        """K."""
        return ConeProduct(self.zero, self.nonnegative, self.second_order)

    def build(self) -> ConeProgramBatch:
        """Return the batch."""
        rng = np.random.default_rng(self.seed)
        batch = _instances(self, _structure(self, rng), rng)
        if self.spread:
            batch = _spread(self, batch, rng)
        blocks = {name: getattr(batch, name) for name in BLOCKS}
        for name in self.shared:
            blocks[name] = blocks[name][:1]
        return dataclasses.replace(
            batch, **{name: laid_out(block, self.layout) for name, block in blocks.items()}
        )


QUADRATICS = ("none", "zero", "low rank", "definite", "indefinite")
CONVEX = QUADRATICS[:-1]
VALUES = ("normal", "signs", "zero")
ORIGINS = ("anything", "solvable")


def wild_programs(
    quadratics: tuple[str, ...] = QUADRATICS, most: int = 17
) -> st.SearchStrategy[WildProgram]:
    """Return the strategy of recipes with batches of up to `most` instances."""
    return st.builds(
        WildProgram,
        n=st.integers(1, 7),
        zero=st.integers(0, 4),
        nonnegative=st.integers(0, 6),
        second_order=st.lists(st.integers(1, 4), max_size=2).map(tuple),
        density=st.sampled_from([1.0, 0.7, 0.3, 0.0]),
        quadratic=st.sampled_from(quadratics),
        values=st.sampled_from(VALUES),
        origin=st.sampled_from(ORIGINS),
        repeats=st.booleans(),
        spread=st.sampled_from([0, 0, 2, 6]),
        batch=st.sampled_from([size for size in (1, 2, 3, 5, 9, 17, 0) if size <= most]),
        shared=st.frozensets(st.sampled_from(BLOCKS)),
        layout=st.sampled_from(LAYOUTS),
        seed=st.integers(0, 2**32 - 1),
    )


def laid_out(block: np.ndarray, layout: str) -> np.ndarray:
    """Return the same numbers in another layout of memory."""
    if layout == "columns":
        return np.asfortranarray(block)
    if layout == "strided":
        wide = np.full((2 * block.shape[0], 3 * block.shape[1]), np.nan)
        wide[::2, ::3] = block
        return wide[::2, ::3]
    if layout == "backwards":
        return block[::-1, ::-1].copy()[::-1, ::-1]
    return np.ascontiguousarray(block)


def with_value(
    batch: ConeProgramBatch, name: str, row: int, at: int, value: float
) -> ConeProgramBatch:
    """Return the batch with one entry of one block replaced; unchanged if the block is empty."""
    block = getattr(batch, name).copy()
    if block.size == 0:
        return batch
    block[row % block.shape[0], at % block.shape[1]] = value
    return dataclasses.replace(batch, **{name: block})


def _structure(program: WildProgram, rng: np.random.Generator) -> ConeProgramStructure:
    n, m = program.n, program.cones.size
    A = sp.csc_array((rng.random((m, n)) < program.density).astype(float))
    if program.repeats and program.cones.zero > 1:
        dense = A.toarray()
        dense[1] = dense[0]
        A = sp.csc_array(dense)
    P = sp.csc_array((n, n) if program.quadratic == "none" else np.triu(np.ones((n, n))))
    for pattern in (A, P):
        pattern.sort_indices()
    return ConeProgramStructure(
        n,
        program.cones,
        P.indptr.astype(np.int32),
        P.indices.astype(np.int32),
        A.indptr.astype(np.int32),
        A.indices.astype(np.int32),
    )


def _instances(
    program: WildProgram, structure: ConeProgramStructure, rng: np.random.Generator
) -> ConeProgramBatch:
    n, m, size = program.n, structure.num_rows, program.batch
    mask = sp.csc_array(
        (np.ones(structure.num_A), structure.A_indices, structure.A_indptr), shape=(m, n)
    ).toarray()
    rows = np.repeat(np.arange(n), np.diff(structure.A_indptr))
    upper = np.repeat(np.arange(n), np.diff(structure.P_indptr))
    blocks: dict[str, list[np.ndarray]] = {name: [] for name in BLOCKS}
    for _ in range(max(1, size)):
        P, A = _quadratic(program, rng), _numbers(program, (m, n), rng) * mask
        q, b = _numbers(program, (n,), rng), _numbers(program, (m,), rng)
        if program.repeats and program.cones.zero > 1:
            A[1], b[1] = A[0], b[0]
        if program.origin == "solvable":
            v = rng.standard_normal((1, m))
            y, x = projection.project_dual(program.cones, v), rng.standard_normal(n)
            q, b = -P @ x - A.T @ y[0], A @ x + (y - v)[0]
        blocks["P"].append(P[structure.P_indices, upper])
        blocks["q"].append(q)
        blocks["A"].append(A[structure.A_indices, rows])
        blocks["b"].append(b)
    arrays = {name: np.array(block)[:size] for name, block in blocks.items()}
    for name in program.shared:
        arrays[name] = np.array(blocks[name])[:1]
    return ConeProgramBatch(structure, size, **arrays)


def _numbers(program: WildProgram, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if program.values == "signs":
        return rng.integers(-1, 2, size=shape).astype(float)
    if program.values == "zero":
        return np.zeros(shape)
    return rng.standard_normal(shape)


def _quadratic(program: WildProgram, rng: np.random.Generator) -> np.ndarray:
    n = program.n
    if program.quadratic == "indefinite":
        root = rng.standard_normal((n, n))
        return root + root.T
    rank = {"none": 0, "zero": 0, "low rank": (n + 1) // 2, "definite": n}[program.quadratic]
    root = _numbers(program, (n, rank), rng)
    return root @ root.T


def _spread(
    program: WildProgram, batch: ConeProgramBatch, rng: np.random.Generator
) -> ConeProgramBatch:
    """Other units for every row, column and the cost."""
    half = program.spread / 2
    rows = 10.0 ** rng.uniform(-half, half, program.cones.size)
    for cone in program.cones.curved:
        rows[cone.rows] = rows[cone.rows.start]
    columns = 10.0 ** rng.uniform(-half, half, program.n)
    return rescaled(batch, columns, rows, 10.0 ** rng.uniform(-half, half))
