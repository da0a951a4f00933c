# SPDX-License-Identifier: Apache-2.0
"""One call of a layer, without a framework: values in, answers out, cotangents back.

Every adapter calls this body with float64 NumPy arrays; what is left to an adapter is to
convert arrays and to register the derivative with its framework.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Inexact

from cvxlayer.compiler import (
    CompiledProgram,
    ProgramSolution,
    compile_problem,
    lagrangian_derivative,
    least_squares_derivative,
    smoothed_derivative,
)
from cvxlayer.errors import ParameterValueError, SolverError, Status
from cvxlayer.inputs import InputBatch, InputRule, batch_inputs, bind_values
from cvxlayer.notices import batch_index, warn_inaccurate, warn_not_unique
from cvxlayer.options import (
    LPGD,
    DerivativeMode,
    LayerOptions,
    OnFailure,
    Smoothed,
    read_warm_start,
    resolve_options,
)
from cvxlayer.program.cone_derivative import ConeDerivative
from cvxlayer.program.engine import count_threads
from cvxlayer.program.parameters import (
    OutputSpec,
    ParameterSpec,
    from_coordinates,
    to_coordinates,
)
from cvxlayer.program.solution import ConeSolution, Residuals, Solution, SolvedBy, StartingPoint
from cvxlayer.reading import Reading
from cvxlayer.reporting import report_derivative
from cvxlayer.solve.backend import Settings, parse_settings

# All that live in this process, by number.
_evaluators: weakref.WeakValueDictionary[int, Evaluator] = weakref.WeakValueDictionary()
_numbers = itertools.count()


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What one call computed.

    Attributes:
        inputs: the values it was computed at.
        solution: the answers, one row per instance.
        is_solved: whether every row is SOLVED.
    """

    inputs: InputBatch
    solution: ProgramSolution
    is_solved: bool

    @property
    def cone(self) -> ConeSolution:
        """The solutions, in canonical scaling."""
        return self.solution.cone

    @property
    def settings(self) -> Settings:
        """Those of the solve."""
        return self.solution.settings

    def read_outputs(self) -> Reading:
        """Return the requested variables and duals."""
        specs = self.solution.program.outputs
        return Reading(self._shaped(self.solution.outputs, specs), self.pull_back_outputs)

    def read_value(self) -> Reading:
        """Return the optimal objective, in the user's sense, as the only array."""
        value = self.solution.value.reshape(self.inputs.batch_shape)
        return Reading((value,), self._pull_back_value)

    def read_dual(self, constraint: Any) -> Reading:
        """Return the duals of a constraint, in the order of its `dual_variables`.

        Raises:
            ValueError: the problem does not contain the constraint.
        """
        specs = self.solution.program.dual_specs(constraint)
        arrays = self._shaped(self.solution.dual(constraint), specs)
        return Reading(arrays, functools.partial(self._pull_back_dual, constraint))

    def report(
        self,
        variables: tuple[Any, ...],
        value: Any,
        find_dual: Callable[[Any], Any],
        convert: Callable[[np.ndarray], Any] = np.asarray,
    ) -> Solution[Any]:
        """Return the user's `Solution`, with arrays as the adapter converted them.

        Args:
            variables: the outputs.
            value: the objective.
            find_dual: a constraint ↦ its dual.
            convert: applied to the arrays of the derivative report.
        """
        cone, shape = self.solution.cone, self.inputs.batch_shape
        return Solution(
            variables,
            value,
            cone.status.reshape(shape) if shape else Status(int(cone.status[0])),
            cone.iterations.reshape(shape),
            Residuals(
                cone.primal_residual.reshape(shape),
                cone.dual_residual.reshape(shape),
                cone.gap.reshape(shape),
            ),
            cone.solved_by.reshape(shape) if shape else SolvedBy(int(cone.solved_by[0])),
            cone.solve_seconds,
            find_dual,
            StartingPoint(self.solution.program.program, cone, shape),
            functools.partial(report_derivative, self.solution, shape, convert),
        )

    def failure(self, solution: Solution[Any] | None) -> SolverError:
        """Return the error that lists every failed row."""
        rows = [int(row) for row in np.flatnonzero(~self.solution.has_solution)]
        statuses = [Status(int(self.solution.cone.status[row])) for row in rows]
        return SolverError(
            [batch_index(row, self.inputs.batch_shape) for row in rows], statuses, solution
        )

    def _shaped(
        self, rows: Sequence[np.ndarray], specs: Sequence[OutputSpec]
    ) -> tuple[np.ndarray, ...]:
        batch_shape = self.inputs.batch_shape
        return tuple(
            from_coordinates(spec, row, batch_shape) for row, spec in zip(rows, specs, strict=True)
        )

    @staticmethod
    def _rows(
        cotangents: Sequence[np.ndarray | None], specs: Sequence[OutputSpec]
    ) -> list[np.ndarray | None]:
        """Return each cotangent as one contiguous row per instance."""
        return [
            None if cotangent is None else to_coordinates(spec, cotangent)
            for cotangent, spec in zip(cotangents, specs, strict=True)
        ]

    def pull_back_outputs(
        self, cotangents: Sequence[np.ndarray | None], needs: Sequence[bool]
    ) -> tuple[np.ndarray | None, ...]:
        """Return the cotangents of the inputs; the `PullBack` of `read_outputs`."""
        rows = self._rows(cotangents, self.solution.program.outputs)
        return self._finish(self.solution.program.vjp(self.solution, rows, None, needs))

    def _pull_back_value(
        self, cotangents: Sequence[np.ndarray | None], needs: Sequence[bool]
    ) -> tuple[np.ndarray | None, ...]:
        program, (value_bar,) = self.solution.program, cotangents
        none = [None] * len(program.outputs)
        flat = None if value_bar is None else value_bar.reshape(self.inputs.size)
        return self._finish(program.vjp(self.solution, none, flat, needs))

    def _pull_back_dual(
        self, constraint: Any, cotangents: Sequence[np.ndarray | None], needs: Sequence[bool]
    ) -> tuple[np.ndarray | None, ...]:
        program = self.solution.program
        none = [None] * len(program.outputs)
        bars = [(constraint, self._rows(cotangents, program.dual_specs(constraint)))]
        return self._finish(program.vjp(self.solution, none, None, needs, duals_bar=bars))

    def _finish(
        self, result: tuple[tuple[np.ndarray | None, ...], np.ndarray | None]
    ) -> tuple[np.ndarray | None, ...]:
        rows, residual = result
        if residual is not None:
            shape = self.inputs.batch_shape
            make_report = functools.partial(report_derivative, self.solution, shape)
            warn_not_unique(residual, shape, make_report)
        sum_to_input = self.inputs.sum_to_input
        return tuple(
            None if row is None else sum_to_input(index, row) for index, row in enumerate(rows)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
    """A compiled program with the options of a layer; immutable.

    Attributes:
        program: what is solved and differentiated.
        options: how.
        rules: what the values of each parameter must satisfy.
        number: what it is known by where only numbers can be passed; see `find_evaluator`.
    """

    program: CompiledProgram
    options: LayerOptions
    rules: tuple[InputRule, ...]
    number: int = dataclasses.field(default_factory=lambda: next(_numbers), init=False)

    def __post_init__(self) -> None:
        _evaluators[self.number] = self

    def __getstate__(self) -> dict[str, Any]:
        return {"program": self.program, "options": self.options, "rules": self.rules}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled one, under a number of this process."""
        self.__dict__.update(state, number=next(_numbers))
        _evaluators[self.number] = self

    @functools.cached_property
    def is_all_in_core(self) -> bool:
        """Whether our engine alone does it all: exact derivatives, inputs and outputs real."""
        return (
            self.options.is_native
            and self.options.derivative is DerivativeMode.EXACT
            and self.program.is_real
        )

    @functools.cached_property
    def kept(self) -> dict[str, Any]:
        """What adapters made for this evaluator, by their names."""
        return {}

    def bind(self, positional: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        """Return one value per parameter in call order; see `bind_values`."""
        return bind_values(self.rules, positional, named)

    def evaluate(
        self,
        arrays: Sequence[Inexact[np.ndarray, "..."]],
        epsilons: Sequence[float],
        solver_args: Mapping[str, Any] | None = None,
        warm_start: Any = None,
        known: ConeSolution | None = None,
        begun: ConeSolution | None = None,
    ) -> Evaluation:
        """Check the values, solve the batch and warn about rows that ended early.

        Args:
            arrays: float64 or complex128, one per parameter, any leading batch dimensions.
            epsilons: machine epsilon of the dtype each value was given in.
            solver_args: override those of the layer.
            warm_start: None, or the `Solution` of an earlier call to start from.
            known: the solutions, where the same values were evaluated before.
            begun: what the solver's first pass left at them; see `CompiledProgram.solve`.

        Raises:
            ShapeError: see `batch_inputs` and `read_warm_start`.
            ParameterValueError: see `batch_inputs`.
            OptionError: see `parse_settings` and `read_warm_start`.
        """
        settings = self.settings_of(solver_args)
        inputs = batch_inputs(self.rules, arrays, epsilons, count_threads(settings.threads))
        if warm_start is not None:
            settings = self.settings_of(solver_args, warm_start, inputs.batch_shape)
        solution = self.program.solve(
            inputs.values,
            backend=self.options.backend,
            settings=settings,
            batch=inputs.size,
            known=known,
            begun=begun,
        )
        if self.options.derivative is not DerivativeMode.EXACT:
            solution = dataclasses.replace(solution, derivative=self.derivative(settings))
        is_solved = not solution.cone.status.any()
        if not is_solved and known is None:
            warn_inaccurate(solution.cone)
        return Evaluation(inputs, solution, is_solved)

    def settings_of(
        self,
        solver_args: Mapping[str, Any] | None,
        warm_start: Any = None,
        batch_shape: tuple[int, ...] = (),
    ) -> Settings:
        """Return the settings of a call; arguments and errors as of `evaluate`."""
        backend, settings = self.options.backend, self.options.settings
        if solver_args:
            settings = parse_settings(backend, solver_args, settings)
        if warm_start is not None:
            start = read_warm_start(warm_start, backend, self.program.program, batch_shape)
            settings = dataclasses.replace(settings, warm_start=start)
        return settings

    def derivative(self, settings: Settings) -> ConeDerivative | None:
        """Return what differentiates solutions found with these settings; None for our engine."""
        return find_derivative(self.options, settings)

    def must_raise(self, evaluation: Evaluation) -> bool:
        """Tell whether an instance failed and `on_failure="raise"`."""
        return self.raises and not (evaluation.is_solved or evaluation.solution.has_solution.all())

    @property
    def raises(self) -> bool:
        """Whether `on_failure="raise"`."""
        return self.options.on_failure is OnFailure.RAISE

    def describe(self) -> str:
        """Return inputs, outputs and solver in one line."""

        def words(specs: Sequence[ParameterSpec] | Sequence[OutputSpec]) -> str:
            return ", ".join(f"{spec.name}{list(spec.shape) or ''}" for spec in specs)

        program = self.program
        return (
            f"({words(program.parameters)}) -> ({words(program.outputs)}), "
            f"solver={self.options.backend.name!r}"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Evaluator:
        """Return itself: nothing in it changes."""
        return self


def find_derivative(options: LayerOptions, settings: Settings) -> ConeDerivative | None:
    """Return the engine of a mode for solutions found with some settings; None for ours."""
    backend, mode = options.backend, options.derivative
    if isinstance(mode, LPGD):
        return lagrangian_derivative(mode.tau, backend, settings)
    if isinstance(mode, Smoothed):
        return smoothed_derivative(mode.mu)
    if mode is DerivativeMode.LEAST_SQUARES:
        return least_squares_derivative()
    return backend.derivative(settings)


def find_evaluator(number: int) -> Evaluator:
    """Return the evaluator of this process that has the number.

    Raises:
        RuntimeError: it is gone, or was another process's.
    """
    evaluator = _evaluators.get(number)
    if evaluator is None:
        raise RuntimeError(
            "A compiled function called a layer that is gone, or lives in another process. Keep "
            "the layer alive as long as the function; do not load an exported program elsewhere."
        )
    return evaluator


def build_evaluator(
    problem: Any,
    parameters: Sequence[Any] | None,
    variables: Sequence[Any] | None,
    *,
    gp: bool,
    **options: Any,
) -> Evaluator:
    """Check the options of a layer and compile its problem.

    Args:
        problem: a `cvxpy.Problem`, or a `CompiledProgram`.
        parameters: inputs in call order; None with a compiled program.
        variables: outputs in call order; None with a compiled program.
        gp: whether the problem is a geometric program.
        options: see `resolve_options`.

    Raises:
        ParameterValueError: parameters or variables are missing, or given though the
            program was compiled with its own.
    """
    resolved = resolve_options(**options)
    if isinstance(problem, CompiledProgram):
        if parameters is not None or variables is not None:
            raise ParameterValueError(
                "`Layer` was given a compiled program and also `parameters` or `variables`; "
                "the program has its own. Pass the program alone."
            )
        program = problem
    elif parameters is None or variables is None:
        missing = "parameters" if parameters is None else "variables"
        raise ParameterValueError(
            f"`Layer` was given a problem without `{missing}`. Pass the list of its "
            "parameters, then the list of the variables to return."
        )
    else:
        program = compile_problem(problem, parameters, variables, gp=gp)
    return Evaluator(program, resolved, _rules(program))


def _rules(program: CompiledProgram) -> tuple[InputRule, ...]:
    pairs = zip(program.parameters, program.infinite_sides, strict=True)
    return tuple(InputRule.of(*pair) for pair in pairs)
