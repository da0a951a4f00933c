# SPDX-License-Identifier: Apache-2.0
"""Reduces a canonical form once, at compile time, keeping everything affine in θ.

Many variables are defined by a row: most of CVXPY's own, and some of the user's. The row is an
equality, or an inequality that may be taken as one because nothing speaks against moving the
variable to its bound (t in ‖x‖ ≤ t, t ≤ c). Where the row, solved for the variable, can be
substituted so that every product stays affine in θ and the KKT matrix does not grow, both
go. What the user can ask for is an affine map of what stays, so every output and every
gradient comes back exactly.

Derivation: docs/derivations/canonicalize.md.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp

from cvxlayer.canonicalize.affine_matrix import AffineMatrix
from cvxlayer.canonicalize.answer import AnswerMap
from cvxlayer.canonicalize.fill import Patterns, growth
from cvxlayer.canonicalize.form import CanonicalForm, border
from cvxlayer.cones.product import ConeKind

# Each round removes what the previous one uncovered; chains of definitions are short.
_MAX_ROUNDS = 20
# A pivot much smaller than its row amplifies rounding errors in what is read back. CVXPY's
# own definitions only repeat the user's numbers, whatever their scale.
_SMALLEST_PIVOT = 1e-8
_SMALLEST_SHOWN_PIVOT = 1e-2
# Terms of the objective's constant that one defining equality may add.
_MAX_CONSTANT_TERMS = 4_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Pivots:
    """Rows to solve, each for its own variable: `A[rows, columns]` is diagonal.

    Attributes:
        rows: indices of equalities, or of inequalities that may hold with equality.
        columns: the variable each one defines.
    """

    rows: np.ndarray
    columns: np.ndarray


def eliminate(form: CanonicalForm) -> CanonicalForm:
    """Return an equivalent form without the variables and rows that do not pay."""
    form = drop_settled_rows(form)
    for _ in range(_MAX_ROUNDS):
        pivots = choose_pivots(form)
        if len(pivots.rows) == 0:
            break
        form = substitute(form, pivots)
    return drop_unused_variables(drop_settled_rows(form))


def drop_settled_rows(form: CanonicalForm) -> CanonicalForm:
    """Drop linear rows that hold for all x and θ: 0 = 0, 0 ≤ b with b ≥ 0, and b = +∞.

    A row that can never hold stays, so that the problem is still found infeasible.
    """
    m, num_zero, num_linear = form.A.shape[0], form.cones.zero, form.cones.num_linear
    constant_b = form.b.constant().toarray().ravel()
    is_fixed = ~form.b.parametric_rows()
    is_empty = np.ones(m, dtype=bool)
    is_empty[form.A.row] = False
    row = np.arange(m)
    is_equality, is_inequality = row < num_zero, (row >= num_zero) & (row < num_linear)
    settled = is_fixed & is_empty & is_equality & (constant_b == 0.0)
    settled |= is_fixed & is_empty & is_inequality & (constant_b >= 0.0)
    settled |= is_fixed & is_inequality & (constant_b == np.inf)
    return form.keep_rows(np.flatnonzero(~settled)) if settled.any() else form


def drop_unused_variables(form: CanonicalForm) -> CanonicalForm:
    """Drop variables that nothing depends on."""
    is_used = form.shown_variables()
    for used in (form.A.column, form.P.column, form.q.row):
        is_used[used] = True
    if is_used.all():
        return form
    return form.keep_variables(np.flatnonzero(is_used))


def choose_pivots(form: CanonicalForm) -> Pivots:
    """Return rows whose substitution pays, independent of one another.

    The rows of one constraint are judged together, because their fill coincides (a
    least squares with many residuals fills one small P); if that does not pay, those that
    merely rename or fix a variable are still taken.
    """
    rows, columns = _candidates(form)
    patterns, is_shown = Patterns.of(form), form.shown_variables()
    taken_rows: list[np.ndarray] = []
    taken_columns: list[np.ndarray] = []
    is_pivot = np.zeros(form.A.shape[1], dtype=bool)
    is_in_taken_row = np.zeros(form.A.shape[1], dtype=bool)
    group_of = form.row_group[rows]
    for group in np.unique(group_of):
        pick = group_of == group
        pivots = _independent(patterns, is_shown, rows[pick], columns[pick])
        for attempt in (pivots, _only_short(patterns, pivots)):
            touched = patterns.columns_of(attempt.rows)
            # Pivots of one round must not meet: later rounds see to the rest.
            is_free = not (is_pivot[touched].any() or is_in_taken_row[attempt.columns].any())
            if len(attempt.rows) == 0 or not is_free:
                continue
            if growth(patterns, attempt.rows, attempt.columns) <= 0:
                taken_rows.append(attempt.rows)
                taken_columns.append(attempt.columns)
                is_pivot[attempt.columns] = True
                is_in_taken_row[touched] = True
                break
    if len(taken_rows) and sum(map(len, taken_rows)) == form.A.shape[1]:
        # Leave the engine a variable.
        taken_rows[-1], taken_columns[-1] = taken_rows[-1][1:], taken_columns[-1][1:]
    none = np.empty(0, dtype=np.int64)
    return Pivots(np.concatenate([none, *taken_rows]), np.concatenate([none, *taken_columns]))


def _candidates(form: CanonicalForm) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (row, column) that may be pivots without leaving the affine functions."""
    A = form.A
    entry = A.row * A.shape[1] + A.column
    is_constant = ~np.isin(entry, entry[A.is_parametric])
    largest = np.zeros(A.shape[0])
    np.maximum.at(largest, A.row, np.abs(A.value))
    is_hidden = ~form.shown_variables()[A.column]
    smallest = np.where(is_hidden, _SMALLEST_PIVOT, _SMALLEST_SHOWN_PIVOT)
    pick = is_constant & (np.abs(A.value) >= smallest * largest[A.row])
    pick &= (A.row < form.cones.zero) | (is_hidden & _may_hold_with_equality(form, is_constant))
    row, column = A.row[pick], A.column[pick]
    # With x_j = T x + w: products with T and w must stay affine (derivation, section 2).
    has_P = np.zeros(A.shape[1], dtype=bool)
    has_P[form.P.column] = True
    moves_A, moves_P = A.parametric_columns()[column], form.P.parametric_columns()[column]
    T_is_constant = ~A.parametric_rows()[row]
    w_is_constant = ~form.b.parametric_rows()[row]
    fine = T_is_constant | ~(moves_A | has_P[column] | form.q.parametric_rows()[column])
    fine &= w_is_constant | ~(moves_A | moves_P)
    # What the user sees must come back by constant matrices (derivation, section 3).
    fine &= T_is_constant | ~form.shown_variables()[column]
    fine &= ~form.shown_rows()[row] | ~(moves_A | moves_P)
    fine &= ~_would_unbox(form, row, column)
    terms_of_b = np.bincount(form.b.row, minlength=A.shape[0])
    fine &= terms_of_b[row].astype(float) ** 2 <= _MAX_CONSTANT_TERMS
    return row[fine], column[fine]


