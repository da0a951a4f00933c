# SPDX-License-Identifier: Apache-2.0
"""What CVXPY gets for each constraint of the user's, and the way back to its duals.

Most constraints stand for themselves. Complex ones become real, N-dimensional power cones a
tree of three-dimensional ones; CVXPY would do both, but tells its duals differently from
version to version, some not at all. A dual is ȳ with ⟨ȳ, s⟩ = yᵀs for the slack s of the
user's constraint; of complex numbers ⟨ȳ, s⟩ is the real part of Σ conj(ȳᵢ) sᵢ.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxlayer.canonicalize.cone_solver import CONES
from cvxlayer.canonicalize.power_tree import power_cone, split_power_cones
from cvxlayer.canonicalize.real import real_block
from cvxlayer.errors import UnsupportedProblemError

_LINEAR = ("Equality", "Inequality", "Zero", "NonNeg", "NonPos")
_APPROXIMATED = ("PowCone3DApprox", "RelEntrConeQuad", "OpRelEntrConeQuad")


@dataclasses.dataclass(frozen=True, eq=False)
class StandIn:
    """The constraints in place of one of the user's.

    Attributes:
        constraints: what CVXPY gets; their rows of y, one after the other, are `rows`.
        duals: for each dual variable of the user's, the matrix from `rows` to its coordinates
            (C order); None if CVXPY replaces the constraint by an approximation.
    """

    constraints: tuple[Any, ...]
    duals: tuple[sp.csr_array, ...] | None

    def place(self, rows: list[np.ndarray | None], m: int) -> tuple[sp.csr_array, ...] | None:
        """Return the matrices from y to the duals.

        Args:
            rows: of each constraint, the rows it has in the cone program; None for one that
                CVXPY dropped, which is of size zero.
            m: length of y.
        """
        if self.duals is None:
            return None
        none = np.empty(0, dtype=np.int64)
        at = np.concatenate([none, *(own for own in rows if own is not None)])
        chosen = sp.csr_array((np.ones(len(at)), (np.arange(len(at)), at)), shape=(len(at), m))
        return tuple(sp.csr_array(dual @ chosen) for dual in self.duals)


def stand_in_for(constraint: Any) -> StandIn:
    """Return what stands for a constraint without complex leaves."""
    match constraint:
        case cp.SOC():
            return _second_order(constraint)
        case cp.PSD():
            return _semidefinite(constraint)
        case cp.ExpCone():
            numbers = [_cone_entries(a, place) for place, a in enumerate(constraint.args)]
            return StandIn((constraint,), _pick(numbers, 3 * constraint.args[0].size))
        case cp.PowCone3D() if type(constraint) is cp.PowCone3D:
            return _power(constraint)
        case cp.PowConeND():
            return _long_power(constraint)
        case _ if type(constraint).__name__ in _LINEAR:
            return _linear(constraint)
        case _ if type(constraint).__name__ in _APPROXIMATED:
            return StandIn((constraint,), None)
        case _:
            raise UnsupportedProblemError(
                f"The problem has a constraint `{constraint}` of the kind "
                f"{type(constraint).__name__}, for which there is no cone. Use one of "
                f"{', '.join(cone.__name__ for cone in CONES)}, or a comparison."
            )


def num_rows(constraint: Any) -> int:
    """Return how many rows a constraint has in a cone program."""
    if isinstance(constraint, cp.PSD):
        order = constraint.args[0].shape[-1]
        return constraint.size // max(order * order, 1) * (order * (order + 1) // 2)
    return int(constraint.size)


def _linear(constraint: Any) -> StandIn:
    """Return the stand-in of an equality or inequality; the dual is y itself, as CVXPY's is."""
    numbers = _numbers(constraint.shape)
    size = numbers.size
    if not constraint.is_complex():
        return StandIn((constraint,), _pick([numbers], size))
    expression = constraint.expr
    halves = (cp.Zero(cp.real(expression)), cp.Zero(cp.imag(expression)))
    real, imaginary = _pick([numbers, np.asarray(numbers + size)], 2 * size)
    return StandIn(halves, (_interleave(real, imaginary),))


