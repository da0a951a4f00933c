# SPDX-License-Identifier: Apache-2.0
"""Cones of three rows that leave the matrix with a variable t of their own, wherever t appears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.compiler import compile_problem
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.clarabel import ClarabelBackend
from cvxlayer.solve.native import NativeBackend

TIGHT_EPS = 1e-9
AGREEMENT, DUALS = 1e-7, 1e-3
# On average, as without this elimination: wrong directions would be refined, or be short.
MOST_ITERATIONS = 18
SIZE = 5

Built = tuple[cp.Problem, cp.Parameter, cp.Variable]


def sums_of_exponentials(rng: np.random.Generator) -> Built:
    """Each t in one inequality, as in a geometric program."""
    x, bound = cp.Variable(SIZE), cp.Parameter(3)
    rows: list[Any] = [
        cp.log_sum_exp(cp.multiply(rng.normal(size=SIZE), x) + shift) <= bound[i]
        for i, shift in enumerate(rng.uniform(-1.5, -0.7, (3, SIZE)))
    ]
    rows.append(cp.norm_inf(x) <= 5)
    problem = cp.Problem(cp.Minimize(rng.normal(size=SIZE) @ x), rows)
    return problem, bound, x


def an_equality(rng: np.random.Generator) -> Built:
    """Each t in one equality."""
    x, t, bound = cp.Variable(SIZE), cp.Variable(SIZE), cp.Parameter(3)
    others = rng.normal(size=(3, SIZE)) @ x <= bound
    problem = cp.Problem(
        cp.Maximize(rng.uniform(0.1, 1.0, SIZE) @ x), [cp.exp(x) <= t, cp.sum(t) == 7, others]
    )
    return problem, bound, x


def several_rows(rng: np.random.Generator) -> Built:
    """Each t in the objective and four rows of both kinds, or in fewer."""
    x, t, bound = cp.Variable(SIZE), cp.Variable(SIZE), cp.Parameter(3)
    weights = rng.uniform(0.1, 1.0, (3, SIZE)) * (rng.uniform(size=(3, SIZE)) < 0.7)
    rows: list[Any] = [cp.exp(cp.multiply(rng.normal(size=SIZE), x)) <= t, weights @ t <= bound + 5]
    rows += [t[0] + t[1] == 3, x <= 3, x >= -3]
    cost = rng.normal(size=SIZE) @ x + rng.uniform(0.1, 1.0, SIZE) @ t
    return cp.Problem(cp.Minimize(cost), rows), bound, x


def beside_their_variables(rng: np.random.Generator, size: int = SIZE) -> Built:
    """Each t in a row with the variables of its cone, whose entries are sums then."""
    x, bound = cp.Variable(size), cp.Parameter(3)
    rows: list[Any] = [
        cp.sum(cp.exp(cp.multiply(rng.normal(size=size), x))) + rng.normal(size=size) @ x
        <= bound[i] + size
        for i in range(3)
    ]
    rows.append(cp.norm_inf(x) <= 5)
    return cp.Problem(cp.Minimize(rng.normal(size=size) @ x), rows), bound, x


def beside_one_variable(rng: np.random.Generator) -> Built:
    """The same with all that is below the pivots in one column, as it lies in A."""
    return beside_their_variables(rng, 1)


def power_cones(rng: np.random.Generator) -> Built:
    """The same with power cones, where t is not the last row."""
    x, t, bound = cp.Variable(SIZE), cp.Variable(SIZE), cp.Parameter(3)
    exponents = rng.uniform(0.2, 0.8, SIZE)
    rows: list[Any] = [
        cp.constraints.PowCone3D(t, np.ones(SIZE), x, exponents),
        rng.uniform(0.1, 1.0, (3, SIZE)) @ t <= bound + 3,
    ]
    return cp.Problem(cp.Maximize(rng.uniform(0.1, 1.0, SIZE) @ x), rows), bound, x


BUILDERS = (
    sums_of_exponentials, an_equality, several_rows, beside_their_variables, beside_one_variable,
    power_cones,
)  # fmt: skip


@pytest.mark.parametrize("width", _native.widths())
@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_terms_in_linear_rows_have_the_solution_of_clarabel(
    build: Callable[[np.random.Generator], Built], width: int, rng: np.random.Generator
) -> None:
    problem, bound, x = build(rng)
    program = compile_problem(problem, [bound], [x])
    values = [rng.uniform(1.0, 3.0, (11, 3))]
    settings = Settings(TIGHT_EPS, TIGHT_EPS, extra={"width": width, "fallback": False})
    ours = program.solve(values, backend=NativeBackend(), settings=settings)
    theirs = program.solve(
        values, backend=ClarabelBackend(), settings=Settings(TIGHT_EPS, TIGHT_EPS)
    )
    assert not ours.cone.status.any()
    assert ours.cone.iterations.mean() <= MOST_ITERATIONS
    np.testing.assert_allclose(ours.value, theirs.value, rtol=AGREEMENT, atol=AGREEMENT)
    np.testing.assert_allclose(ours.cone.y, theirs.cone.y, rtol=DUALS, atol=DUALS)
