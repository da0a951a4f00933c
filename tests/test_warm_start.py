# SPDX-License-Identifier: Apache-2.0
"""`warm_start=` of a layer: what it takes, what it refuses, and that gradients do not notice."""

from __future__ import annotations

import pickle
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import Layer
from cvxlayer.errors import OptionError, ShapeError, SolverError, Status
from cvxlayer.program.solution import SolvedBy
from cvxlayer.solve.registry import WARM_STARTING, backend_names


def allocation(size: int = 4, limit: float = 1.0, **options: Any) -> Layer:
    """Follow a target on part of a simplex of a given size."""
    x, target = cp.Variable(size), cp.Parameter(size, name="target")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [cp.sum(x) == limit, x >= 0])
    return Layer(problem, [target], [x], **options)


def test_a_chain_of_warm_starts_equals_solves_from_scratch(rng: np.random.Generator) -> None:
    layer, target = allocation(), rng.standard_normal((5, 4))
    solution = layer.solve(target)
    for _ in range(10):
        target = target + 0.1 * rng.standard_normal(target.shape)
        solution = layer.solve(target, warm_start=solution)
        assert (solution.solved_by == SolvedBy.WARM_START).all()
        np.testing.assert_allclose(solution.variables[0], layer(target)[0], atol=1e-9)
        np.testing.assert_array_equal(
            layer(target, warm_start=solution)[0],
            layer.solve(target, warm_start=solution).variables[0],
        )


def test_a_single_instance_starts_from_a_single_solution(rng: np.random.Generator) -> None:
    layer, target = allocation(), rng.standard_normal(4)
    warm = layer.solve(target + 1e-3, warm_start=layer.solve(target))
    assert warm.solved_by is SolvedBy.WARM_START
    assert warm.status is Status.SOLVED


def test_torch_gradients_do_not_notice_a_warm_start(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    from cvxlayer.torch import Layer as TorchLayer

    numpy_layer = allocation()
    layer = TorchLayer(numpy_layer._evaluator.program)
    target = torch.tensor(rng.standard_normal((3, 4)), requires_grad=True)
    weights = torch.tensor(rng.standard_normal((3, 4)))
    start = layer.solve(target.detach() + 0.05)
    answers, gradients = [], []
    for warm_start in (None, start, numpy_layer.solve(target.detach().numpy() + 0.05)):
        (x,) = layer(target, warm_start=warm_start)
        solution = numpy_layer.solve(target, warm_start=warm_start)
        assert torch.equal(solution.variables[0], x)
        (gradient,) = torch.autograd.grad((weights * x).sum(), target)
        answers.append(x.detach().numpy())
        gradients.append(gradient.numpy())
    for number in (1, 2):
        np.testing.assert_allclose(answers[number], answers[0], atol=1e-9)
        np.testing.assert_allclose(gradients[number], gradients[0], atol=1e-9)


@pytest.mark.parametrize("other", [(), (2,), (4,), (1, 3)])
def test_another_batch_shape_is_refused(other: tuple[int, ...]) -> None:
    layer = allocation()
    with pytest.raises(ShapeError, match=r"`warm_start` has the batch shape .*, this call \(3,\)"):
        layer(np.ones((3, 4)), warm_start=layer.solve(np.ones((*other, 4))))


@pytest.mark.parametrize("other", [allocation(size=5), allocation(limit=2.0)], ids=["size", "data"])
def test_the_solution_of_another_problem_is_refused(other: Layer) -> None:
    size = other._evaluator.program.parameters[0].size
    with pytest.raises(OptionError, match="`warm_start` is the solution of another problem"):
        allocation()(np.ones(4), warm_start=other.solve(np.ones(size)))


def test_a_solution_survives_pickling_beside_its_layer() -> None:
    layer = allocation()
    solution = pickle.loads(pickle.dumps(layer.solve(np.ones(4))))
    copy = pickle.loads(pickle.dumps(layer))
    warm = copy.solve(np.full(4, 1.1), warm_start=solution)
    assert warm.solved_by is SolvedBy.WARM_START


def test_the_solution_of_another_solver_may_be_started_from() -> None:
    target = np.array([[0.3, 1.0, -0.2, 0.4]])
    theirs = allocation(solver="clarabel").solve(target)
    warm = allocation().solve(target + 1e-3, warm_start=theirs)
    assert (warm.solved_by == SolvedBy.WARM_START).all()


@pytest.mark.parametrize("name", sorted({*backend_names()} - {*WARM_STARTING}))
def test_solvers_that_cannot_start_from_a_solution_refuse_one(name: str) -> None:
    pytest.importorskip(name)
    start = allocation().solve(np.ones(4))
    message = rf"The solver `{name}` cannot start .* choose `native` or `scs`"
    with pytest.raises(OptionError, match=message):
        allocation(solver=name)(np.ones(4), warm_start=start)


def test_only_solutions_are_taken() -> None:
    layer = allocation()
    with pytest.raises(OptionError, match=r"`warm_start` is a tuple; it must be None or"):
        layer(np.ones(4), warm_start=layer(np.ones(4)))


def test_a_batch_with_failures_can_be_started_from() -> None:
    x, bound = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= bound, x <= 1])
    layer, bounds = Layer(problem, [bound], [x]), np.array([[0.5, 0.5], [2.0, 0.0]])
    with pytest.raises(SolverError) as caught:
        layer.solve(bounds)
    warm = layer.solve(0.4 * bounds, warm_start=caught.value.solution)
    assert list(warm.solved_by) == [SolvedBy.WARM_START, SolvedBy.FIRST_PASS]
    np.testing.assert_allclose(warm.variables[0], 0.4 * bounds, atol=1e-9)


def test_an_empty_batch_starts_from_an_empty_batch() -> None:
    layer = allocation()
    start = layer.solve(np.ones((0, 4)))
    assert layer(np.ones((0, 4)), warm_start=start)[0].shape == (0, 4)
