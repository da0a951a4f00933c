# SPDX-License-Identifier: Apache-2.0
"""Reads CVXPY's canonical tensors: a DPP problem comes in, a `CanonicalForm` goes out.

CVXPY writes s = Ã x + b̃ with Ã and b̃ affine in its own parameter vector (Fortran order,
reduced for parameters with attributes). We take A = −Ã, b = b̃, a symmetric P, and θ in
call order and C order; parameters that are not inputs become constants.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxlayer.canonicalize.affine_matrix import AffineMatrix
from cvxlayer.canonicalize.answer import selection
from cvxlayer.canonicalize.cone_solver import CONES, ConeFormSolver
from cvxlayer.canonicalize.constraint_names import Origins, find_origins
from cvxlayer.canonicalize.form import CanonicalForm, border
from cvxlayer.canonicalize.leaves import (
    canonical_from_full,
    full_from_canonical,
    full_value,
)
from cvxlayer.canonicalize.prepare import MarkedForm, PreparedProblem
from cvxlayer.canonicalize.quadratic import FormPlace, absorb
from cvxlayer.canonicalize.real import Part
from cvxlayer.canonicalize.stand_ins import num_rows
from cvxlayer.cones.product import ConeProduct
from cvxlayer.errors import UnsupportedProblemError


@dataclasses.dataclass(frozen=True, eq=False)
class CanonicalizedProblem:
    """CVXPY's form of a problem, and where the user's variables and duals are in it.

    Attributes:
        form: the cone program.
        sign: −1 for a problem that maximizes.
        variable_maps: for each variable of the problem, by id: matrix from x to the
            coordinates of its full value, or of its logarithm, in C order.
        dual_maps: for each constraint, in order: matrices from y to its dual variables; None
            where these are not known.
        origins: what the rows of the form come from.
    """

    form: CanonicalForm
    sign: float
    variable_maps: dict[int, sp.csr_array]
    dual_maps: tuple[tuple[sp.csr_array, ...] | None, ...]
    origins: Origins


def read_problem(prepared: PreparedProblem) -> CanonicalizedProblem:
    """Read the cone program of a prepared problem.

    Raises:
        UnsupportedProblemError: it needs a cone that we do not know, or CVXPY gave a form that
            keeps part of the constraints elsewhere.
        ParameterValueError: a parameter that is not an input has no value.
    """
    # A fresh Problem, so that the cache of canonical data of another one is left alone.
    fresh = cp.Problem(prepared.rewritten.objective, prepared.rewritten.constraints)
    with warnings.catch_warnings():
        # CVXPY warns its users about what it does itself to parameters with `sparsity=`.
        warnings.filterwarnings("ignore", message="Reading from a sparse CVXPY")
        arguments, chain, inverse_data = fresh.get_problem_data(ConeFormSolver())
    program = arguments["param_prob"]
    _check_nothing_is_elsewhere(program)
    form = _read_form(program, _parameter_basis(fresh, program, chain, prepared.inputs))
    variable_maps = {
        place: _variable_map(parts, program, inverse_data)
        for place, parts in prepared.outputs.items()
    }
    rows = _rows_of_constraints(program)
    dual_maps: list[tuple[sp.csr_array, ...] | None] = []
    user_constraints: set[int] = set()
    ids_of: list[list[int]] = []
    for stand_in in prepared.stand_ins:
        ids = _trace_constraints([c.id for c in stand_in.constraints], inverse_data)
        ids_of.append(ids)
        user_constraints.update(ids if stand_in.duals is not None else ())
        dual_maps.append(stand_in.place([rows.get(i) for i in ids], form.A.shape[0]))
    form = _mark_answers(form, program, variable_maps, user_constraints)
    origins = find_origins(form, prepared.original, _groups(program, ids_of), variable_maps)
    form = absorb(form, _places_of_forms(prepared.marked_forms, program, rows, inverse_data))
    sign = -1.0 if isinstance(prepared.original.objective, cp.Maximize) else 1.0
    return CanonicalizedProblem(form, sign, variable_maps, tuple(dual_maps), origins)


def _places_of_forms(
    marked: Sequence[MarkedForm],
    program: Any,
    rows: dict[int, np.ndarray],
    inverse_data: Sequence[Any],
) -> list[FormPlace]:
    """Return where the parts of each marked quadratic form are in the cone program."""
    ids = _trace_constraints([form.matrix.id for form in marked], inverse_data)
    return [
        FormPlace(
            int(program.var_id_to_col[form.marker.id]),
            int(program.var_id_to_col[form.point.id]) + np.arange(form.point.size),
            rows[place],
        )
        for form, place in zip(marked, ids, strict=True)
    ]


def _check_nothing_is_elsewhere(program: Any) -> None:
    """Refuse direct cones and bounds outside A: whoever ignores them drops constraints."""
    elsewhere = [
        getattr(program, name, None) is not None
        for name in ("lower_bounds", "upper_bounds", "lb_tensor", "ub_tensor")
    ]
    if any(elsewhere) or getattr(program, "dir_cones", None):
        raise UnsupportedProblemError(
            f"CVXPY {metadata.version('cvxpy')} keeps bounds or cones of this problem outside its "
            "constraint matrix. cvxlayer reads constraints from the matrix alone: write the "
            "bounds of variables as constraints, or use a CVXPY version that the documentation "
            "lists."
        )


def _read_cones(program: Any) -> ConeProduct:
    """Return the cones of the rows, which CVXPY orders as `ConeProduct` does."""
    for constraint in program.constraints:
        if type(constraint) not in CONES:
            raise UnsupportedProblemError(
                f"The problem needs a cone of the kind {type(constraint).__name__}, which this "
                f"version does not know; it knows {', '.join(cone.__name__ for cone in CONES)}. "
                "Write the atom or constraint behind it with these."
            )
    dims = program.cone_dims
    return ConeProduct(
        int(dims.zero),
        int(dims.nonneg),
        tuple(int(dimension) for dimension in dims.soc),
        tuple(int(order) for order in dims.psd),
        int(dims.exp),
        tuple(float(alpha) for alpha in dims.p3d),
    )


def _trace_constraints(ids: list[int], inverse_data: Sequence[Any]) -> list[int]:
    """Return the ids that constraints of the problem have in the cone program."""
    for inverse in inverse_data[:-1]:
        if isinstance(inverse, tuple) and len(inverse) == 3:  # attributes → constraints
            step = inverse[2]
        elif isinstance(inverse, dict):
            step = inverse.get("cons_id_map", {})
        else:
            step = getattr(inverse, "cons_id_map", {})
        ids = [step.get(place, place) for place in ids]
    return ids


def _parameter_basis(
    problem: cp.Problem,
    program: Any,
    chain: Any,
    inputs: Sequence[tuple[cp.Parameter, Any]],
) -> sp.csr_array:
    """Return S with [CVXPY's parameters; 1] = S [θ; 1]."""
    from_theta = {parameter.id: matrix for parameter, matrix in inputs}
    num_theta = inputs[0][1].shape[1] if inputs else 0
    new_ids: dict[int, list[int]] = {}
    for reduction in chain.reductions:
        new_ids.update(getattr(reduction, "param_id_map", {}) or {})
    size_of = {parameter.id: parameter.size for parameter in program.parameters}
    total = sum(size_of.values())
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for parameter in problem.parameters():
        (place,) = new_ids.get(parameter.id, [parameter.id])
        if place not in size_of:
            continue
        pick = canonical_from_full(parameter, size_of[place])
        if parameter.id in from_theta:
            block = sp.coo_array(pick @ from_theta[parameter.id])
            row, column, value = block.row, block.col, block.data
        else:
            value = pick @ full_value(parameter)
            row, column = np.arange(len(value)), np.full(len(value), num_theta)
        blocks.append((row + program.param_id_to_col[place], column, value))
    blocks.append((np.array([total]), np.array([num_theta]), np.ones(1)))
    row, column, value = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
    return sp.csr_array((value, (row, column)), shape=(total + 1, num_theta + 1))


def _read_form(program: Any, basis: Any) -> CanonicalForm:
    """Read P, q, A, b and the cones from CVXPY's tensors."""
    cones = _read_cones(program)
    n, m = int(program.x.size), cones.size
    num_parameters = basis.shape[1] - 1
    affine = AffineMatrix.of_tensor(_times(program.A, basis), m, n + 1)
    A = affine.take(None, np.arange(n)).scale_rows(-np.ones(m))
    b = affine.take(None, np.array([n]))
    # CVXPY 1.7 calls the linear part of the objective c.
    linear = program.q if hasattr(program, "q") else program.c
    objective = AffineMatrix.of_tensor(_times(linear, basis), n + 1, 1)
    q = objective.take(np.arange(n), None)
    constant = objective.take(np.array([n]), None).lift()
    empty = sp.csr_array((n * n, num_parameters + 1))
    tensor = empty if program.P is None else _times(program.P, basis)
    half = AffineMatrix.of_tensor(tensor, n, n).scale_rows(np.full(n, 0.5))
    return CanonicalForm(
        half + half.T,
        q,
        A,
        b,
        border(constant),
        cones,
        row_group=np.zeros(m, dtype=int),
        primal=selection(np.ones(n, dtype=bool), m, num_parameters, of_y=False),
        dual=selection(np.ones(m, dtype=bool), n, num_parameters, of_y=True),
    )


def _times(tensor: sp.sparray, basis: Any) -> sp.coo_array:
    """Return tensor · basis, compressing the (often huge and empty) rows first."""
    terms: Any = sp.coo_array(tensor)
    entries, place = np.unique(terms.row.astype(np.int64), return_inverse=True)
    compressed = sp.csr_array(
        (terms.data, (place, terms.col)), shape=(len(entries), terms.shape[1])
    )
    product = sp.coo_array(compressed @ basis)
    return sp.coo_array(
        (product.data, (entries[product.row], product.col.astype(np.int64))),
        shape=(terms.shape[0], basis.shape[1]),
    )


def _variable_map(parts: Sequence[Part], program: Any, inverse_data: Sequence[Any]) -> sp.csr_array:
    """Return the matrix from x to the coordinates of a variable of the user's."""
    pieces = [part.matrix @ _full_map(part.leaf, program, inverse_data) for part in parts]
    return sp.csr_array(sum(pieces[1:], start=pieces[0]))


def _full_map(variable: Any, program: Any, inverse_data: Sequence[Any]) -> sp.csr_array:
    """Return the matrix from x to the full value of a variable that CVXPY got."""
    n = int(program.x.size)
    stored = variable
    for inverse in inverse_data[:-1]:
        if isinstance(inverse, tuple) and len(inverse) == 3:
            stored = inverse[0].get(variable.id, variable)
    if stored.id not in program.var_id_to_col:
        # CVXPY drops variables of size zero, and those nothing depends on (it reports 0).
        return sp.csr_array((variable.size, n))
    start = int(program.var_id_to_col[stored.id])
    block = sp.coo_array(full_from_canonical(variable, int(stored.size)))
    return sp.csr_array((block.data, (block.row, block.col + start)), shape=(variable.size, n))


def _rows_of_constraints(program: Any) -> dict[int, np.ndarray]:
    """Return the rows of each constraint of the cone program, by id."""
    ends = np.cumsum([0, *(num_rows(constraint) for constraint in program.constraints)])
    return {
        constraint.id: np.arange(ends[i], ends[i + 1])
        for i, constraint in enumerate(program.constraints)
    }


def _groups(program: Any, ids_of: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return, for lists of ids, the places of these constraints in the cone program."""
    place = {constraint.id: k for k, constraint in enumerate(program.constraints)}
    return [[place[one] for one in ids if one in place] for ids in ids_of]


def _mark_answers(
    form: CanonicalForm,
    program: Any,
    variable_maps: dict[int, sp.csr_array],
    user_constraints: set[int],
) -> CanonicalForm:
    """Note what the user can ask for: variables, and duals of the user's constraints."""
    n, m, p = form.P.shape[0], form.A.shape[0], form.P.num_parameters
    is_user_variable = np.zeros(n, dtype=bool)
    for matrix in variable_maps.values():
        is_user_variable[matrix.indices] = True
    sizes = [num_rows(constraint) for constraint in program.constraints]
    is_user = np.array([c.id in user_constraints for c in program.constraints], dtype=bool)
    row_group = np.repeat(np.arange(len(sizes)), sizes)
    return dataclasses.replace(
        form,
        row_group=row_group,
        primal=selection(is_user_variable, m, p, of_y=False),
        dual=selection(is_user[row_group], n, p, of_y=True),
    )
