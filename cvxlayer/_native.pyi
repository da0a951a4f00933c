"""
Native engine of cvxlayer: batched cone programs and their derivatives.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


class Engine:
    """All work that depends on the structure of a batch alone. Thread-safe."""

    def __init__(self, n: int, num_zero: int, num_nonnegative: int, cones: Sequence[tuple[int, int, float]], P_start: Sequence[int], P_row: Sequence[int], A_start: Sequence[int], A_row: Sequence[int], largest_block: int, is_convex: bool) -> None: ...

    def solve(self, batch: int, P: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], q: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], A: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], b: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], index: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, eps_abs: float, eps_rel: float, eps_infeasible: float, max_iterations: int, careful: bool, polish: bool, start_x: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)] | None, start_y: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)] | None, is_usable: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu')] | None, threads: int, width: int, x: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], y: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], s: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], status: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu')], iterations: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu')], primal_residual: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], dual_residual: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], gap: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], is_active: Annotated[NDArray[numpy.int8], dict(shape=(None, None), device='cpu')], scale: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], cost: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')]) -> None:
        """Solve a batch, or its rows `index`, into the given arrays."""

    def pull_back(self, batch: int, P: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], q: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], A: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], b: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], x: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], y: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], s: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], status: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu')], is_active: Annotated[NDArray[numpy.int8], dict(shape=(None, None), device='cpu')], scale: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')] | None, cost: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')] | None, x_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)] | None, y_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)] | None, s_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)] | None, P_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')] | None, q_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')] | None, A_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')] | None, b_bar: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')] | None, residual: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], mu: float, threads: int, width: int) -> None:
        """
        Pull cotangents of (x, y, s) back to (P, q, A, b), into the given arrays.
        """

    def refine(self, batch: int, P: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], q: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], A: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], b: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], x: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], y: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], s: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], status: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu')], is_active: Annotated[NDArray[numpy.int8], dict(shape=(None, None), device='cpu')], scale: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')] | None, cost: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')] | None, point_x: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], point_y: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], point_v: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], balance: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], point_active: Annotated[NDArray[numpy.int8], dict(shape=(None, None), device='cpu')], has_solution: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu')], residual: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], mu: float, threads: int, width: int) -> None:
        """Write the points where solutions are differentiated."""

    def examine(self, batch: int, P: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], q: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], A: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], b: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], x: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], y: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], s: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], status: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu')], is_active: Annotated[NDArray[numpy.int8], dict(shape=(None, None), device='cpu')], scale: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')] | None, cost: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')] | None, point_x: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], point_y: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], point_v: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], balance: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], point_active: Annotated[NDArray[numpy.int8], dict(shape=(None, None), device='cpu')], has_solution: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu')], residual: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], position: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], factors: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], cost_factor: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], null_x: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], null_y: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu')], largest: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], smallest: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], threads: int, width: int) -> None:
        """Write the same points, and how regular solutions are there."""

    def apply(self, batch: int, P: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], q: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], A: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], b: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], v: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], balance: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], is_active: Annotated[NDArray[numpy.int8], dict(shape=(None, None), device='cpu')], has_solution: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu')], gx: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu', writable=False)] | None, gy: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu', writable=False)] | None, gs: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu', writable=False)] | None, lam: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu')], nu: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu')], residual: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], mu: float, threads: int, width: int) -> None:
        """Solve the linearized optimality conditions at such points."""

    def curvature(self, v: Annotated[NDArray[numpy.float64], dict(shape=(None, None), device='cpu', writable=False)], has_solution: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu')], first: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], second: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], result: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu')], mu: float, threads: int, width: int) -> None:
        """
        Write the second derivatives of the projection along pairs of directions.
        """

    def workspace_bytes(self, width: int) -> int:
        """Memory of one thread's workspace."""

    @property
    def factor_entries(self) -> int: ...

    @property
    def factor_multiply_adds(self) -> float: ...

    @property
    def has_range_space(self) -> bool:
        """
        Whether an instance whose P allows it is solved with P and A eliminated once.
        """

class SparseMap:
    """A constant sparse matrix, to multiply."""

    def __init__(self, num_columns: int, start: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], column: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], weight: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None: ...

