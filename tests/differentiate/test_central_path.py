# SPDX-License-Identifier: Apache-2.0
"""Where eigenvalues are too small to tell the faces, the derivative is that of the central path."""

from __future__ import annotations

import functools

import numpy as np

from cvxlayer.compiler import ProgramSolution, compile_problem
from cvxlayer.differentiate.native import NativeDerivative
from cvxlayer.differentiate.primitives import refine
from cvxlayer.differentiate.reference import ReferenceDerivative
from cvxlayer.program.parameters import to_coordinates
from cvxlayer.solve.registry import get_backend
from tests.catalog.atoms import ATOM_CASES

# The specification drops singular values below 1e-11; this matrix has some that count a little.
AGREEMENT = 1e-4
BATCH = 2


@functools.cache
def solved() -> ProgramSolution:
    """Quantum relative entropies: multipliers with eigenvalues from 1 down to 1e-9."""
    rng = np.random.default_rng(0)
    (case,) = (case for case in ATOM_CASES if case.name == "quantum_rel_entr")
    program = compile_problem(*case.build())
    draws = zip(*(case.draw(rng) for _ in range(BATCH)), strict=True)
    values = [
        to_coordinates(spec, np.stack(rows))
        for spec, rows in zip(program.parameters, draws, strict=True)
    ]
    return program.solve(values, backend=get_backend("native"))


def gradients(derivative: NativeDerivative | ReferenceDerivative) -> tuple[np.ndarray | None, ...]:
    rng, program = np.random.default_rng(1), solved().program
    weights = [rng.normal(size=(BATCH, spec.size)) for spec in program.outputs]
    return program.vjp(solved(), weights, derivative=derivative)[0]


def test_the_specification_returns_to_the_central_path() -> None:
    solution = solved()
    point = refine(solution.batch, solution.cone)
    np.testing.assert_allclose(point.y, solution.cone.y, rtol=1e-14)
    assert ((point.y * (point.y - point.v)).sum(axis=1) > 1e-9).all()


def test_native_follows_the_central_path_as_specified() -> None:
    ours, specified = gradients(NativeDerivative()), gradients(ReferenceDerivative())
    for bar, expected in zip(ours, specified, strict=True):
        scale = AGREEMENT * np.abs(expected).max()
        np.testing.assert_allclose(bar, expected, rtol=0, atol=scale)
