# SPDX-License-Identifier: Apache-2.0
"""All checks of one problem, in the order in which they make sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cvxpy as cp
import numpy as np

from cvxlayer.canonicalize.leaves import full_value
from cvxlayer.checks.derivative import check_derivative
from cvxlayer.checks.gradient import check_gradient, solves_per_instance
from cvxlayer.checks.report import Report
from cvxlayer.checks.sampling import Values, read_values, sample_values
from cvxlayer.checks.solving import measure, solve_batch
from cvxlayer.checks.structure import (
    compile_for_check,
    describe_parameters,
    describe_program,
)
from cvxlayer.compiler import CompiledProgram, default_derivative
from cvxlayer.evaluation import build_evaluator
from cvxlayer.program.cone_derivative import ConeDerivative
from cvxlayer.solve.backend import AbstractBackend
from cvxlayer.solve.registry import get_backend

# The comparison with differences solves hundreds of times; slow problems get fewer instances.
_GRADIENT_SECONDS = 5.0
_MOST_GRADIENT_INSTANCES = 8


def check_problem(
    problem: cp.Problem,
    *,
    values: Path | None = None,
    samples: int = 64,
    seed: int = 0,
    gp: bool = False,
    solver: str | AbstractBackend | None = None,
    derivative: ConeDerivative | None = None,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Check whether a problem is fit to be a layer, with all its parameters as inputs.

    Args:
        problem: any `cvxpy.Problem`.
        values: an `.npz` file with one array per parameter; by default values are sampled.
        samples: how many instances to sample.
        seed: of all random choices.
        gp: whether it is a geometric program.
        solver: as of `Layer`.
        derivative: the engine whose derivative is checked; by default ours.
        progress: called with a few words before each step.

    Returns:
        The report; when the problem does not compile, only its verdict.

    Raises:
        ProblemFileError: the values file cannot be read.
        ParameterValueError: a value is missing or outside its declared domain.
        ShapeError: a value has the wrong shape.
        OptionError: there is no such solver.
    """
    announce = progress or _ignore
    backend = get_backend(solver)
    derivative = derivative or default_derivative()
    announce("compiling")
    verdict, program, seconds = compile_for_check(problem, backend, gp=gp)
    if program is None:
        return Report(verdict)
    points = _values(problem, program, values, samples, seed)
    parameters = describe_parameters(program, points.sources)
    described = describe_program(problem, program, seconds, gp=gp)
    announce(f"solving {points.batch} instances")
    solve = solve_batch(program, points, backend)
    if not solve.num_solved:
        return Report(verdict, parameters, described, solve)
    announce("examining the derivative")
    regularity = check_derivative(program, points, backend)
    announce("timing")
    timing = measure(program, points, backend, derivative if parameters else None)
    announce("comparing the gradient with finite differences")
    num_instances = _affordable_instances(len(parameters), timing.forward_seconds)
    gradient = check_gradient(
        program, points, backend, derivative, num_instances=num_instances, seed=seed
    )
    return Report(verdict, parameters, described, solve, regularity, gradient, timing)


def _affordable_instances(num_parameters: int, solve_seconds: float) -> int:
    solves = max(solves_per_instance(num_parameters), 1)
    affordable = int(_GRADIENT_SECONDS / (solves * solve_seconds))
    return int(np.clip(affordable, 1, _MOST_GRADIENT_INSTANCES))


def _values(
    problem: cp.Problem, program: CompiledProgram, path: Path | None, samples: int, seed: int
) -> Values:
    """Return the values to check at, read from a file or drawn."""
    centers = [_value_set(parameter) for parameter in problem.parameters()]
    if path is None:
        return sample_values(program.parameters, centers, samples, seed)
    rules = build_evaluator(program, None, None, gp=False).rules
    return read_values(path, rules, centers)


def _value_set(parameter: cp.Parameter) -> np.ndarray | None:
    """Return the value that the problem's file set, in the parameter's shape."""
    is_sparse = bool(parameter.attributes.get("sparsity"))
    is_set = parameter.value_sparse is not None if is_sparse else parameter.value is not None
    return full_value(parameter).reshape(parameter.shape) if is_set else None


def _ignore(step: str) -> None:
    """Announce nothing."""
    del step
