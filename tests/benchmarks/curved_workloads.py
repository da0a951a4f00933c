# SPDX-License-Identifier: Apache-2.0
"""The measured problems with exponential, power, semidefinite and large second-order cones.

Their form is the one our compiler makes of the CVXPY problem: written by hand it would be the
same entry by entry, and every engine is handed it alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np

from cvxlayer.compiler import CompiledProgram, compile_problem
from cvxlayer.program.batch import ConeProgramBatch
from tests.benchmarks.workloads import Built, Values, Workload


def _compiled(
    name: str,
    title: str,
    build: Callable[[], Built],
    sample: Callable[[np.random.Generator, int], Values],
    parameter_names: tuple[str, ...],
    *,
    gp: bool = False,
    **fields: Any,
) -> Workload:
    @functools.cache
    def program() -> CompiledProgram:
        problem, parameters, variables = build()
        return compile_problem(problem, parameters, variables[:1], gp=gp)

    def cone_program(values: Values) -> ConeProgramBatch:
        flat = [np.ascontiguousarray(v.reshape(len(v), -1), dtype=float) for v in values]
        theta = program().coordinates.apply(flat)
        return program().program.evaluate(theta, len(values[0]))

    def output(x: np.ndarray) -> np.ndarray:
        (recovered,) = program().recovery.outputs
        rest = recovered.from_theta
        assert rest is None or rest.is_constant, "the output must be a function of x alone"
        rows = recovered.read(np.ascontiguousarray(x), np.zeros((len(x), 0)), [])
        return rows.reshape(len(x), *recovered.spec.shape)

    return Workload(
        name,
        title,
        build,
        sample,
        None,
        cone_program,
        output,
        parameter_names,
        is_dense=False,
        gp=gp,
        # A solution is much less accurate than its residuals where the objective is flat.
        reference_tolerance=1e-12,
        **fields,
    )


def entropy(n: int) -> Workload:
    """The distribution of largest entropy and reward under a few bounds: a bounded softmax."""
    rows = np.random.default_rng(41).standard_normal((5, n))
    bounds = rows.mean(axis=1) + 0.1

    def build() -> Built:
        x, reward = cp.Variable(n), cp.Parameter(n, name="reward")
        objective = cp.Maximize(cp.sum(cp.entr(x)) + reward @ x)
        return cp.Problem(objective, [cp.sum(x) == 1, rows @ x <= bounds]), [reward], [x]

    return _compiled(
        f"entropy{n}",
        f"entropy over distributions of {n} with 5 bounds (exponential cones); parameter: reward",
        build,
        lambda rng, batch: (rng.standard_normal((batch, n)),),
        ("reward",),
    )


def logistic(samples: int, features: int) -> Workload:
    """Logistic regression with a ridge penalty; the signed features are the parameter."""

    def build() -> Built:
        weights = cp.Variable(features)
        signed = cp.Parameter((samples, features), name="signed")
        loss = cp.sum(cp.logistic(-signed @ weights)) + 0.5 * cp.sum_squares(weights)
        return cp.Problem(cp.Minimize(loss)), [signed], [weights]

    def sample(rng: np.random.Generator, batch: int) -> Values:
        points = rng.standard_normal((batch, samples, features))
        truth = rng.standard_normal((batch, features, 1))
        noise = 0.5 * rng.standard_normal((batch, samples, 1))
        return (points * np.sign(points @ truth + noise),)

    return _compiled(
        f"logistic{samples}x{features}",
        f"logistic regression, {samples} samples of {features} features (exponential cones); "
        "parameter: the features",
        build,
        sample,
        ("signed",),
    )


def power_control(n: int) -> Workload:
    """Least transmission powers that keep every signal above its noise: a geometric program."""
    gains = np.random.default_rng(43).uniform(0.005, 0.02, (n, n))
    np.fill_diagonal(gains, 1.0)

    def build() -> Built:
        power = cp.Variable(n, pos=True)
        noise, least = (cp.Parameter(n, pos=True, name=name) for name in ("noise", "least"))
        constraints = []
        for i in range(n):
            others = sum(gains[i, j] * power[j] for j in range(n) if j != i)
            constraints.append(least[i] * (noise[i] + others) / (gains[i, i] * power[i]) <= 1)
        return cp.Problem(cp.Minimize(cp.sum(power)), constraints), [noise, least], [power]

    def sample(rng: np.random.Generator, batch: int) -> Values:
        return rng.uniform(0.1, 1.0, (batch, n)), rng.uniform(1.0, 3.0, (batch, n))

    return _compiled(
        f"gp{n}",
        f"power control of {n} transmitters (geometric program); parameters: noise, least ratios",
        build,
        sample,
        ("noise", "least"),
        gp=True,
    )


def allocation(n: int) -> Workload:
    """A budget shared among concave returns xᵢ^αᵢ (power cones)."""
    exponents = np.random.default_rng(44).uniform(0.2, 0.8, n)

    def build() -> Built:
        x, returns, weight = cp.Variable(n), cp.Variable(n), cp.Parameter(n, name="weight")
        constraints = [
            cp.constraints.PowCone3D(x, np.ones(n), returns, exponents),
            cp.sum(x) == 1,
            x <= 0.12,
        ]
        return cp.Problem(cp.Maximize(weight @ returns), constraints), [weight], [x]

    return _compiled(
        f"power{n}",
        f"a budget over {n} returns with their own exponents (power cones); parameter: weights",
        build,
        lambda rng, batch: (rng.uniform(0.2, 2.0, (batch, n)),),
        ("weight",),
    )


def nearest_correlation(n: int) -> Workload:
    """The correlation matrix nearest to a symmetric one."""

    def build() -> Built:
        X, C = cp.Variable((n, n), PSD=True), cp.Parameter((n, n), symmetric=True, name="C")
        return cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == 1]), [C], [X]

    return _compiled(
        f"correlation{n}",
        f"nearest correlation matrix of order {n} (semidefinite cone); parameter: the matrix",
        build,
        lambda rng, batch: (_symmetric(rng, batch, n),),
        ("C",),
        symmetric=(0,),
    )


def max_cut(n: int) -> Workload:
    """The semidefinite relaxation of the largest cut of a weighted graph."""

    def build() -> Built:
        X, W = cp.Variable((n, n), PSD=True), cp.Parameter((n, n), symmetric=True, name="W")
        return cp.Problem(cp.Minimize(cp.trace(W @ X)), [cp.diag(X) == 1]), [W], [X]

    def sample(rng: np.random.Generator, batch: int) -> Values:
        weights = np.abs(_symmetric(rng, batch, n))
        weights[:, np.arange(n), np.arange(n)] = 0.0
        return (weights,)

    return _compiled(
        f"maxcut{n}",
        f"relaxation of the largest cut of {n} nodes (semidefinite cone); parameter: weights",
        build,
        sample,
        ("W",),
        symmetric=(0,),
    )


def ball_projection(n: int) -> Workload:
    """Projection onto a ball with a few half-spaces: one large second-order cone."""
    rows = np.random.default_rng(46).standard_normal((5, n)) / np.sqrt(n)

    def build() -> Built:
        x, point = cp.Variable(n), cp.Parameter(n, name="point")
        objective = cp.Minimize(0.5 * cp.sum_squares(x - point))
        return cp.Problem(objective, [cp.norm(x, 2) <= 1, rows @ x <= 0.05]), [point], [x]

    return _compiled(
        f"ball{n}",
        f"projection onto a ball and 5 half-spaces (second-order cone of {n + 1}); "
        "parameter: the point",
        build,
        lambda rng, batch: (rng.standard_normal((batch, n)),),
        ("point",),
    )


def _symmetric(rng: np.random.Generator, batch: int, n: int) -> np.ndarray:
    matrices = rng.uniform(-1.0, 1.0, (batch, n, n))
    return 0.5 * (matrices + matrices.transpose(0, 2, 1))
