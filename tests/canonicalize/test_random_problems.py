# SPDX-License-Identifier: Apache-2.0
"""Random sums of atoms: the reduced program answers as CVXPY's own form does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer.canonicalize import assemble
from cvxlayer.canonicalize.form import CanonicalForm
from cvxlayer.compiler import CompiledProgram, compile_problem
from cvxlayer.differentiate.reference import ReferenceDerivative
from cvxlayer.errors import Status
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend

TIGHT = Settings(eps_abs=1e-10, eps_rel=1e-10)
TOLERANCE = 1e-4
SIZE = 4


@dataclasses.dataclass
class RandomProblem:
    """Builds a strongly convex problem with unique duals (almost surely) from a seed."""

    rng: np.random.Generator
    parameters: list[cp.Parameter] = dataclasses.field(default_factory=list)
    x: cp.Variable = dataclasses.field(default_factory=lambda: cp.Variable(SIZE, name="x"))
    X: cp.Variable = dataclasses.field(
        default_factory=lambda: cp.Variable((2, 2), symmetric=True, name="X")
    )

    def parameter(self, shape: Any = (), **attributes: Any) -> cp.Parameter:
        self.parameters.append(cp.Parameter(shape, **attributes))
        return self.parameters[-1]

    def affine(self, size: int) -> Any:
        M, offset = self.rng.normal(size=(size, SIZE)), self.rng.normal(size=size)
        forms: list[Callable[[], Any]] = [
            lambda: M @ self.x + self.parameter(size),
            lambda: self.parameter((size, SIZE)) @ self.x + offset,
            lambda: M @ self.x + offset + self.X[0, 1],
            lambda: M @ self.x + 2 * self.parameter(size) - cp.sum(self.X),
        ]
        return forms[self.rng.integers(len(forms))]()

    def convex(self) -> Any:
        argument = self.affine(int(self.rng.integers(1, 6)))
        size = argument.shape[0]
        atoms: list[Callable[[], Any]] = [
            lambda: cp.sum_squares(argument),
            lambda: cp.norm(argument, 2),
            lambda: cp.norm1(argument),
            lambda: cp.norm_inf(argument),
            lambda: cp.max(argument),
            lambda: cp.sum(cp.pos(argument)),
            lambda: cp.sum(cp.huber(argument)),
            lambda: cp.quad_form(argument, np.eye(size) + 0.1),
            lambda: cp.sum_largest(argument, max(1, size - 1)),
            lambda: cp.norm(cp.hstack([cp.norm(argument), cp.norm_inf(self.affine(2))])),
            lambda: cp.max(cp.abs(argument)),
        ]
        return atoms[self.rng.integers(len(atoms))]()

    def constraint(self) -> Any:
        slack = self.parameter(nonneg=True)
        forms: list[Callable[[], Any]] = [
            lambda: self.convex() <= 5 + slack,
            lambda: -self.convex() >= -6 - slack + 0.1 * self.x[0],
            lambda: self.affine(2) <= 3 + slack,
            lambda: self.x[0] + self.x[1] - self.X[0, 0] == slack,
        ]
        return forms[self.rng.integers(len(forms))]()

    def build(self) -> cp.Problem:
        cost = cp.sum_squares(self.x - self.parameter(SIZE))
        cost += cp.sum_squares(self.X - self.parameter((2, 2)))
        for _ in range(self.rng.integers(0, 3)):
            cost += 0.7 * self.convex()
        constraints = [self.constraint() for _ in range(self.rng.integers(0, 4))]
        sense = cp.Maximize(-cost) if self.rng.integers(2) else cp.Minimize(cost)
        return cp.Problem(sense, constraints)


def _unreduced(form: CanonicalForm) -> CanonicalForm:
    return form


@pytest.mark.parametrize("seed", range(24))
def test_elimination_changes_no_variable_dual_value_or_gradient(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    random_problem = RandomProblem(rng)
    problem = random_problem.build()
    present = {parameter.id for parameter in problem.parameters()}
    inputs = [p for p in random_problem.parameters if p.id in present]
    outputs = [random_problem.x, random_problem.X]
    outputs += [dual for c in problem.constraints for dual in c.dual_variables]
    reduced = compile_problem(problem, inputs, outputs)
    monkeypatch.setattr(assemble, "eliminate", _unreduced)
    plain = compile_problem(problem, inputs, outputs)
    values = [np.abs(rng.normal(size=(1, parameter.size))) for parameter in inputs]

    def answer(program: CompiledProgram) -> Any:
        return program.solve(values, backend=get_backend("clarabel"), settings=TIGHT)

    found, expected = answer(reduced), answer(plain)
    before, after = plain.program.structure, reduced.program.structure
    assert after.num_variables <= before.num_variables
    has_solution = Status(int(expected.cone.status[0])).has_solution
    assert found.has_solution[0] == has_solution
    if not has_solution:
        assert found.cone.status[0] == expected.cone.status[0] == Status.INFEASIBLE
        return
    np.testing.assert_allclose(found.value, expected.value, atol=TOLERANCE)
    for output, reference in zip(found.outputs, expected.outputs, strict=True):
        np.testing.assert_allclose(output, reference, atol=TOLERANCE)
    weights = [rng.normal(size=output.shape) for output in found.outputs]
    engine = ReferenceDerivative()
    bars, _ = reduced.vjp(found, weights, np.ones(1), derivative=engine)
    plain_bars, _ = plain.vjp(expected, weights, np.ones(1), derivative=engine)
    for bar, reference in zip(bars, plain_bars, strict=True):
        assert bar is not None
        assert reference is not None
        np.testing.assert_allclose(bar, reference, atol=TOLERANCE * (1 + np.abs(reference).max()))
