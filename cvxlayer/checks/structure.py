# SPDX-License-Identifier: Apache-2.0
"""What a problem compiles to: sizes, cones, and which data depend on which parameters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np

from cvxlayer.canonicalize.frontend import read_problem
from cvxlayer.canonicalize.prepare import prepare
from cvxlayer.checks.report import ParameterReport, ProgramReport, Size, Verdict
from cvxlayer.compiler import CompiledProgram, compile_problem
from cvxlayer.errors import NotDppError, UnsupportedProblemError
from cvxlayer.program.parameters import ParameterDomain
from cvxlayer.solve.backend import AbstractBackend

_BLOCKS = ("P", "q", "A", "b")
# Field of a `ParameterDomain` → what users write to declare it.
_DECLARATIONS = {
    "is_nonneg": "nonneg",
    "is_nonpos": "nonpos",
    "is_pos": "pos",
    "is_neg": "neg",
    "is_psd": "PSD",
    "is_nsd": "NSD",
    "is_diag": "diag",
    "is_imag": "imag",
    "is_integer": "integer",
    "is_boolean": "boolean",
}


def compile_for_check(
    problem: cp.Problem, backend: AbstractBackend, *, gp: bool = False
) -> tuple[Verdict, CompiledProgram | None, float]:
    """Compile a problem with all its parameters as inputs and all its variables as outputs.

    Args:
        problem: the problem.
        backend: the solver, which has to know the cones of the program.
        gp: whether it is a geometric program.

    Returns:
        Whether that is possible, the program (None if not) and the seconds it took.
    """
    is_dgp = bool(problem.is_dgp()) if gp else None
    start = time.perf_counter()
    message: str | None = None
    program: CompiledProgram | None = None
    try:
        compiled = compile_problem(problem, problem.parameters(), problem.variables(), gp=gp)
        backend.setup(compiled.program.structure)
        program = compiled
    except (NotDppError, UnsupportedProblemError) as error:
        message = str(error)
    seconds = time.perf_counter() - start
    # CVXPY's own verdict is narrower than the compiler's, which rewrites first.
    is_supported = program is not None
    is_dcp = is_supported or bool(is_dgp if gp else problem.is_dcp())
    is_dpp = is_supported or all(
        bool(part.is_dgp(dpp=True) if gp else part.is_dcp(dpp=True))
        for part in (problem.objective, *problem.constraints)
    )
    return Verdict(is_dcp, is_dpp, is_dgp, is_supported, message), program, seconds


def describe_program(
    problem: cp.Problem, program: CompiledProgram, compile_seconds: float, *, gp: bool = False
) -> ProgramReport:
    """Return sizes, cones and dependence of a compiled problem."""
    cone_program = program.program
    structure, names = cone_program.structure, [spec.name for spec in program.parameters]
    parameters = problem.parameters()
    form = read_problem(prepare(problem, parameters, gp=gp)).form
    on_diagonal_or_above = form.P.row <= form.P.column
    pairs = np.stack([form.P.row, form.P.column])[:, on_diagonal_or_above]
    num_P = np.unique(pairs, axis=1).shape[1]
    return ProgramReport(
        Size(structure.num_variables, structure.num_rows, structure.num_P, structure.num_A),
        Size(form.A.shape[1], form.A.shape[0], num_P, form.A.num_entries),
        structure.cones.zero,
        structure.cones.nonnegative,
        structure.cones.second_order,
        structure.cones.semidefinite,
        structure.cones.exponential,
        len(structure.cones.power),
        {
            letter: tuple(names[index] for index in _parameters_of(program, block.parameters))
            for letter, block in zip(_BLOCKS, cone_program.blocks, strict=True)
        },
        {spec.name: spec.shape for spec in program.outputs},
        compile_seconds,
    )


def describe_parameters(
    program: CompiledProgram, sources: Sequence[str]
) -> tuple[ParameterReport, ...]:
    """Return each input of a program with the data it enters."""
    cone_program = program.program
    in_constant = _parameters_in_constant(program)
    reports: list[ParameterReport] = []
    for index, (spec, source) in enumerate(zip(program.parameters, sources, strict=True)):
        blocks = zip(_BLOCKS, cone_program.blocks, strict=True)
        enters = [
            letter for letter, block in blocks if index in _parameters_of(program, block.parameters)
        ]
        if in_constant[index]:
            enters.append("constant")
        domain = describe_domain(spec.domain)
        reports.append(ParameterReport(spec.name, spec.shape, domain, tuple(enters), source))
    return tuple(reports)


def _parameters_of(program: CompiledProgram, parts: Iterable[int]) -> list[int]:
    """Return the parameters that some parts of θ are made of."""
    return sorted({program.coordinates.parts[part].parameter for part in parts})


def _parameters_in_constant(program: CompiledProgram) -> list[bool]:
    """Tell which parameters change the part of the objective without variables."""
    entries: Any = program.program.objective_constant.matrix.tocoo()
    ends = np.cumsum(program.program.parameter_sizes, dtype=np.intp)
    parts = np.unique(np.searchsorted(ends, entries.row[entries.row < ends[-1:].sum()], "right"))
    touched = _parameters_of(program, parts.tolist())
    return [index in touched for index in range(len(program.parameters))]


def describe_domain(domain: ParameterDomain) -> str:
    """Return what was declared about a parameter as words, empty for nothing."""
    words = [word for field, word in _DECLARATIONS.items() if getattr(domain, field)]
    if not (domain.is_psd or domain.is_nsd):
        words += ["symmetric"] if domain.is_symmetric else []
        words += ["hermitian"] if domain.is_hermitian else []
    if domain.lower is not None or domain.upper is not None:
        words.append("bounds")
    if domain.sparsity is not None:
        words.append("sparsity")
    return ", ".join(words)
