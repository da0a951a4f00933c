# SPDX-License-Identifier: Apache-2.0
"""What is read from CVXPY is what CVXPY would hand to a solver."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayer.canonicalize.cone_solver import ConeFormSolver
from cvxlayer.canonicalize.frontend import read_problem
from cvxlayer.canonicalize.leaves import domain_of
from cvxlayer.canonicalize.prepare import prepare
from cvxlayer.errors import UnsupportedProblemError
from cvxlayer.program.parameters import ParameterSpec
from tests.catalog.dpp_problems import DPP_CASES, DppCase

PLAIN_CASES = [case for case in DPP_CASES if "quad_form" not in case.name]


@pytest.mark.filterwarnings("ignore:Reading from a sparse", "ignore:You are solving")
@pytest.mark.parametrize("case", PLAIN_CASES, ids=str)
def test_the_form_evaluates_to_cvxpys_data(case: DppCase, rng: Any) -> None:
    problem, parameters, _ = case.build()
    values = case.sample(rng)
    prepared = prepare(problem, parameters)
    form = read_problem(prepared).form
    specs = tuple(ParameterSpec(p.name(), p.shape, domain_of(p)) for p in parameters)
    flat = [np.asarray(value, dtype=float).reshape(1, -1) for value in values]
    batch = form.to_program(specs).evaluate(flat, 1)
    P, q, A, b = batch.instance(0)
    for parameter, value in zip(parameters, values, strict=True):
        if parameter.attributes["sparsity"]:
            index = parameter.sparse_idx
            parameter.value_sparse = sp.coo_array((value[index], index), shape=value.shape)
        else:
            parameter.value = value
    fresh = cp.Problem(prepared.rewritten.objective, prepared.rewritten.constraints)
    expected, _, _ = fresh.get_problem_data(cp.CLARABEL)
    np.testing.assert_allclose(q, expected["c"], atol=1e-12)
    np.testing.assert_allclose(b, expected["b"], atol=1e-12)
    np.testing.assert_allclose(A.toarray(), expected["A"].toarray(), atol=1e-12)
    if "P" in expected:
        np.testing.assert_allclose(P.toarray(), np.triu(expected["P"].toarray()), atol=1e-12)
    else:
        assert P.nnz == 0


def test_cones_that_cvxpy_keeps_elsewhere_are_not_dropped_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not hasattr(ConeFormSolver, "DIR_CONE_KINDS"):
        pytest.skip("#2: this CVXPY has no direct cones")
    assert not ConeFormSolver.DIR_CONE_KINDS
    monkeypatch.setattr(ConeFormSolver, "DIR_CONE_KINDS", frozenset({"nonneg"}))
    x, b = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [x >= 0])
    with pytest.raises(UnsupportedProblemError, match="outside its constraint matrix"):
        read_problem(prepare(problem, [b]))


def test_sizes_and_order_of_parameters_follow_the_call(rng: Any) -> None:
    x = cp.Variable(2)
    M, c = cp.Parameter((2, 3), name="M"), cp.Parameter(2, name="c")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + c @ x), [x <= M @ np.ones(3)])
    for order in ([M, c], [c, M]):
        form = read_problem(prepare(problem, order)).form
        specs = tuple(ParameterSpec(p.name(), p.shape) for p in order)
        values = {"M": rng.normal(size=(2, 3)), "c": rng.normal(size=2)}
        flat = [values[p.name()].reshape(1, -1) for p in order]
        batch = form.to_program(specs).evaluate(flat, 1)
        np.testing.assert_allclose(batch.q[0], values["c"])
        np.testing.assert_allclose(batch.b[0], values["M"].sum(axis=1))
