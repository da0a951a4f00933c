# SPDX-License-Identifier: Apache-2.0
"""Compares the gradient of a layer with central finite differences.

The function compared is L(θ) = Σ cᵢ xᵢ(θ) with random c, x the variables of the problem,
along one random direction for each parameter. Differences are believed only where they have
settled: halving the step several times changes little, and both sides have the same slope.
Where they never settle, the solution has a kink too near, and nothing is concluded there.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from cvxlayer.checks.report import GradientReport, GradientVerdict
from cvxlayer.checks.sampling import Values, restrict_shape
from cvxlayer.compiler import CompiledProgram
from cvxlayer.program.cone_derivative import ConeDerivative
from cvxlayer.program.parameters import ParameterSpec, from_coordinates, to_coordinates
from cvxlayer.solve.backend import AbstractBackend, Settings

# Relative to the size of the parameter, each half of the one before.
_STEPS = 0.05 * 0.5 ** np.arange(10)
# For a curved constraint under a linear objective, solutions are only as exact as the root of
# the tolerance, and differences of solutions less than that.
_EPS = 1e-11
# Differences at so many steps in a row must be alike: two may be so by chance.
_WINDOW = 4
# They have settled when they differ by no more, relative.
_SETTLED = 5e-3
# The gradient agrees when it is this close, relative, or within what the differences differ.
_TOLERANCE = 1e-2
_UNCERTAINTIES = 10.0
# Where the slopes to both sides differ by more, relative, the solution has a kink.
_KINK = 0.1
# Above, the derivative's linear system is singular: there is no unique derivative.
_LARGE_ADJOINT_RESIDUAL = 1e-4
# Slopes below this share of the natural one (L itself, for a doubling) count as zero.
_FLOOR = 1e-3
# Solutions below this are zero up to the solver's tolerance.
_ZERO = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class _Function:
    """θ ↦ L(θ) = Σ weights · outputs, at some instances, by solving.

    Attributes:
        program, backend, settings: what is solved, and how.
        theta: the values, one row for each instance.
        outputs: the solution there.
        weights: one array for each output.
    """

    program: CompiledProgram
    backend: AbstractBackend
    settings: Settings
    theta: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]

    @property
    def size(self) -> float:
        """Typical size of L: that of its terms with the largest output, or with 1 for zero."""
        largest = max((float(np.abs(x).max(initial=0.0)) for x in self.outputs), default=0.0)
        num_terms = sum(x.shape[1] for x in self.outputs)
        return (largest if largest > _ZERO else 1.0) * float(np.sqrt(num_terms))

    def rise(
        self, index: int, shifts: Float[np.ndarray, "shifts instances size"]
    ) -> Float[np.ndarray, "shifts instances"]:
        """Return how L changes when one parameter is shifted; NaN without a solution."""
        num_shifts, num_instances = shifts.shape[:2]
        moved = [np.tile(value, (num_shifts, 1)) for value in self.theta]
        moved[index] = moved[index] + shifts.reshape(num_shifts * num_instances, -1)
        outputs = self.program.solve(moved, backend=self.backend, settings=self.settings).outputs
        total = np.zeros((num_shifts, num_instances))
        for weight, base, output in zip(self.weights, self.outputs, outputs, strict=True):
            total += np.sum(weight * (output.reshape(num_shifts, *base.shape) - base), axis=2)
        return total


@dataclasses.dataclass(frozen=True, eq=False)
class _Comparison:
    """One direction at each instance: the slope by the gradient, and by differences.

    Attributes:
        error: |slope − difference|, relative.
        uncertainty: how much differences at several steps differ, relative; infinite where
            the slopes to both sides do.
    """

    error: Float[np.ndarray, " instances"]
    uncertainty: Float[np.ndarray, " instances"]

    @property
    def has_settled(self) -> Bool[np.ndarray, " instances"]:
        return self.uncertainty <= _SETTLED

    @property
    def agrees(self) -> Bool[np.ndarray, " instances"]:
        return self.error <= np.maximum(_TOLERANCE, _UNCERTAINTIES * self.uncertainty)


def check_gradient(
    program: CompiledProgram,
    values: Values,
    backend: AbstractBackend,
    derivative: ConeDerivative,
    *,
    num_instances: int = 8,
    seed: int = 0,
) -> GradientReport | None:
    """Compare the vjp with central finite differences, parameter by parameter.

    Args:
        program: the compiled problem; its outputs are what is differentiated.
        values: where; the first instances that have a solution are used.
        backend: the solver; called with tight tolerances for the differences.
        derivative: the engine whose derivative is checked.
        num_instances: at most so many instances.
        seed: of the random directions.

    Returns:
        The comparison; None if no instance has a solution or there is no parameter.
    """
    rng = np.random.default_rng(seed)
    settings = Settings(eps_abs=_EPS, eps_rel=_EPS)
    theta = _solved_instances(program, values, backend, num_instances)
    if theta is None or not program.parameters:
        return None
    solution = program.solve(theta, backend=backend)
    weights = tuple(rng.standard_normal(output.shape) for output in solution.outputs)
    exact = program.solve(theta, backend=backend, settings=settings).outputs
    function = _Function(program, backend, settings, theta, exact, weights)
    gradients, residual = program.vjp(solution, weights, derivative=derivative)
    residual = np.zeros(theta[0].shape[0]) if residual is None else residual
    comparisons: dict[str, _Comparison] = {}
    names = _distinct_names(program.parameters)
    for index, (spec, gradient) in enumerate(zip(program.parameters, gradients, strict=True)):
        assert gradient is not None
        direction = _direction(spec, theta[index], rng)
        slope = np.sum(gradient * direction, axis=1)
        comparisons[names[index]] = _compare(function, index, direction, slope)
    return _summarize(comparisons, residual)


def solves_per_instance(num_parameters: int) -> int:
    """Return how many solves `check_gradient` spends on one instance."""
    return 2 * len(_STEPS) * num_parameters


def _distinct_names(specs: tuple[ParameterSpec, ...]) -> list[str]:
    """Return the names of parameters, numbered where several have the same."""
    names = [spec.name for spec in specs]
    return [
        name if names.count(name) == 1 else f"{name} ({names[:place].count(name) + 1})"
        for place, name in enumerate(names)
    ]


def _solved_instances(
    program: CompiledProgram,
    values: Values,
    backend: AbstractBackend,
    most: int,
) -> tuple[np.ndarray, ...] | None:
    """Return the values of the first instances with a solution, one row for each."""
    solution = program.solve(values.rows, backend=backend, batch=values.batch)
    chosen = np.flatnonzero(solution.has_solution)[:most]
    if not len(chosen):
        return None
    spread = [np.broadcast_to(rows, (values.batch, rows.shape[1])) for rows in values.rows]
    return tuple(np.ascontiguousarray(rows[chosen]) for rows in spread)


def _direction(
    spec: ParameterSpec, value: np.ndarray, rng: np.random.Generator
) -> Float[np.ndarray, "instances size"]:
    """Return random directions that keep a value in its domain, of the value's size."""
    domain = spec.domain
    noise = from_coordinates(spec, rng.standard_normal(value.shape), value.shape[:1])
    direction = to_coordinates(spec, restrict_shape(domain, noise))
    finite = np.where(np.isfinite(value), value, 0.0)
    size = np.sqrt(np.mean(finite**2, axis=1, keepdims=True)) if spec.size else 0.0
    length = np.sqrt(np.mean(direction**2, axis=1, keepdims=True)) if spec.size else 0.0
    direction = direction * np.where(size > 0, size, 1.0) / np.where(length > 0, length, 1.0)
    # Entries at the end of what they may be, and infinite ones, stay.
    reach = 2 * _STEPS[0] * np.abs(direction)
    stays = ~np.isfinite(value)
    if domain.is_nonneg or domain.is_pos or domain.is_nonpos or domain.is_neg:
        stays |= np.abs(finite) < reach
    for bound in (domain.lower, domain.upper):
        if bound is not None:
            stays |= np.abs(finite - np.broadcast_to(bound, spec.shape).ravel()) < reach
    return np.where(stays, 0.0, direction)


