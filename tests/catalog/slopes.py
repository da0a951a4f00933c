# SPDX-License-Identifier: Apache-2.0
"""How the answers of a compiled program move, by differences of true solutions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cvxlayer.compiler import CompiledProgram, ProgramSolution
from cvxlayer.differentiate.reference import ReferenceDerivative
from cvxlayer.program.parameters import to_coordinates
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.true_solutions import refine

TIGHT = Settings(eps_abs=1e-10, eps_rel=1e-10)
# The four-point formula leaves STEP⁴ times the fifth derivative, and rounding over STEP.
STEP = 1e-4
WEIGHTS = {1: 8.0, -1: -8.0, 2: -1.0, -2: 1.0}


def solve_at(program: CompiledProgram, values: Sequence[np.ndarray]) -> ProgramSolution:
    """Solve one instance by Clarabel, at values in the shapes of the parameters."""
    rows = [
        to_coordinates(s, np.asarray(v)) for s, v in zip(program.parameters, values, strict=True)
    ]
    return program.solve(rows, backend=get_backend("clarabel"), settings=TIGHT)


def refined(solution: ProgramSolution, start: ProgramSolution | None = None) -> ProgramSolution:
    """Return a solution to rounding, by Newton's method from a nearby one."""
    cone = (start or solution).cone
    x, y, s = refine(solution.batch, cone.x, cone.y, cone.s, is_unique=False)
    outputs = solution.program.recovery.outputs
    return dataclasses.replace(
        solution,
        cone=dataclasses.replace(solution.cone, x=x, y=y, s=s),
        outputs=tuple(output.read(x, y, solution.theta) for output in outputs),
    )


def slope_by_differences(
    program: CompiledProgram,
    values: Sequence[np.ndarray],
    change: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
) -> float:
    """Return how Σ weights · outputs moves when the values move by `change`."""
    start = refined(solve_at(program, values))
    total = 0.0
    for factor, share in WEIGHTS.items():
        moved = [v + factor * STEP * d for v, d in zip(values, change, strict=True)]
        outputs = refined(solve_at(program, moved), start).outputs
        total += share * sum(float(w[0] @ x[0]) for w, x in zip(weights, outputs, strict=True))
    return total / (12.0 * STEP)


def slope_by_gradient(
    program: CompiledProgram,
    values: Sequence[np.ndarray],
    change: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
) -> tuple[float, float]:
    """Return the same by the gradient, and the residual of its linear system."""
    solution = refined(solve_at(program, values))
    bars, residual = program.vjp(solution, weights, derivative=ReferenceDerivative())
    assert residual is not None
    slope = 0.0
    for spec, bar, d in zip(program.parameters, bars, change, strict=True):
        assert bar is not None
        slope += float(bar[0] @ to_coordinates(spec, np.asarray(d)).ravel())
    return slope, float(residual[0])