def _second_order(constraint: Any) -> StandIn:
    """Return the stand-in of ‖X‖ ≤ t: complex entries are two real ones each."""
    t, X = constraint.args
    axis = constraint.axis
    num_cones = t.size
    if not X.is_complex():
        length = X.size // max(num_cones, 1)
        starts = np.arange(num_cones) * (length + 1)
        within = 1 + np.arange(length)
        tail = starts[:, None] + within if axis == 1 else (starts[:, None] + within).T
        numbers = [starts.reshape(t.shape), tail.reshape(X.shape)]
        return StandIn((constraint,), _pick(numbers, num_cones * (length + 1)))
    # A vector is one cone, whatever the axis; a matrix has a cone for each column or row.
    stack = cp.hstack if X.ndim < 2 or axis == 1 else cp.vstack
    real = cp.SOC(t, stack([cp.real(X), cp.imag(X)]), axis=axis)
    duals = _second_order(real).duals
    assert duals is not None
    heads, both = duals
    places = np.arange(2 * X.size).reshape(real.args[1].shape)
    halves = np.split(places, 2, axis=1 if X.ndim == 2 and axis == 1 else 0)
    picked = [sp.csr_array(both[half.ravel()]) for half in halves]
    return StandIn((real,), (heads, _interleave(*picked)))


def _semidefinite(constraint: Any) -> StandIn:
    """Return the stand-in of X ⪰ 0 (about the symmetric part); the dual is symmetric.

    For a Hermitian X it is [[a, −b], [b, a]] ⪰ 0; a dual D of that is, in the directions the
    slack can take, (D₁₁ + D₂₂) + i(D₂₁ − D₁₂).
    """
    (matrix,) = constraint.args
    if not matrix.is_complex():
        return StandIn((constraint,), (_unpack_svec(matrix.shape),))
    real = cp.PSD(real_block(matrix))
    order = matrix.shape[0]
    unpack = _unpack_svec(real.args[0].shape)
    blocks = np.arange(4 * order * order).reshape(2, order, 2, order).transpose(0, 2, 1, 3)
    first, upper, lower, last = (unpack[b.ravel()] for b in blocks.reshape(4, -1))
    return StandIn((real,), (_interleave(first + last, lower - upper),))


def _unpack_svec(shape: tuple[int, ...]) -> sp.csr_array:
    """Return the matrix from svec to the full matrices of a stack (C order)."""
    order, stack = shape[-1], shape[:-2]
    column, row = np.triu_indices(order)
    number = np.empty((order, order), dtype=np.int64)
    number[row, column] = number[column, row] = np.arange(len(row))
    # CVXPY flattens the stack in Fortran order, as everything.
    starts = len(row) * _numbers(stack)
    places = starts[..., None, None] + number
    weight = np.where(np.eye(order, dtype=bool), 1.0, np.sqrt(0.5))
    matrix = _matrix(places, len(row) * starts.size)
    return sp.csr_array(sp.diags_array(np.broadcast_to(weight, shape).ravel()) @ matrix)


def _power(constraint: Any) -> StandIn:
    """Return the stand-in of a three-dimensional power cone: its arguments as vectors."""
    vectors = [cp.vec(argument, order="F") for argument in constraint.args]
    alpha = np.broadcast_to(constraint.alpha.value, constraint.args[0].shape or (1,))
    real = power_cone(vectors, alpha.ravel(order="F"))
    numbers = [_cone_entries(a, place) for place, a in enumerate(constraint.args)]
    return StandIn((real,), _pick(numbers, 3 * constraint.args[0].size))


def _long_power(constraint: Any) -> StandIn:
    """Return the stand-in of N-dimensional power cones: a tree of three-dimensional ones."""
    W, z = constraint.args
    exponents = np.asarray(constraint.alpha.value, dtype=np.float64)
    tree = split_power_cones(W, z, exponents, constraint.axis)
    num = sum(num_rows(cone) for cone in tree.constraints)
    return StandIn(tree.constraints, _pick([tree.factor_rows, tree.bound_rows], num))


def _numbers(shape: tuple[int, ...]) -> np.ndarray:
    """Return the place in Fortran order of each entry of an array."""
    return np.arange(int(np.prod(shape, dtype=int))).reshape(shape, order="F")


def _cone_entries(argument: Any, place: int) -> np.ndarray:
    """Return the rows of the entries of one argument of three-dimensional cones."""
    return np.asarray(3 * _numbers(argument.shape) + place)


def _pick(numbers: list[np.ndarray], num_rows: int) -> tuple[sp.csr_array, ...]:
    """Return the matrices that read the given rows."""
    return tuple(_matrix(places, num_rows) for places in numbers)


def _matrix(places: np.ndarray, num_rows: int) -> sp.csr_array:
    flat = places.ravel()
    return sp.csr_array(
        (np.ones(len(flat)), (np.arange(len(flat)), flat)), shape=(len(flat), num_rows)
    )


def _interleave(real: Any, imaginary: Any) -> sp.csr_array:
    """Return the rows of two matrices in turn: coordinates of complex numbers."""
    size = real.shape[0]
    order = np.arange(2 * size).reshape(2, size).T.ravel()
    return sp.csr_array(sp.csr_array(sp.vstack([real, imaginary]))[order])
