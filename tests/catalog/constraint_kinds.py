# SPDX-License-Identifier: Apache-2.0
"""Every kind of constraint that CVXPY has, about variables shifted by parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np

HAS_STACKS = not cp.__version__.startswith("1.7")
"""Whether this CVXPY has expressions of more than two dimensions."""

_CONSTANTS = np.random.default_rng(11)
_EXPONENTS = _CONSTANTS.uniform(0.2, 0.8, size=(2, 2))


def _weights(*shape: int) -> np.ndarray:
    raw = _CONSTANTS.uniform(0.2, 1.0, size=shape)
    return raw / raw.sum(axis=0)


_LONG, _PAIRS = _weights(5, 2), _weights(2, 3)


@dataclasses.dataclass(frozen=True, eq=False)
class ConstraintKind:
    """A constraint about the sums of variables and parameters, one of each for each argument.

    Attributes:
        name: for the name of the test.
        shapes: of the arguments.
        make: (shifted arguments) ↦ the constraint.
        sign: dV = sign · ⟨dual, d parameter⟩ for the optimal value V of a minimization.
        is_complex: which arguments are complex.
        is_reported: whether CVXPY reports the dual, and rightly.
        attributes: declared for variables and parameters.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    make: Callable[..., Any]
    sign: float = -1.0
    is_complex: tuple[bool, ...] = (False, False, False)
    is_reported: bool = True
    attributes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def build(self) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
        """Return the problem of the nearest point to given ones: parameters 0, 2, … are the
        points, 1, 3, … the shifts."""
        variables, parameters, distance = [], [], 0
        for shape, is_complex in zip(self.shapes, self.is_complex, strict=False):
            declared: dict[str, Any] = dict.fromkeys(self.attributes, True)
            if is_complex and not declared:
                declared = {"complex": True}
            variables.append(cp.Variable(shape, **declared))
            parameters += [cp.Parameter(shape, **declared), cp.Parameter(shape, **declared)]
            distance += cp.sum_squares(variables[-1] - parameters[-2])
        shifted = [v + p for v, p in zip(variables, parameters[1::2], strict=True)]
        problem = cp.Problem(cp.Minimize(distance), [self.make(*shifted)])
        return problem, parameters, variables

    def draw(self, rng: np.random.Generator, scale: float = 1.0) -> list[np.ndarray]:
        """Draw one value for each parameter."""
        values = []
        for shape, is_complex in zip(self.shapes, self.is_complex, strict=False):
            for _ in range(2):
                value = scale * rng.normal(size=shape)
                if is_complex:
                    value = value + 1j * scale * rng.normal(size=shape)
                if {"symmetric", "hermitian"} & set(self.attributes):
                    value = 0.5 * (value + value.swapaxes(-2, -1).conj())
                values.append(np.asarray(value))
        return values


CONSTRAINT_KINDS = [
    ConstraintKind("Equality", ((2, 3),), lambda x: x == 0.3, 1.0),
    ConstraintKind("Inequality", ((2, 3),), lambda x: x <= 0.3, 1.0),
    ConstraintKind("Zero", ((2, 3),), cp.Zero, 1.0),
    ConstraintKind("NonNeg", ((2, 3),), cp.NonNeg),
    ConstraintKind("NonPos", ((2, 3),), cp.NonPos, 1.0),
    ConstraintKind("SOC", ((), (4,)), cp.SOC),
    ConstraintKind("SOC of columns", ((2,), (3, 2)), cp.SOC),
    ConstraintKind("SOC of rows", ((2,), (2, 3)), lambda t, X: cp.SOC(t, X, axis=1)),
    ConstraintKind("PSD", ((3, 3),), cp.PSD, attributes=("symmetric",)),
    ConstraintKind("PSD of the symmetric part", ((3, 3),), cp.PSD),
    ConstraintKind("ExpCone", ((2, 2),) * 3, cp.ExpCone),
    ConstraintKind("PowCone3D", ((2, 2),) * 3, lambda *a: cp.PowCone3D(*a, _EXPONENTS)),
    ConstraintKind("PowCone3D of numbers", ((),) * 3, lambda *a: cp.PowCone3D(*a, 0.3)),
    ConstraintKind("PowConeND of columns", ((5, 2), (2,)), lambda W, z: cp.PowConeND(W, z, _LONG)),
    ConstraintKind(
        "PowConeND of rows", ((2, 5), (2,)), lambda W, z: cp.PowConeND(W, z, _LONG.T, axis=1)
    ),
    ConstraintKind("PowConeND of pairs", ((2, 3), (3,)), lambda W, z: cp.PowConeND(W, z, _PAIRS)),
    ConstraintKind(
        "PowConeND of a vector", ((5,), (1,)), lambda W, z: cp.PowConeND(W, z[0], _LONG[:, 0])
    ),
    ConstraintKind("complex Equality", ((2, 3),), lambda x: x == 0.3 + 1j, 1.0, (True,)),
    ConstraintKind(
        "complex SOC", ((2,), (3, 2)), cp.SOC, is_complex=(False, True), is_reported=False
    ),
    ConstraintKind(
        "complex SOC of rows",
        ((2,), (2, 3)),
        lambda t, X: cp.SOC(t, X, axis=1),
        is_complex=(False, True),
        is_reported=False,
    ),
    ConstraintKind(
        "Hermitian PSD", ((3, 3),), cp.PSD, is_complex=(True,), attributes=("hermitian",)
    ),
]
if HAS_STACKS:
    CONSTRAINT_KINDS += [
        ConstraintKind("PSD of a stack", ((4, 2, 2),), cp.PSD),
        # CVXPY takes the dual of such a stack apart in another order than it put it together.
        ConstraintKind("PSD of a stack of stacks", ((2, 3, 2, 2),), cp.PSD, is_reported=False),
    ]
