# SPDX-License-Identifier: Apache-2.0
"""The problems on which NumPy, PyTorch and JAX must agree, and what there is to agree on.

Every kind of cone, output and declared parameter once; all but one are sampled where their
solutions are twice differentiable.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np

import cvxlayer
from tests.catalog.problems import PROBLEMS
from tests.catalog.smooth_layers import SMOOTH_LAYERS
from tests.catalog.smooth_problems import smooth_case

Parts = tuple[cp.Problem, list[cp.Parameter], list[Any]]
Values = list[np.ndarray]

READINGS = ("outputs", "solution")
"""What is read of an answer: the outputs of a call; those of `solve`, its value and all duals."""


@dataclasses.dataclass(frozen=True, eq=False)
class ParityCase:
    """A problem, compiled once for all frameworks, as a function of one real vector θ.

    Attributes:
        name: for the name of the test.
        build: makes (problem, parameters, variables).
        draw: one value per parameter, within its declared domain.
        gp: whether it is a geometric program.
        is_smooth: whether solutions are twice differentiable where it draws.
    """

    name: str
    build: Callable[[], Parts]
    draw: Callable[[np.random.Generator], Values]
    gp: bool = False
    is_smooth: bool = True

    def __str__(self) -> str:
        return self.name

    @functools.cached_property
    def program(self) -> cvxlayer.CompiledProgram:
        """The problem, compiled."""
        return cvxlayer.compile(*self.build(), gp=self.gp)

    @functools.cached_property
    def num_constraints(self) -> int:
        """How many constraints have duals to read."""
        return len(self.build()[0].constraints)

    @functools.cached_property
    def like(self) -> Values:
        """Values of the shapes and kinds that θ is made of."""
        return self.draw(np.random.default_rng(0))

    def sample(self, rng: np.random.Generator, *batch: int) -> np.ndarray:
        """Draw θ, with the given batch dimensions."""
        rows = [pack(self.draw(rng), (), np.concatenate) for _ in range(math.prod(batch))]
        return np.stack(rows).reshape(*batch, -1)

    def direction(self, rng: np.random.Generator, *batch: int) -> np.ndarray:
        """Draw a change of θ that stays within the declared domains: they are subspaces."""
        change = self.sample(rng, *batch) - self.sample(rng, *batch)
        return change / np.linalg.norm(change, axis=-1, keepdims=True)

    def read(self, layer: Any, reading: str, values: Sequence[Any]) -> tuple[Any, ...]:
        """Call a layer of any framework, and return arrays, batch dimensions first."""
        if reading == "outputs":
            return layer(*values)
        solution = layer.solve(*values)
        duals = [solution.dual(place) for place in range(self.num_constraints)]
        parts = [part for dual in duals for part in (dual if isinstance(dual, tuple) else (dual,))]
        return (*solution.variables, solution.value, *parts)


def pack(arrays: Sequence[Any], batch: tuple[int, ...], concatenate: Callable[..., Any]) -> Any:
    """Return arrays of any framework as one real vector for each instance of the batch."""
    rows = [array.reshape((*batch, -1)) for array in arrays]
    parts = [(row.real, row.imag) if "complex" in str(row.dtype) else (row,) for row in rows]
    return concatenate([part for pair in parts for part in pair], -1)


def unpack(theta: Any, like: Sequence[Any]) -> list[Any]:
    """Return the arrays that `pack` makes vectors of; `like` has no batch dimensions."""
    values, start = [], 0
    for value in like:
        size, parts = math.prod(value.shape), []
        for _ in range(2 if "complex" in str(value.dtype) else 1):
            part = theta[..., start : start + size]
            parts.append(part.reshape((*theta.shape[:-1], *value.shape)))
            start += size
        values.append(parts[0] + 1j * parts[1] if len(parts) == 2 else parts[0])
    return values


def _near(*centers: Any, by: float = 0.1) -> Callable[[np.random.Generator], Values]:
    arrays = [np.asarray(center, dtype=float) for center in centers]
    return lambda rng: [a + by * rng.uniform(-1, 1, size=a.shape) for a in arrays]


def _everywhere() -> Parts:
    x = cp.Variable(3, name="x")
    root, q = cp.Parameter((3, 3), name="root"), cp.Parameter(3, name="q")
    A, b = cp.Parameter((1, 3), name="A"), cp.Parameter(1, name="b")
    G, h = cp.Parameter((2, 3), name="G"), cp.Parameter(2, name="h")
    objective = cp.Minimize(0.5 * cp.sum_squares(root @ x) + q @ x + 2 * cp.square(cp.sum(h)))
    return cp.Problem(objective, [A @ x == b, G @ x <= h]), [root, q, A, b, G, h], [x]


_ROOT = np.eye(3) + 0.2
_PATTERN = np.array([[1.0, 0.0, 0.3], [0.0, 0.8, 0.0], [0.5, 0.0, 1.1]])


def _declared(**attributes: Any) -> Callable[[], Parts]:
    def build() -> Parts:
        x = cp.Variable(3, name="x")
        M, target = cp.Parameter((3, 3), name="M", **attributes), cp.Parameter(3, name="target")
        cost = cp.sum_squares(M @ x - target) + cp.exp(x[0]) + 0.1 * cp.sum_squares(x)
        return cp.Problem(cp.Minimize(cost), [cp.sum(x) == 1.0]), [M, target], [x]

    return build


def _positive() -> Parts:
    x = cp.Variable(3, name="x")
    P, q = cp.Parameter((3, 3), PSD=True, name="P"), cp.Parameter(3, name="q")
    objective = cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x)
    return cp.Problem(objective, [cp.sum(x) == 1.0, x[0] <= 0.1]), [P, q], [x]


def _on_pattern(pattern: np.ndarray, *others: Any) -> Callable[[np.random.Generator], Values]:
    nearby = _near(pattern, *others)

    def draw(rng: np.random.Generator) -> Values:
        first, *rest = nearby(rng)
        return [first * (pattern != 0), *rest]

    return draw


def _symmetric(center: np.ndarray, *others: Any) -> Callable[[np.random.Generator], Values]:
    nearby = _near(center, *others)

    def draw(rng: np.random.Generator) -> Values:
        first, *rest = nearby(rng)
        return [0.5 * (first + first.T), *rest]

    return draw


def _degenerate() -> Parts:
    """A vertex through which three constraints pass in the plane."""
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c")
    h = cp.Parameter(name="h")
    limits = [x[0] <= h, x[1] <= h, x[0] + x[1] <= 2 * h]
    return cp.Problem(cp.Minimize(c @ x), limits), [c, h], [x]


PARITY_CASES = [
    *(ParityCase(case.name, case.build, case.sample, case.gp) for case in SMOOTH_LAYERS),
    ParityCase(
        "dual of a ball", smooth_case("second_order").build, smooth_case("second_order").sample
    ),
    ParityCase(
        "parameters everywhere",
        _everywhere,
        _near(
            _ROOT,
            [-3.0, 1.0, 0.5],
            [[1.0, 0.7, 0.9]],
            [1.0],
            [[1.0, -0.2, 0.1], [0.2, 0.1, 1.0]],
            [0.1, 5.0],
        ),
    ),
    ParityCase(
        "sparse parameter",
        _declared(sparsity=np.nonzero(_PATTERN)),
        _on_pattern(_PATTERN, [2.0, -1.0, 0.5]),
    ),
    ParityCase(
        "diagonal parameter", _declared(diag=True), _on_pattern(np.eye(3), [2.0, -1.0, 0.5])
    ),
    ParityCase("semidefinite parameter", _positive, _symmetric(_ROOT, [-3.0, 1.0, 0.5])),
    ParityCase("degenerate", _degenerate, _near([-1.0, -1.3], 1.0), is_smooth=False),
]

PROBLEM_CASES = [ParityCase(case.name, case.build, case.sample) for case in PROBLEMS]
"""The problems of the catalog; some are sampled near a kink, so first derivatives only."""
