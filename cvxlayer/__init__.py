# SPDX-License-Identifier: Apache-2.0
"""CVXPY problems as batched, differentiable layers for PyTorch, JAX and NumPy."""

from cvxlayer import errors
from cvxlayer.compiler import CompiledProgram
from cvxlayer.compiler import compile_problem as compile  # noqa: A004 (as `re.compile`)
from cvxlayer.errors import Status
from cvxlayer.layer import Layer
from cvxlayer.options import LPGD, Smoothed
from cvxlayer.program.solution import Solution, SolvedBy
from cvxlayer.solve.backend import AbstractBackend

__version__ = "0.1.0"

__all__ = [
    "Layer",
    "LPGD",
    "Smoothed",
    "compile",
    "CompiledProgram",
    "Solution",
    "SolvedBy",
    "Status",
    "AbstractBackend",
    "errors",
    "__version__",
]
