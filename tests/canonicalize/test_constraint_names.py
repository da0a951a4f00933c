# SPDX-License-Identifier: Apache-2.0
"""Rows of the cone program are named after the constraint of the user's they come from."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from cvxlayer.compiler import CompiledProgram, compile_problem


def names_of(program: CompiledProgram) -> set[str]:
    rows = program.recovery.constraint_rows
    assert len(rows.of_row) == program.program.structure.num_rows
    return {rows.names[place] for place in rows.of_row}


def test_plain_constraints_have_their_expression() -> None:
    x, b = cp.Variable(2, name="x"), cp.Parameter(2, name="b")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x <= b, x[0] + x[1] >= 1])
    assert names_of(compile_problem(problem, [b], [x])) == {"x <= b", "1.0 <= x[0] + x[1]"}


def test_a_label_is_preferred() -> None:
    x, b = cp.Variable(2, name="x"), cp.Parameter(2, name="b")
    constraint = x <= b
    constraint.set_label("budget") if hasattr(constraint, "set_label") else None
    program = compile_problem(cp.Problem(cp.Minimize(cp.sum_squares(x)), [constraint]), [b], [x])
    expected = "budget" if hasattr(constraint, "set_label") else "x <= b"
    assert names_of(program) == {expected}


def test_rows_of_atoms_belong_to_what_the_atom_is_in() -> None:
    x, p = cp.Variable(3, name="x"), cp.Parameter(3, name="p")
    constraints = [cp.norm1(x) <= 1, cp.log_sum_exp(x) <= 2]
    problem = cp.Problem(cp.Minimize(cp.max(cp.abs(x - p)) + cp.norm(x)), constraints)
    assert names_of(compile_problem(problem, [p], [x])) == {
        "norm1(x) <= 1.0",
        "log_sum_exp(x, None, False) <= 2.0",
        "the objective",
    }


def test_declared_domains_are_named() -> None:
    x, p = cp.Variable(3, name="weights", nonneg=True), cp.Parameter(3, name="p")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum(x) == 1])
    program = compile_problem(problem, [p], [x])
    assert "the declared domain of weights" in names_of(program)


def test_long_constraints_are_abridged() -> None:
    x, b = cp.Variable(40, name="x"), cp.Parameter(40, name="b")
    matrix = np.random.default_rng(0).normal(size=(40, 40))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [matrix @ x <= b, x >= -b])
    for name in names_of(compile_problem(problem, [b], [x])):
        assert len(name) <= 120
        assert "\n" not in name


def test_geometric_programs_have_the_names_of_the_users_constraints() -> None:
    x, a = cp.Variable(2, pos=True, name="x"), cp.Parameter(pos=True, name="a")
    problem = cp.Problem(cp.Minimize(x[0] + x[1]), [x[0] * x[1] >= a, x[0] + 2 * x[1] <= 9])
    names = names_of(compile_problem(problem, [a], [x], gp=True))
    assert "x[0] + 2.0 * x[1] <= 9.0" in names or "x[0] + 2.0 @ x[1] <= 9.0" in names


def test_names_survive_where_rows_do_not() -> None:
    """The equality is substituted, the bounds stay."""
    x, y, b = cp.Variable(2, name="x"), cp.Variable(2, name="y"), cp.Parameter(2, name="b")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [y == x, y <= 1, x >= 0])
    rows = compile_problem(problem, [b], [x]).recovery.constraint_rows
    assert rows.names[:3] == ("y == x", "y <= 1.0", "0.0 <= x")
    assert {rows.names[place] for place in rows.of_row} <= set(rows.names[:3])
    assert len(set(rows.of_row.tolist())) >= 2