class LayerRun:
    """A plain call of a layer that was solved."""

    @property
    def is_solved(self) -> bool:
        """Whether every row is."""

    @property
    def seconds(self) -> float:
        """Wall time of the solve."""

    def results(self) -> tuple:
        """
        x, y, s, status, iterations, three residuals, the active rows, (d, e) and the cost factors, as arrays that keep this alive.
        """

    def pull_back(self, outputs_bar: Sequence[Annotated[NDArray[numpy.float64], dict(order='C', device='cpu', writable=False)] | None], values_bar: Sequence[Annotated[NDArray[numpy.float64], dict(order='C', device='cpu')] | None], residual: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], bound: float) -> bool:
        """
        Write the cotangents of the values from those of the outputs, and the residual of each row's linear system; return whether none is above the bound.
        """

class LayerProgram:
    """A whole compiled program, for code that runs without Python."""

    def __init__(self, engine: Engine, part_sizes: Sequence[int], blocks: Sequence[tuple[Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], Sequence[tuple[int, SparseMap, SparseMap, SparseMap]]]], has_bounds: bool, constant_row: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], constant_column: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], constant_weight: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], outputs: Sequence[tuple[int, SparseMap, SparseMap, SparseMap, SparseMap, tuple[Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], Sequence[tuple[int, SparseMap, SparseMap, SparseMap]]], bool]]) -> None: ...

    def run(self, values: Sequence[Annotated[NDArray[numpy.float64], dict(order='C', device='cpu', writable=False)]], batch: int, eps_abs: float, eps_rel: float, max_iterations: int, polish: bool, threads: int, width: int, outputs: Sequence[Annotated[NDArray[numpy.float64], dict(order='C', device='cpu')]]) -> LayerRun:
        """
        Solve a batch and write its outputs, unless a row is not solved; None if a value is not finite.
        """

def can_exchange(exchange: object) -> bool:
    """Whether tensors can be exchanged by this capsule."""

class TensorRun(LayerRun):
    """A plain call with tensors."""

    @property
    def batch_shape(self) -> tuple: ...

    def pull_back_tensors(self, cotangents: object, needs: object, bound: float) -> object:
        """
        Return the gradients of the values, and the residual of each row's linear system if one is above the bound; None if a cotangent is not a plain tensor.
        """

class TensorProgram:
    """A compiled program as a function of one framework's tensors."""

    def __init__(self, program: object, exchange: object, types: Sequence[object], is_lazy: str, input_shapes: Sequence[Sequence[int]], domains: Sequence[int], output_shapes: Sequence[Sequence[int]]) -> None:
        """
        The types are those to expect, `is_lazy` their method that tells whether what lies in memory is still to be changed.
        """

    def run(self, values: object, eps_abs: float, eps_rel: float, max_iterations: int, polish: bool, threads: int, width: int) -> object:
        """
        Solve a batch: the run and its outputs, of which there are none if a row is not solved; None if the values are not finite and plain tensors, or may not be what their parameters were declared to be.
        """

def register_program(number: int, program: LayerProgram) -> None:
    """
    Let compiled code find a program, which must never be dropped, by its number.
    """

def set_finisher(function: object) -> None:
    """Set what finishes batches that the core alone cannot."""

def set_warner(function: object) -> None:
    """Set what is told of derivatives whose linear systems were not solved."""

def xla_handlers() -> dict:
    """The handlers of XLA by name; none if the core was built without JAX."""

def apply_maps(maps: Sequence[SparseMap], points: Sequence[Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)]], base: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, out: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], threads: int) -> None:
    """Write base plus the sum of each map times its points, row by row."""

def sum_rows(rows: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], out: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], threads: int) -> None:
    """Write the sum of the rows, added in their order."""

def is_finite(rows: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], threads: int) -> bool:
    """Whether no entry is NaN or infinite."""

def is_in_domains(rows: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], domains: int, epsilon: float, threads: int) -> bool:
    """
    Whether every row, a value of finite numbers, is in the domains of these bits up to rounding; False, too, where eigenvalues would have to tell.
    """

def project_dual(kind: int, parameter: float, points: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], nearest: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], derivative: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu')], root: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu')], width: int, starts: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None = None) -> None:
    """
    Write the projections of points onto the dual of one cone, the derivatives there and their square roots; with pairs (s, y) to start from, where cones can use them.
    """

def widths() -> list[int]:
    """Numbers of lanes this processor's kernels offer."""

def cone_kinds() -> list[int]:
    """The kinds of curved cones it can solve."""

def instruction_set() -> str:
    """The instruction set in use."""
