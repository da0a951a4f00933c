# SPDX-License-Identifier: Apache-2.0
"""Complex leaves as real ones: z = a + ib, with a and b real leaves of CVXPY.

Parameters stay parameters, so the problem stays DPP, and every CVXPY version will do: it only
has to split constants. A complex entry has two coordinates, its real and its imaginary part.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.atoms.affine.wraps import hermitian_wrap, psd_wrap
from cvxpy.atoms.quad_form import QuadForm

from cvxlayer.canonicalize.trees import Rewrite, TreeRewriter


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A real leaf that stands for some coordinates of a leaf of the user's.

    Attributes:
        leaf: the variable or parameter.
        matrix: from its entries (C order) to the coordinates; each is in one part at most.
    """

    leaf: Any
    matrix: Any


@dataclasses.dataclass(frozen=True, eq=False)
class RealProblem:
    """A problem without complex leaves.

    Attributes:
        problem: with the user's constraints first.
        parts: for each leaf that was complex, by id, its parts.
    """

    problem: cp.Problem
    parts: dict[int, tuple[Part, ...]]

    def parts_of(self, leaf: Any) -> tuple[Part, ...]:
        """Return what stands for a leaf of the user's: itself if it is real."""
        if leaf.id in self.parts:
            return self.parts[leaf.id]
        return (Part(leaf, sp.csr_array(sp.eye_array(leaf.size))),)


def is_hermitian_leaf(leaf: Any) -> bool:
    """Whether a complex leaf is a Hermitian matrix."""
    return leaf.is_complex() and any(leaf.attributes[n] for n in ("hermitian", "PSD", "NSD"))


def split_complex(problem: cp.Problem) -> RealProblem:
    """Replace complex leaves, and quadratic forms of complex matrices, by real ones."""
    parts: dict[int, tuple[Part, ...]] = {}
    definite: list[Any] = []

    def replace(node: Any, rewrite: Rewrite) -> Any:
        if isinstance(node, QuadForm) and any(a.is_complex() for a in node.args):
            return _real_quadratic_form(node, rewrite)
        if not isinstance(node, cp.Variable | cp.Parameter) or not node.is_complex():
            return None
        expression, parts[node.id] = _split(node)
        if isinstance(node, cp.Variable) and (node.attributes["PSD"] or node.attributes["NSD"]):
            definite.append(expression >> 0 if node.attributes["PSD"] else expression << 0)
        return expression

    rewritten = TreeRewriter(replace).problem(problem)
    if definite:
        rewritten = cp.Problem(rewritten.objective, [*rewritten.constraints, *definite])
    return RealProblem(rewritten, parts)


def _split(leaf: Any) -> tuple[Any, tuple[Part, ...]]:
    """Return the expression for a complex leaf and its parts."""
    make = type(leaf)
    places = np.arange(leaf.size)
    if leaf.attributes["imag"]:
        imaginary = make(leaf.shape, name=f"Im {leaf.name()}")
        return 1j * imaginary, (Part(imaginary, _selection(2 * places + 1, leaf.size)),)
    if is_hermitian_leaf(leaf):
        return _split_hermitian(leaf)
    shaped = {n: leaf.attributes[n] for n in ("symmetric", "diag", "sparsity")}
    shaped = {name: value for name, value in shaped.items() if value}
    real = make(leaf.shape, name=f"Re {leaf.name()}", **shaped)
    imaginary = make(leaf.shape, name=f"Im {leaf.name()}", **shaped)
    return real + 1j * imaginary, (
        Part(real, _selection(2 * places, leaf.size)),
        Part(imaginary, _selection(2 * places + 1, leaf.size)),
    )


def _split_hermitian(leaf: Any) -> tuple[Any, tuple[Part, ...]]:
    """Return A + iB with A symmetric and B skew: B = C − Cᵀ with C above the diagonal."""
    order, make = leaf.shape[0], type(leaf)
    places = np.arange(leaf.size)
    real = make(leaf.shape, name=f"Re {leaf.name()}", symmetric=True)
    real_part = Part(real, _selection(2 * places, leaf.size))
    row, column = np.triu_indices(order, 1)
    if len(row) == 0:
        return hermitian_wrap(real + 0j), (real_part,)
    imaginary = make(len(row), name=f"Im {leaf.name()}")
    above, below = row * order + column, column * order + row
    skew = sp.csr_array(
        (
            np.repeat([1.0, -1.0], len(row)),
            (np.concatenate([above, below]), np.tile(np.arange(len(row)), 2)),
        ),
        shape=(leaf.size, len(row)),
    )
    matrix = cp.reshape(skew @ imaginary, leaf.shape, order="C")
    imaginary_part = Part(imaginary, sp.csr_array(_selection(2 * places + 1, leaf.size) @ skew))
    return hermitian_wrap(real + 1j * matrix), (real_part, imaginary_part)


def _selection(places: np.ndarray, size: int) -> sp.csr_array:
    """Return the matrix that puts entries at their coordinates."""
    ones = np.ones(len(places))
    return sp.csr_array((ones, (places, np.arange(len(places)))), shape=(2 * size, len(places)))


def _real_quadratic_form(form: Any, rewrite: Rewrite) -> Any:
    """Return zᴴMz of a definite Hermitian M as [a; b]ᵀ [[Mᵣ, −Mᵢ], [Mᵢ, Mᵣ]] [a; b]."""
    is_convex, is_concave = form.args[1].is_psd(), form.args[1].is_nsd()
    if not (is_convex or is_concave):
        return None
    point, matrix = (rewrite(argument) for argument in form.args)
    stacked = cp.hstack([cp.vec(cp.real(point), order="F"), cp.vec(cp.imag(point), order="F")])
    if is_convex:
        return QuadForm(stacked, psd_wrap(real_block(matrix)))
    return -QuadForm(stacked, psd_wrap(real_block(-matrix)))


def real_block(matrix: Any) -> Any:
    """Return the real symmetric matrix that is semidefinite with a Hermitian one."""
    real, imaginary = cp.real(matrix), cp.imag(matrix)
    return cp.bmat([[real, -imaginary], [imaginary, real]])