def _compare(
    function: _Function, index: int, direction: np.ndarray, slope: np.ndarray
) -> _Comparison:
    """Compare at those steps where, for each instance, the differences differ least."""
    steps = _STEPS[:, None]
    up, down = (function.rise(index, sign * steps[:, None] * direction) for sign in (1, -1))
    central = (up - down) / (2 * steps)
    # Slopes of the two sides, each without the value in the middle: at a kink it is inexact.
    lengths = steps[:-1] - steps[1:]
    jump = np.abs((up[:-1] - up[1:]) - (down[1:] - down[:-1])) / lengths
    uncertainty, error = np.full(len(slope), np.inf), np.full(len(slope), np.nan)
    for start in range(len(_STEPS) - _WINDOW + 1):
        window = central[start : start + _WINDOW]
        middle = np.median(window, axis=0)
        scale = np.maximum(np.maximum(np.abs(middle), np.abs(slope)), _FLOOR * function.size)
        spread = np.ptp(window, axis=0) / scale
        has_kink = np.median(jump[start : start + _WINDOW - 1], axis=0) > _KINK * scale
        # A comparison with NaN is false, so rows without a solution are never better.
        is_better = (spread < uncertainty) & ~has_kink
        uncertainty = np.where(is_better, spread, uncertainty)
        error = np.where(is_better, np.abs(middle - slope) / scale, error)
    return _Comparison(error, uncertainty)


def _summarize(comparisons: dict[str, _Comparison], residual: np.ndarray) -> GradientReport:
    """Return the verdict over all directions that can be believed."""
    is_unique = residual <= _LARGE_ADJOINT_RESIDUAL
    believed = {name: c.has_settled & is_unique for name, c in comparisons.items()}
    num_directions = sum(int(mask.sum()) for mask in believed.values())
    worst = {
        name: float(comparisons[name].error[mask].max()) if mask.any() else float("nan")
        for name, mask in believed.items()
    }
    figures = [figure for figure in worst.values() if not np.isnan(figure)]
    if not is_unique.any():
        verdict = GradientVerdict.NOT_UNIQUE
    elif not num_directions:
        verdict = GradientVerdict.NOT_SMOOTH
    elif all(c.agrees[believed[name]].all() for name, c in comparisons.items()):
        verdict = GradientVerdict.AGREES
    else:
        verdict = GradientVerdict.DISAGREES
    return GradientReport(
        verdict,
        max(figures, default=float("nan")),
        worst,
        num_directions,
        len(comparisons) * int(is_unique.sum()) - num_directions,
        len(is_unique),
        int((~is_unique).sum()),
        float(residual.max(initial=0.0)),
    )
