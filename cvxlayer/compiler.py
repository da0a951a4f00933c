# SPDX-License-Identifier: Apache-2.0
"""The hallway: the only file that sees canonicalize, solve and differentiate.

CVXPY problem → `CompiledProgram`; values → `ProgramSolution`; cotangents → cotangents.
"""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cvxlayer.errors import Status
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.cone_derivative import ConeDerivative, LinearizedDerivative
from cvxlayer.program.coordinates import Coordinates
from cvxlayer.program.engine import count_threads
from cvxlayer.program.native_program import build_native_program
from cvxlayer.program.objective import add_value_cotangent, objective_value
from cvxlayer.program.parameters import OutputSpec, ParameterSpec
from cvxlayer.program.parametric import AffineAdjoint, ParametricConeProgram
from cvxlayer.program.recovery import RecoveredOutput, Recovery, pull_back_outputs
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import AbstractBackend, Settings

_LAST_WITH_SOLUTION = int(Status.INACCURATE)


@dataclasses.dataclass(frozen=True, eq=False)
class ProgramSolution:
    """The answers to one batch, and what their derivative needs.

    Attributes:
        program: what was solved.
        values: the values it was solved at, one array for each parameter.
        theta: the same as the coordinates in which the cone programs are affine.
        batch: the cone programs.
        cone: their solutions, in canonical scaling.
        has_solution: which instances have one.
        failed: which have none; None if every one has.
        outputs: for each output, (batch, size) in user scaling and C order; NaN in rows
            without a solution.
        settings: those of the solve.
        derivative: the backend's own engine of derivatives; None for ours.
    """

    program: CompiledProgram
    values: tuple[np.ndarray, ...]
    theta: tuple[np.ndarray, ...]
    batch: ConeProgramBatch
    cone: ConeSolution
    has_solution: Bool[np.ndarray, " batch"]
    failed: Bool[np.ndarray, " batch"] | None
    outputs: tuple[Float[np.ndarray, "batch _"], ...]
    settings: Settings
    derivative: ConeDerivative | None = None

    @functools.cached_property
    def value(self) -> Float[np.ndarray, " batch"]:
        """Optimal objective in the user's sense.

        As CVXPY reports it: ±∞ for infeasible and unbounded rows (∞ and 0 of a geometric
        program), NaN for other failures.
        """
        program, recovery = self.program.program, self.program.recovery
        value = objective_value(self.batch, self.cone.x)
        value += program.objective_constant.evaluate(program.stack(self.theta))
        if self.failed is not None:
            value[self.failed] = np.nan
        value[self.cone.status == Status.INFEASIBLE] = np.inf
        value[self.cone.status == Status.UNBOUNDED] = -np.inf
        value = recovery.sign * value
        return np.exp(value) if recovery.is_log_objective else value

    def dual(self, constraint: Any) -> tuple[Float[np.ndarray, "batch _"], ...]:
        """Return the dual variables of a constraint, in the order of its `dual_variables`.

        Args:
            constraint: a constraint of the problem, or its place among the constraints.

        Raises:
            ValueError: the problem does not contain the constraint.
        """
        threads = count_threads(self.settings.threads)
        return tuple(
            self.program.recovery.duals[place].read_solved(
                self.cone, self.theta, self.failed, threads
            )
            for place in self.program.recovery.find_duals(constraint)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledProgram:
    """A problem compiled once, to be solved and differentiated in batches.

    Immutable and free of state between calls; safe to share between threads, to copy and
    to pickle.

    Attributes:
        parameters: the inputs, in call order.
        coordinates: θ, made of the values of the parameters.
        program: the reduced cone program, affine in θ.
        recovery: the way back to the user's variables and duals.
    """

    parameters: tuple[ParameterSpec, ...]
    coordinates: Coordinates
    program: ParametricConeProgram
    recovery: Recovery
    # What backends and derivatives prepared for the structure; a cache, never pickled.
    _prepared: weakref.WeakKeyDictionary[Any, Any] = dataclasses.field(
        default_factory=weakref.WeakKeyDictionary, repr=False
    )

    @functools.cached_property
    def outputs(self) -> tuple[OutputSpec, ...]:
        """The outputs, in call order."""
        return tuple(output.spec for output in self.recovery.outputs)

    @functools.cached_property
    def is_real(self) -> bool:
        """Whether no parameter or output is complex."""
        return not any(spec.is_complex for spec in (*self.parameters, *self.outputs))

    @functools.cached_property
    def is_linear(self) -> bool:
        """Whether values are θ itself, and outputs affine in x, y and θ: no logarithms."""
        return self.coordinates.is_identity and not any(
            output.is_log for output in self.recovery.outputs
        )

    @functools.cached_property
    def native(self) -> Any:
        """The same in the core; see `NativeRun`."""
        return build_native_program(self.program, self.recovery)

    @property
    def infinite_sides(self) -> tuple[np.ndarray, ...]:
        """Where the entries of each parameter may be infinite; see `find_infinite_sides`."""
        ends = np.cumsum(self.program.parameter_sizes, dtype=np.intp)
        sides = np.split(self.program.infinite_sides, ends[:-1]) if len(ends) else []
        return self.coordinates.legal_infinities(sides, len(self.parameters))

    def dual_specs(self, constraint: Any) -> tuple[OutputSpec, ...]:
        """Return name and shape of each dual variable of a constraint.

        Raises:
            ValueError: the problem does not contain the constraint.
        """
        places = self.recovery.find_duals(constraint)
        return tuple(self.recovery.duals[place].spec for place in places)

    def solve(
        self,
        values: Sequence[Float[np.ndarray, "_ _"]],
        *,
        backend: AbstractBackend,
        settings: Settings | None = None,
        batch: int | None = None,
        known: ConeSolution | None = None,
        begun: ConeSolution | None = None,
    ) -> ProgramSolution:
        """Solve a batch.

        Args:
            values: one float64 C-contiguous array for each parameter, (1, size) when all
                instances share it, else (batch, size), flattened in C order; complex ones
                as `program.parameters.to_coordinates` gives them.
            backend: the solver.
            settings: its settings.
            batch: number of instances; by default the largest number of rows.
            known: the solutions, where they are known already.
            begun: what the first pass of the solver left, where it has run already.

        Returns:
            One row for each instance, in user scaling; a failed one has a status and NaN.
        """
        if batch is None:
            batch = next((len(value) for value in values if len(value) != 1), 1)
        settings = settings or Settings()
        threads = count_threads(settings.threads)
        theta = self.coordinates.apply(values)
        cone_programs = self.program.evaluate(theta, batch, threads)
        cone = begun or known
        if cone is None:
            cone = backend.solve(self.prepare(backend), cone_programs, settings)
        elif begun is not None:
            backend.finish(self.prepare(backend), cone_programs, settings, cone)
        has_solution = cone.status <= _LAST_WITH_SOLUTION
        failed = None if has_solution.all() else ~has_solution
        outputs = tuple(
            output.read_solved(cone, theta, failed, threads) for output in self.recovery.outputs
        )
        return ProgramSolution(
            self,
            tuple(values),
            theta,
            cone_programs,
            cone,
            has_solution,
            failed,
            outputs,
            # What it started from is not kept alive.
            dataclasses.replace(settings, warm_start=None) if settings.warm_start else settings,
            backend.derivative(settings),
        )

    def vjp(
        self,
        solution: ProgramSolution,
        outputs_bar: Sequence[np.ndarray | None],
        value_bar: np.ndarray | None = None,
        needs: Sequence[bool] | None = None,
        *,
        duals_bar: Sequence[tuple[Any, Sequence[np.ndarray | None]]] = (),
        derivative: ConeDerivative | None = None,
    ) -> tuple[tuple[np.ndarray | None, ...], np.ndarray | None]:
        """Return the cotangent of each parameter: the adjoint of the derivative of `solve`.

        Args:
            solution: what `solve` returned.
            outputs_bar: cotangent of each output, (batch, size), or None for zero.
            value_bar: cotangent of the value, (batch,), or None.
            needs: which parameters need a cotangent; by default all.
            duals_bar: (constraint, one cotangent for each of its dual variables).
            derivative: the engine; by default that of the solution.

        Returns:
            One array for each parameter, shaped like its values (so summed over the batch
            for (1, size)), None where not needed; and the relative residual of each row's
            adjoint system, None when no system had to be solved.

        Notes:
            Rows without a solution contribute exactly zero, whatever their cotangents hold.
        """
        threads = count_threads(solution.settings.threads)
        part_needs = self.coordinates.spread(needs or [True] * len(self.parameters))
        adjoint = AffineAdjoint(solution.theta, part_needs, threads)
        cotangents = self._pair_with_outputs(outputs_bar, duals_bar)
        x_bar, y_bar = pull_back_outputs(
            cotangents, solution.cone, solution.theta, solution.failed, adjoint, threads
        )
        residual = None
        # Also solved where the reduced data do not depend on the parameters: its residual is
        # what tells a derivative that is not unique.
        if x_bar is not None or y_bar is not None:
            derivative = derivative or solution.derivative or default_derivative()
            cotangent = derivative.vjp(
                self.prepare(derivative),
                solution.batch,
                solution.cone,
                x_bar,
                y_bar,
                None,
                needs=self.program.needs(part_needs),
                threads=solution.settings.threads,
            )
            self.program.add_adjoint_to(adjoint, cotangent)
            residual = cotangent.residual
        if value_bar is not None:
            rows = self.recovery.sign * value_bar
            if self.recovery.is_log_objective:
                rows = rows * solution.value
            rows = np.where(solution.has_solution, rows, 0.0)
            add_value_cotangent(self.program, adjoint, rows, solution.theta, solution.cone)
        return self.coordinates.pull_back(solution.values, adjoint.total()), residual

    def _pair_with_outputs(
        self,
        outputs_bar: Sequence[np.ndarray | None],
        duals_bar: Sequence[tuple[Any, Sequence[np.ndarray | None]]],
    ) -> list[tuple[RecoveredOutput, np.ndarray]]:
        """Return every output and dual that has a cotangent, with it."""
        pairs = list(zip(self.recovery.outputs, outputs_bar, strict=True))
        for constraint, dual_bars in duals_bar:
            places = self.recovery.find_duals(constraint)
            duals = (self.recovery.duals[place] for place in places)
            pairs += zip(duals, dual_bars, strict=True)
        return [(output, bar) for output, bar in pairs if bar is not None]

    def prepare(self, engine: AbstractBackend | ConeDerivative) -> Any:
        """Return what an engine prepared for the structure, once for each engine."""
        try:
            return self._prepared[engine]
        except KeyError:
            # Two threads may both do this the first time; either result serves.
            prepared = self._prepared[engine] = engine.setup(self.program.structure)
            return prepared

    def __getstate__(self) -> dict[str, Any]:
        names = ("parameters", "coordinates", "program", "recovery")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_prepared", weakref.WeakKeyDictionary())

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledProgram:
        return self  # immutable


def compile_problem(
    problem: Any, parameters: Sequence[Any], variables: Sequence[Any], *, gp: bool = False
) -> CompiledProgram:
    """Compile a DPP problem, or with `gp` a log-log convex one (DGP).

    Args:
        problem: a `cvxpy.Problem`, to minimize or to maximize.
        parameters: the parameters that become inputs, in call order; others must have a
            value and are constants.
        variables: what to return, in order: variables and duals of constraints
            (`constraint.dual_variables[i]`).
        gp: whether the problem is a geometric program.

    Raises:
        NotDppError: the problem is not DCP (DGP) or not DPP; names the expression.
        ValueError: `parameters` or `variables` do not fit the problem.
        UnsupportedProblemError: the problem is valid but outside what we can solve.
    """
    # CVXPY takes seconds to import; a compiled program does not need it.
    from cvxlayer.canonicalize.assemble import canonicalize

    canonical = canonicalize(problem, parameters, variables, gp=gp)
    return CompiledProgram(
        canonical.parameters, canonical.coordinates, canonical.program, canonical.recovery
    )


@functools.cache
def default_derivative() -> LinearizedDerivative:
    """Return the derivative engine used when none is named."""
    from cvxlayer.differentiate.native import NativeDerivative  # needs the compiled core

    return NativeDerivative()


def lagrangian_derivative(
    tau: float, backend: AbstractBackend, settings: Settings
) -> ConeDerivative:
    """Return the gradients of `LagrangianDerivative`, by solves from scratch.

    Args:
        tau: the step along the gradient of the loss.
        backend: what solves.
        settings: of the solve.
    """
    from cvxlayer.differentiate.lagrangian import LagrangianDerivative  # only where asked for

    settings = dataclasses.replace(settings, warm_start=None)
    return LagrangianDerivative(tau, backend, settings)


@functools.cache
def least_squares_derivative() -> ConeDerivative:
    """Return the engine of the least-squares convention."""
    from cvxlayer.differentiate.least_squares import LeastSquaresDerivative  # only where asked for

    return LeastSquaresDerivative()


@functools.cache
def smoothed_derivative(mu: float) -> LinearizedDerivative:
    """Return the engine of the derivative on the central path of μ."""
    from cvxlayer.differentiate.smoothed import SmoothedDerivative  # needs the compiled core

    return SmoothedDerivative(mu)
