# SPDX-License-Identifier: Apache-2.0
"""The body that all adapters share: a backend of the user's own, warnings, duals."""

from __future__ import annotations

import dataclasses
import warnings

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import AbstractBackend, Layer, Status
from cvxlayer.errors import InaccurateWarning, SolverError
from cvxlayer.program.batch import ConeProgramBatch, ConeProgramStructure
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.clarabel import ClarabelBackend
from tests.catalog.problems import case_named


class RelabelingBackend(AbstractBackend):
    """Clarabel, but some rows are reported with another status."""

    name = "relabeling"
    extra_options = frozenset({"speed"})

    def __init__(self, **statuses: Status) -> None:
        self._statuses = {int(row[1:]): status for row, status in statuses.items()}
        self._clarabel = ClarabelBackend()

    def setup(self, structure: ConeProgramStructure) -> ConeProgramStructure:
        return self._clarabel.setup(structure)

    def solve(
        self, prepared: ConeProgramStructure, batch: ConeProgramBatch, settings: Settings
    ) -> ConeSolution:
        plain = dataclasses.replace(settings, extra={})
        solution = self._clarabel.solve(prepared, batch, plain)
        for row, status in self._statuses.items():
            solution.status[row] = status
            solution.gap[row] = 0.125
        return solution


def test_a_backend_of_the_users_own_is_used(rng):
    values = rng.normal(size=(3, 5))
    layer = Layer(*case_named("relu").build(), solver=RelabelingBackend())
    np.testing.assert_allclose(layer(values)[0], np.maximum(values, 0), atol=1e-4)
    assert "solver='relabeling'" in repr(layer)
    layer(values, solver_args={"speed": 3})
    with pytest.raises(ValueError, match=r"Did you mean `speed`\?"):
        layer(values, solver_args={"sped": 3})


def test_inaccurate_rows_are_returned_with_one_warning(rng):
    values = rng.normal(size=(2, 3, 5))
    backend = RelabelingBackend(_1=Status.INACCURATE, _4=Status.INACCURATE)
    layer = Layer(*case_named("relu").build(), solver=backend)
    with pytest.warns(
        InaccurateWarning, match=r"2 of 6 rows.*worst residual is 1\.2e-01"
    ) as record:
        solution = layer.solve(values)
    assert len(record) == 1
    np.testing.assert_allclose(solution.variables[0], np.maximum(values, 0), atol=1e-4)
    assert solution.status[0, 1] == solution.status[1, 1] == Status.INACCURATE


def test_solved_rows_warn_of_nothing(rng):
    layer = Layer(*case_named("relu").build())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer(rng.normal(size=(3, 5)))
    assert not caught


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (Status.INFEASIBLE, "relax a constraint"),
        (Status.UNBOUNDED, "add a bound"),
        (Status.MAX_ITERATIONS, "max_iters"),
        (Status.NUMERICAL_ERROR, "badly scaled"),
    ],
)
def test_every_failure_is_named_with_what_to_do(status, remedy, rng):
    values = rng.normal(size=(2, 5))
    layer = Layer(*case_named("relu").build(), solver=RelabelingBackend(_1=status))
    with pytest.raises(SolverError, match=f"1: {status.name}.*{remedy}") as caught:
        layer(values)
    assert caught.value.statuses == [status]


def test_a_warning_of_the_derivative_names_the_worst_row():
    torch = pytest.importorskip("torch")
    from cvxlayer.errors import DerivativeWarning

    # With weight 0 every x on the line sum(x) = total is optimal.
    x, total, weight = cp.Variable(2), cp.Parameter(), cp.Parameter(nonneg=True)
    objective = cp.square(cp.sum(x) - total) + weight * cp.sum_squares(x)
    layer = Layer(cp.Problem(cp.Minimize(objective)), [total, weight], [x])
    totals = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    (output,) = layer(totals, weights)
    with pytest.warns(DerivativeWarning, match=r"in 1 of 4 rows.*batch index \(1, 0\)"):
        output[..., 0].sum().backward()
    expected = torch.full((2, 2), 1 / 3, dtype=torch.float64)
    solved = weights > 0
    torch.testing.assert_close(totals.grad[solved], expected[solved], atol=1e-6, rtol=1e-6)


def test_the_duals_of_a_second_order_cone_come_as_a_pair(rng):
    x, point, radius = cp.Variable(3), cp.Parameter(3), cp.Parameter(nonneg=True)
    cone = cp.SOC(radius, x)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [cone])
    values = 3 + rng.normal(size=(2, 3))
    length, direction = Layer(problem, [point, radius], [x]).solve(values, 1.0).dual(cone)
    assert length.shape == (2, 1)
    assert direction.shape == (2, 3)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    np.testing.assert_allclose(length, 2 * (norms - 1), atol=1e-6)
    np.testing.assert_allclose(direction, -2 * (norms - 1) * values / norms, atol=1e-6)
