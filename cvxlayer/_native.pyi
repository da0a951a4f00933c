"""
Native engine of cvxlayer: batched cone programs and their derivatives.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


class Engine:
    """All work that depends on the structure of a batch alone. Thread-safe."""

    def __init__(self, n: int, num_zero: int, num_nonnegative: int, cones: Sequence[tuple[int, int, float]], P_start: Sequence[int], P_row: Sequence[int], A_start: Sequence[int], A_row: Sequence[int]) -> None: ...

    def solve(self, batch: int, P: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], q: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], A: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], b: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], index: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, eps_abs: float, eps_rel: float, eps_infeasible: float, max_iterations: int, careful: bool, polish: bool, threads: int, width: int, x: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], y: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], s: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], status: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu')], iterations: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu')], primal_residual: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], dual_residual: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], gap: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], is_active: Annotated[NDArray[numpy.int8], dict(shape=(None, None), device='cpu')]) -> None:
        """Solve a batch, or its rows `index`, into the given arrays."""

    def pull_back(self, batch: int, P: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], q: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], A: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], b: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], x: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], y: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], s: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], status: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu')], is_active: Annotated[NDArray[numpy.int8], dict(shape=(None, None), device='cpu')], x_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)] | None, y_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)] | None, s_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)] | None, P_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')] | None, q_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')] | None, A_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')] | None, b_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')] | None, residual: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], threads: int, width: int) -> None:
        """
        Pull cotangents of (x, y, s) back to (P, q, A, b), into the given arrays.
        """

    def workspace_bytes(self, width: int) -> int:
        """Memory of one thread's workspace."""

    @property
    def factor_entries(self) -> int: ...

    @property
    def factor_multiply_adds(self) -> float: ...

def widths() -> list[int]:
    """Numbers of lanes this processor's kernels offer."""

def cone_kinds() -> list[int]:
    """The kinds of curved cones it can solve."""

def instruction_set() -> str:
    """The instruction set in use."""
