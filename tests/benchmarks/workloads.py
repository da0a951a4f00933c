# SPDX-License-Identifier: Apache-2.0
"""The problems that are measured, each as a CVXPY problem, a sampler and a natural form.

`WORKLOADS` lists them. Every random constant comes from a fixed seed, so that two runs
measure the same problems.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np

from cvxlayer.cones.product import ConeProduct
from cvxlayer.program.batch import ConeProgramBatch
from tests.benchmarks.forms import (
    QuadraticProgram,
    SparseBatch,
    assemble_cone_program,
    stack_rows,
    stack_vectors,
)

Values = tuple[np.ndarray, ...]
Built = tuple[cp.Problem, list[cp.Parameter], list[Any]]
MPC_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mpc"


@dataclasses.dataclass(frozen=True)
class Workload:
    """One problem family.

    Attributes:
        name: short name, for `--only` and the tables.
        title: what it is, for the tables.
        build: a fresh (problem, parameters, variables); the first variable is the output.
            Fresh, because a layer may alter what CVXPY caches on the problem.
        sample: (rng, batch) → parameter values, each with a leading batch dimension.
        quadratic_program: values → the natural QP; None for other cones.
        cone_program: values → the natural cone program.
        output: natural x (B, n) → the output variable (B, *shape).
        parameter_names: names of the parameters, in order.
        is_small_dense: whether the lower end-to-end target for dense QPs applies.
        is_dense: whether dense solvers are the right choice for the natural form.
        symmetric: indices of the parameters whose directions must be symmetric.
        check_batch: number of instances of the correctness check.
        gp: whether the problem is a geometric program.
        reference_tolerance: what the trusted solver is asked for.
    """

    name: str
    title: str
    build: Callable[[], Built]
    sample: Callable[[np.random.Generator, int], Values]
    quadratic_program: Callable[[Values], QuadraticProgram] | None
    cone_program: Callable[[Values], ConeProgramBatch]
    output: Callable[[np.ndarray], np.ndarray]
    parameter_names: tuple[str, ...]
    is_small_dense: bool = False
    is_dense: bool = True
    symmetric: tuple[int, ...] = ()
    check_batch: int = 6
    gp: bool = False
    reference_tolerance: float = 1e-10

    def __str__(self) -> str:
        return self.name


def _of_qp(name: str, title: str, quadratic_program: Any, **fields: Any) -> Workload:
    fields.setdefault("output", lambda x: x)
    return Workload(
        name,
        title,
        quadratic_program=quadratic_program,
        cone_program=lambda values: quadratic_program(values).cone_program(),
        **fields,
    )


def _free(n: int) -> dict[str, np.ndarray]:
    return {"lower": np.full(n, -np.inf), "upper": np.full(n, np.inf)}


def simplex_projection(n: int) -> Workload:
    """Euclidean projection onto the unit simplex; the point is the parameter."""

    def build() -> Built:
        x, point = cp.Variable(n), cp.Parameter(n, name="point")
        objective = cp.Minimize(0.5 * cp.sum_squares(x - point))
        return cp.Problem(objective, [x >= 0, cp.sum(x) == 1]), [point], [x]

    def quadratic_program(values: Values) -> QuadraticProgram:
        (point,) = values
        return QuadraticProgram(
            len(point),
            SparseBatch.diagonal(np.ones(n)),
            -point,
            SparseBatch.from_dense(np.ones((1, n))),
            np.ones((1, 1)),
            SparseBatch.empty(n),
            np.zeros((1, 0)),
            np.zeros(n),
            np.full(n, np.inf),
        )

    return _of_qp(
        f"simplex{n}",
        f"projection onto the simplex, n = {n}; parameter: the point",
        quadratic_program,
        build=build,
        sample=lambda rng, batch: (0.3 * rng.standard_normal((batch, n)),),
        parameter_names=("point",),
        is_dense=False,
    )


@dataclasses.dataclass(frozen=True)
class _DenseQp:
    """Data of a random dense QP with n variables, m inequalities, p equalities."""

    n: int
    m: int
    p: int

    def matrices(self, rng: np.random.Generator, batch: int) -> tuple[np.ndarray, ...]:
        root = rng.standard_normal((batch, self.n, self.n)) / np.sqrt(self.n)
        P = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(self.n)
        G = rng.standard_normal((batch, self.m, self.n)) / np.sqrt(self.n)
        A = rng.standard_normal((batch, self.p, self.n)) / np.sqrt(self.n)
        return 0.5 * (P + P.transpose(0, 2, 1)), G, A

    def vectors(
        self, rng: np.random.Generator, G: np.ndarray, batch: int
    ) -> tuple[np.ndarray, ...]:
        inside = rng.standard_normal((batch, self.n, 1))
        h = (G @ inside)[..., 0] + rng.uniform(0.05, 1.0, (batch, self.m))
        return rng.standard_normal((batch, self.n)), h, inside

    def quadratic_program(self, P: Any, q: Any, G: Any, h: Any, A: Any, b: Any) -> QuadraticProgram:
        return QuadraticProgram(
            len(q),
            SparseBatch.from_dense(P),
            q,
            SparseBatch.from_dense(A) if self.p else SparseBatch.empty(self.n),
            b if self.p else np.zeros((1, 0)),
            SparseBatch.from_dense(G),
            h,
            **_free(self.n),
        )


def dense_qp(n: int, m: int, p: int, check_batch: int = 6) -> Workload:
    """Random dense QP whose whole data (P, q, G, h, A, b) are parameters."""
    data = _DenseQp(n, m, p)

    def build() -> Built:
        x, P = cp.Variable(n), cp.Parameter((n, n), PSD=True, name="P")
        q, G, h = (
            cp.Parameter(n, name="q"),
            cp.Parameter((m, n), name="G"),
            cp.Parameter(m, name="h"),
        )
        parameters, constraints = [P, q, G, h], [G @ x <= h]
        if p:
            A, b = cp.Parameter((p, n), name="A"), cp.Parameter(p, name="b")
            parameters, constraints = [*parameters, A, b], [*constraints, A @ x == b]
        objective = cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x)
        return cp.Problem(objective, constraints), parameters, [x]

    def sample(rng: np.random.Generator, batch: int) -> Values:
        P, G, A = data.matrices(rng, batch)
        q, h, inside = data.vectors(rng, G, batch)
        return (P, q, G, h, A, (A @ inside)[..., 0]) if p else (P, q, G, h)

    def quadratic_program(values: Values) -> QuadraticProgram:
        A, b = values[4:] if p else (None, None)
        return data.quadratic_program(*values[:4], A, b)

    return _of_qp(
        f"qp{n}",
        f"dense QP, {n} variables, {m} inequalities, {p} equalities; all data are parameters",
        quadratic_program,
        build=build,
        sample=sample,
        parameter_names=("P", "q", "G", "h", "A", "b")[: 6 if p else 4],
        is_small_dense=True,
        symmetric=(0,),
        check_batch=check_batch,
    )


def dense_qp_vectors(n: int, m: int, p: int, check_batch: int = 6) -> Workload:
    """Random dense QP in which only q and h are parameters."""
    data = _DenseQp(n, m, p)
    rng_constants = np.random.default_rng(20240 + n)
    P, G, A = (block[0] for block in data.matrices(rng_constants, 1))

    def build() -> Built:
        x, q, h = cp.Variable(n), cp.Parameter(n, name="q"), cp.Parameter(m, name="h")
        constraints = [G @ x <= h, *([A @ x == 0] if p else [])]
        objective = cp.Minimize(0.5 * cp.quad_form(x, cp.psd_wrap(P)) + q @ x)
        return cp.Problem(objective, constraints), [q, h], [x]

    def sample(rng: np.random.Generator, batch: int) -> Values:
        inside = rng.standard_normal((batch, n))
        if p:
            inside -= inside @ A.T @ np.linalg.pinv(A).T  # onto A x = 0
        h = inside @ G.T + rng.uniform(0.05, 1.0, (batch, m))
        return rng.standard_normal((batch, n)), h

    def quadratic_program(values: Values) -> QuadraticProgram:
        return data.quadratic_program(P, values[0], G, values[1], A, np.zeros((1, p)))

    return _of_qp(
        f"qp{n}-qh",
        f"dense QP, {n} variables, {m} inequalities, {p} equalities; parameters: q, h",
        quadratic_program,
        build=build,
        sample=sample,
        parameter_names=("q", "h"),
        is_small_dense=True,
        check_batch=check_batch,
    )


def robot_controller(name: str) -> Workload:
    """One of the two robot controllers; 30 recorded steps, and points between neighbours."""
    recorded = np.load(MPC_DATA / f"{name}.npz")
    P, G = recorded["P"][0], recorded["G"][0]
    (m, n), steps = G.shape, len(recorded["q"])
    data = _DenseQp(n, m, 0)

    def build() -> Built:
        x, q, h = cp.Variable(n), cp.Parameter(n, name="q"), cp.Parameter(m, name="h")
        objective = cp.Minimize(0.5 * cp.quad_form(x, cp.psd_wrap(P)) + q @ x)
        return cp.Problem(objective, [G @ x <= h]), [q, h], [x]

    def sample(rng: np.random.Generator, batch: int) -> Values:
        index, weight = rng.integers(steps - 1, size=batch), rng.uniform(size=(batch, 1))
        return tuple(
            (1 - weight) * recorded[key][index] + weight * recorded[key][index + 1]
            for key in ("q", "h")
        )

    def quadratic_program(values: Values) -> QuadraticProgram:
        return data.quadratic_program(P, values[0], G, values[1], None, None)

    return _of_qp(
        name,
        f"robot controller {name}, {n} variables, {m} inequalities; parameters: q, h",
        quadratic_program,
        build=build,
        sample=sample,
        parameter_names=("q", "h"),
        is_small_dense=True,
    )


def portfolio(n: int) -> Workload:
    """Largest expected return on the simplex under a bound on the standard deviation."""
    constants = np.random.default_rng(30)
    factors = constants.standard_normal((n, n)) / np.sqrt(n) + np.diag(np.linspace(0.3, 1.0, n))
    bound = 1.5 * np.linalg.norm(factors.mean(axis=1))

    def build() -> Built:
        weights, returns = cp.Variable(n), cp.Parameter(n, name="returns")
        constraints = [cp.sum(weights) == 1, weights >= 0, cp.norm(factors @ weights, 2) <= bound]
        return cp.Problem(cp.Maximize(returns @ weights), constraints), [returns], [weights]

    def cone_program(values: Values) -> ConeProgramBatch:
        A = stack_rows(
            [
                SparseBatch.from_dense(np.ones((1, n))),
                SparseBatch((n, n), np.arange(n), np.arange(n), -np.ones((1, n))),
                SparseBatch((1 + n, n), *_shifted(n), -factors.reshape(1, -1)),
            ]
        )
        b = stack_vectors(
            [np.ones((1, 1)), np.zeros((1, n)), np.full((1, 1), bound), np.zeros((1, n))]
        )
        cones = ConeProduct(zero=1, nonnegative=n, second_order=(n + 1,))
        none = SparseBatch((n, n), *(np.zeros(0, dtype=np.int64),) * 2, np.zeros((1, 0)))
        return assemble_cone_program(len(values[0]), cones, none, -values[0], A, b)

    return Workload(
        f"portfolio{n}",
        f"portfolio with a risk bound (second-order cone), n = {n}; parameter: returns",
        build,
        lambda rng, batch: (rng.standard_normal((batch, n)),),
        None,
        cone_program,
        lambda x: x,
        ("returns",),
        is_dense=False,
    )


def _shifted(n: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.divmod(np.arange(n * n), n)
    return rows + 1, columns