def _would_unbox(form: CanonicalForm, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return whether a bound on the variable alone would become a bound on several.

    Bounds cost an engine next to nothing; so a user's variable that has one stays, unless
    it is fixed or another name of a single variable.
    """
    A, cones = form.A, form.cones
    entry = np.unique(A.row * A.shape[1] + A.column)
    entry_row, entry_column = entry // A.shape[1], entry % A.shape[1]
    lengths = np.bincount(entry_row, minlength=A.shape[0])
    is_bound = (entry_row >= cones.zero) & (entry_row < cones.num_linear)
    is_bound &= lengths[entry_row] == 1
    is_bounded = np.zeros(A.shape[1], dtype=bool)
    is_bounded[entry_column[is_bound]] = True
    return is_bounded[column] & (lengths[row] > 2) & form.shown_variables()[column]


def _may_hold_with_equality(form: CanonicalForm, is_constant: np.ndarray) -> np.ndarray:
    """Return a mask of the terms of A in inequalities that bound their variable alone.

    A variable without cost that one inequality bounds from one side only can be moved to
    that bound when every other row gains by it: inequalities in which its sign is the
    opposite, and second-order cones that contain the direction in which it moves their slack.
    """
    A, cones = form.A, form.cones
    is_inequality = (A.row >= cones.zero) & (A.row < cones.num_linear)
    num_columns = A.shape[1]

    def count(mask: np.ndarray) -> np.ndarray:
        return np.bincount(A.column[mask], minlength=num_columns)

    has_cost = np.zeros(num_columns, dtype=bool)
    has_cost[form.P.column] = has_cost[form.q.row] = True
    movable = ~has_cost & (count(~is_constant | (A.row < cones.zero)) == 0)
    up, down = is_inequality & (A.value > 0), is_inequality & (A.value < 0)
    grows, shrinks = _cone_directions(form)
    from_above = movable & grows & (count(up) == 1)
    from_below = movable & shrinks & (count(down) == 1)
    return (up & from_above[A.column]) | (down & from_below[A.column])


def _cone_directions(form: CanonicalForm) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the variables that stay in every curved cone when they grow, shrink.

    Column j moves the slack by −A_j: growing is safe when −A_j lies in each cone, shrinking
    when A_j does. Entries that depend on θ are not looked at; of cones other than
    second-order ones nothing is claimed.
    """
    A = form.A
    slices = [c.rows for c in form.cones.curved if c.kind is ConeKind.SECOND_ORDER]
    starts = np.array([rows.start for rows in slices], dtype=int)
    end = form.cones.num_linear + sum(form.cones.second_order)
    pick = (A.row >= form.cones.num_linear) & (A.row < end) & ~A.is_parametric
    row, column, value = A.row[pick], A.column[pick], A.value[pick]
    block = np.searchsorted(starts, row, side="right") - 1
    keys, place = np.unique(block * A.shape[1] + column, return_inverse=True)
    is_head = starts[block] == row if len(slices) else np.zeros(0, dtype=bool)
    head, tail = np.zeros(len(keys)), np.zeros(len(keys))
    np.add.at(head, place[is_head], value[is_head])
    np.add.at(tail, place[~is_head], value[~is_head] ** 2)
    # A rotated cone holds the variable at its boundary: (1, −1, 0).
    length = np.sqrt(tail) * (1 - 1e-12)
    grows, shrinks = np.ones(A.shape[1], dtype=bool), np.ones(A.shape[1], dtype=bool)
    grows[keys[-head < length] % A.shape[1]] = False
    shrinks[keys[head < length] % A.shape[1]] = False
    elsewhere = A.column[A.row >= end]
    grows[elsewhere] = shrinks[elsewhere] = False
    return grows, shrinks


def _independent(
    patterns: Patterns, is_shown: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> Pivots:
    """Choose one pivot for each row such that no pivot column meets another chosen row."""
    group_rows = np.unique(rows)
    meets = np.bincount(patterns.A_rows[group_rows].indices, minlength=len(patterns.column_counts))
    alone = meets[columns] == 1
    rows, columns = rows[alone], columns[alone]
    # Of several candidates in a row, one the user does not see leaves the answers simple,
    # and the one in fewest other rows and products fills least.
    order = np.lexsort((columns, patterns.column_counts[columns], is_shown[columns], rows))
    _, first = np.unique(rows[order], return_index=True)
    return Pivots(rows[order][first], columns[order][first])


def _only_short(patterns: Patterns, pivots: Pivots) -> Pivots:
    """Keep the pivots whose variable is a constant or a multiple of one other variable."""
    lengths = np.diff(patterns.A_rows.indptr)[pivots.rows]
    return Pivots(pivots.rows[lengths <= 2], pivots.columns[lengths <= 2])


def substitute(form: CanonicalForm, pivots: Pivots) -> CanonicalForm:
    """Solve the pivot rows for their variables and put the result everywhere else."""
    n, m = form.A.shape[1], form.A.shape[0]
    R, J = pivots.rows, pivots.columns
    K, rest = np.setdiff1d(np.arange(n), J), np.setdiff1d(np.arange(m), R)
    pivot = np.asarray(form.A.constant()[R, J]).ravel()
    # x_J = T x_K + w
    T = form.A.take(R, K).scale_rows(-1.0 / pivot)
    w = form.b.take(R, None).scale_rows(1.0 / pivot)
    A_J, q_J = form.A.take(rest, J), form.q.take(J, None)
    P_KJ, P_JJ = form.P.take(K, J), form.P.take(J, J)
    P_KJ_T = P_KJ.matmul(T)
    P_JJ_T = P_JJ.matmul(T)
    through = P_KJ + P_JJ_T.T
    # Stationarity in x_J, solved for the duals of the pivot rows.
    scale = -1.0 / pivot
    y_R = AnswerMap(
        (P_KJ.T + P_JJ_T).scale_rows(scale).constant(),
        A_J.T.scale_rows(scale).constant(),
        (q_J + P_JJ.matmul(w)).scale_rows(scale),
    )
    x_J = AnswerMap(T.constant(), sp.csr_array((len(J), len(rest))), w)
    return dataclasses.replace(
        form.keep_rows(rest),
        P=form.P.take(K, K) + P_KJ_T + P_KJ_T.T + T.T.matmul(P_JJ_T),
        q=form.q.take(K, None) + T.T.matmul(q_J) + through.matmul(w),
        A=form.A.take(rest, K) + A_J.matmul(T),
        b=form.b.take(rest, None) + A_J.matmul(w).scale_rows(np.full(len(rest), -1.0)),
        constant=sp.csr_array(form.constant + _constant_terms(P_JJ, q_J, w)),
        primal=form.primal.substitute((K, J), (rest, R), x_J, y_R),
        dual=form.dual.substitute((K, J), (rest, R), x_J, y_R),
    )


def _constant_terms(P: AffineMatrix, q: AffineMatrix, w: AffineMatrix) -> sp.csr_array:
    """Return M with ½ [θ; 1]ᵀ M [θ; 1] = ½ wᵀP w + qᵀw.

    Where P depends on θ, w is constant there, so its part is linear in θ.
    """
    W, Q = w.lift(), q.lift()
    cross = sp.csr_array(Q.T @ W)
    moving = P.drop_constants()
    at_zero = w.constant().toarray().ravel()
    linear = np.zeros(P.num_parameters + 1)
    np.add.at(
        linear, moving.parameter, 0.5 * moving.value * at_zero[moving.row] * at_zero[moving.column]
    )
    return sp.csr_array(
        W.T @ (P.constant() @ W) + cross + cross.T + border(sp.csr_array(linear[None, :]))
    )
