# SPDX-License-Identifier: Apache-2.0
"""Whether a change of the solution is seen by what a layer returns, or caused by its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float

from cvxlayer.differentiate.conic import data_cotangents
from cvxlayer.program.batch import ConeProgramCotangent
from cvxlayer.program.parametric import AffineAdjoint, ParametricConeProgram
from cvxlayer.program.recovery import RecoveredOutput

# Of the largest entry in equilibrated scaling: what stands for zero in a solution of a system.
NOISE = 1e-8
# A sum this much smaller than one of the same terms with scattered weights is zero.
_CANCELLED = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Responses:
    """Answers (λ, ν) of the linearized conditions, one for each row, and where they were found.

    Such an answer is both how the solution responds to a disturbance, and the cotangent of what
    was disturbed. Entries that are noise are zero.

    Attributes:
        lam, nu: the answers.
        x, y: the points.
    """

    lam: Float[np.ndarray, "rows n"]
    nu: Float[np.ndarray, "rows m"]
    x: Float[np.ndarray, "rows n"]
    y: Float[np.ndarray, "rows m"]

    @classmethod
    def of(
        cls,
        answer: tuple[np.ndarray, np.ndarray],
        point: tuple[np.ndarray, np.ndarray],
        factors: Float[np.ndarray, "rows n_plus_m"],
        cost: Float[np.ndarray, " rows"],
    ) -> Responses:
        """Return answers (λ, ν) at points (x, y) without their noise.

        Args:
            answer: in canonical scaling.
            point: likewise.
            factors: (d, e) of the equilibrated scaling, where noise is judged.
            cost: k.
        """
        n, k = answer[0].shape[1], cost[:, None]
        d, e = factors[:, :n], factors[:, n:]
        lam, nu = _without_noise(answer, (k * d, e))
        x, y = _without_noise(point, (d, e / k))
        return cls(lam, nu, x, y)

    def part(self, *, of_x: bool) -> Responses:
        """Return the responses with λ or ν alone, the other zero."""
        if of_x:
            return dataclasses.replace(self, nu=np.zeros_like(self.nu))
        return dataclasses.replace(self, lam=np.zeros_like(self.lam))


@dataclasses.dataclass(frozen=True, eq=False)
class Relevance:
    """What a layer returns of a solution, and which parameters it depends on.

    Attributes:
        program: how the data depend on the parameters.
        outputs: what is returned.
    """

    program: ParametricConeProgram
    outputs: tuple[RecoveredOutput, ...]

    def to_parameters(self, found: Responses) -> Bool[np.ndarray, " rows"]:
        """Tell whether what each answer is the cotangent of depends on some parameter."""
        bars = data_cotangents(self.program.structure, found.x, found.y, found.lam, found.nu)
        return _survives(self._pull_back, bars)

    def to_outputs(self, found: Responses) -> Bool[np.ndarray, " rows"]:
        """Tell whether some output responds."""
        return _survives(self._read, (found.lam, found.nu))

    def gradients(self, found: Responses) -> Float[np.ndarray, "rows p"]:
        """Return the cotangents of θ that belong to those of the solution."""
        bars = data_cotangents(self.program.structure, found.x, found.y, found.lam, found.nu)
        return self._pull_back(bars)

    def random_loss(
        self, factors: Float[np.ndarray, "rows n_plus_m"], cost: Float[np.ndarray, " rows"]
    ) -> tuple[Float[np.ndarray, "rows 1 n"], Float[np.ndarray, "rows 1 m"]]:
        """Return cotangents of x and y of a loss in which every output has about the same part."""
        rng = np.random.default_rng(0)
        n = self.program.structure.num_variables
        d, e = factors[:, :n], factors[:, n:] / cost[:, None]
        x_bar, y_bar = np.zeros_like(d), np.zeros_like(e)
        for output in self.outputs:
            sizes = np.zeros((len(d), output.spec.size))
            for part, unit in ((output.from_x, d), (output.from_y, e)):
                if part is not None:
                    sizes += (abs(part.forward) @ unit.T).T
            weights = rng.standard_normal(sizes.shape[1]) / np.where(sizes > 0, sizes, 1.0)
            for part, bar in ((output.from_x, x_bar), (output.from_y, y_bar)):
                if part is not None:
                    bar += (part.backward @ weights.T).T
        return x_bar[:, None], y_bar[:, None]

    def changes(self, found: Responses) -> Float[np.ndarray, "rows outputs"]:
        """Return how the outputs respond, up to a factor for each row."""
        return self._read((found.lam, found.nu))

    def _read(self, changes: tuple[np.ndarray, ...]) -> np.ndarray:
        parts = [np.zeros((len(changes[0]), 0))]
        for output in self.outputs:
            total = np.zeros((len(changes[0]), output.spec.size))
            for part, change in zip((output.from_x, output.from_y), changes, strict=True):
                if part is not None:
                    total += (part.forward @ change.T).T
            parts.append(total)
        return np.concatenate(parts, axis=1)

    def _pull_back(self, bars: tuple[np.ndarray, ...]) -> np.ndarray:
        rows = len(bars[1])
        shapes = [np.broadcast_to(0.0, (rows, size)) for size in self.program.parameter_sizes]
        adjoint = AffineAdjoint(shapes, [True] * len(shapes), threads=1)
        self.program.add_adjoint_to(
            adjoint, ConeProgramCotangent(bars[0], bars[1], bars[2], bars[3], np.zeros(rows))
        )
        found = [part for part in adjoint.total() if part is not None]
        return np.concatenate([np.zeros((rows, 0)), *found], axis=1)


def multiply_A(
    program: ParametricConeProgram, A: Float[np.ndarray, "#rows nnz_A"], x: np.ndarray
) -> Float[np.ndarray, "rows m"]:
    """Return A x of each instance."""
    structure = program.structure
    column = np.repeat(np.arange(structure.num_variables), np.diff(structure.A_indptr))
    terms, entries = A * x[:, column], np.arange(structure.num_A)
    shape = (structure.num_rows, structure.num_A)
    total = sp.csr_array((np.ones(len(entries)), (structure.A_indices, entries)), shape=shape)
    return (total @ terms.T).T


def _without_noise(
    vectors: tuple[np.ndarray, np.ndarray], units: tuple[np.ndarray, np.ndarray]
) -> list[np.ndarray]:
    """Return vectors with zero where they are, in the given units, next to nothing."""
    sizes = [np.abs(v) / unit for v, unit in zip(vectors, units, strict=True)]
    largest = np.concatenate(sizes, axis=1).max(axis=1, initial=0.0)[:, None]
    pairs = zip(vectors, sizes, strict=True)
    return [np.where(size > NOISE * largest, v, 0.0) for v, size in pairs]


def _survives(
    linear: Callable[[tuple[np.ndarray, ...]], np.ndarray], arrays: tuple[np.ndarray, ...]
) -> Bool[np.ndarray, " rows"]:
    """Tell whether a linear map of each row is more than what is left when terms cancel."""
    rng = np.random.default_rng(0)
    mixed = tuple(
        a * rng.choice([-1.0, 1.0], a.shape[1]) * rng.uniform(1, 2, a.shape[1]) for a in arrays
    )
    is_more: np.ndarray = np.abs(linear(arrays)) > _CANCELLED * np.abs(linear(mixed))
    return np.any(is_more, axis=1)
