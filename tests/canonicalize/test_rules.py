# SPDX-License-Identifier: Apache-2.0
"""Every refusal names what is wrong, where, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer.compiler import compile_problem
from cvxlayer.errors import NotDppError, ParameterValueError, UnsupportedProblemError

x = cp.Variable(3, name="x")
X = cp.Variable((3, 3), name="X")
gamma, W = cp.Parameter(name="gamma"), cp.Parameter((3, 3), name="W")
p, b = cp.Parameter(3, name="p", nonneg=True), cp.Parameter(3, name="b")
P = cp.Parameter((3, 3), PSD=True, name="P")
S = cp.Parameter((3, 3), symmetric=True, name="S")
square = cp.sum_squares(x)

NOT_DPP: list[tuple[str, cp.Problem, str]] = [
    (
        "a product of parameters in a constraint",
        cp.Problem(cp.Minimize(square), [x >= 0, x <= 1, (gamma * W) @ x <= b]),
        r"^Constraint 2, `.*`, multiplies the parameters `gamma` and `W` in `gamma [*@] W`\. DPP "
        r"allows .* not a parameter times a parameter\. .*for the product `gamma [*@] W`\.",
    ),
    (
        "a product of parameters and a variable",
        cp.Problem(cp.Minimize(square), [gamma * (W @ x) <= b]),
        r"^Constraint 0, .*multiplies the parameters `gamma` and `W` .*Declare one parameter for",
    ),
    (
        "a product of parameters in the objective",
        cp.Problem(cp.Minimize(square + gamma * b @ x)),
        r"^The objective, `minimize .*`, multiplies the parameters `gamma` and `b`",
    ),
    (
        "a division by a parameter",
        cp.Problem(cp.Minimize(square), [x / gamma <= 1]),
        r"^Constraint 0, .*divides by `gamma` .*Declare a parameter for `1 / gamma` and multiply",
    ),
    (
        "a factor that is not affine in a parameter",
        cp.Problem(cp.Minimize(square), [cp.exp(gamma) * x <= 1]),
        r"^Constraint 0, .*not affine in `gamma`.*Declare one parameter for `exp\(gamma\)`",
    ),
    (
        "a parametric quadratic form in a constraint",
        cp.Problem(cp.Minimize(square), [cp.quad_form(x, P) <= 1]),
        r"^Constraint 0, .*parameter matrix `P`.*Declare a parameter `L` with `L @ L\.T`.*"
        r"`sum_squares\(L\.T @ x\)`",
    ),
    (
        "a convex function of a parameter on the wrong side",
        cp.Problem(cp.Minimize(square), [x >= cp.square(p)]),
        r"",
    ),
    (
        "a concave bound squared",
        cp.Problem(cp.Minimize(square), [x <= cp.square(p)]),
        r"^Constraint 0, .*is not DPP: `p` enter",
    ),
]
DPP_AFTER_ALL = {"a convex function of a parameter on the wrong side"}


@pytest.mark.parametrize(
    ("problem", "message"),
    [case[1:] for case in NOT_DPP if case[0] not in DPP_AFTER_ALL],
    ids=[case[0] for case in NOT_DPP if case[0] not in DPP_AFTER_ALL],
)
def test_a_problem_that_is_not_dpp_is_refused_with_a_rewrite(
    problem: cp.Problem, message: str
) -> None:
    with pytest.raises(NotDppError, match=message):
        compile_problem(problem, problem.parameters(), [x])


NOT_DCP: list[tuple[str, Callable[[], cp.Problem], str]] = [
    (
        "a concave objective",
        lambda: cp.Problem(cp.Minimize(-square)),
        r"^The objective, .*is concave, but DCP lets one minimize only a convex",
    ),
    (
        "a convex objective to maximize",
        lambda: cp.Problem(cp.Maximize(square)),
        r"^The objective, .*is convex, but DCP lets one maximize only a concave",
    ),
    (
        "an inequality in the wrong direction",
        lambda: cp.Problem(cp.Minimize(square), [cp.norm(x) >= 1]),
        r"^Constraint 0, .*left side that is constant and a right side that is convex",
    ),
    (
        "a quadratic equality",
        lambda: cp.Problem(cp.Minimize(square), [x >= 0, square == 1]),
        r"^Constraint 1, .*is an equality between expressions that are not both affine",
    ),
    (
        "a product of variables",
        lambda: cp.Problem(cp.Minimize(square), [x[0] * x[1] >= 1]),
        r"^Constraint 0, .*multiplies the variables `x` and `x`",
    ),
    (
        "a composition that breaks the rules",
        lambda: cp.Problem(cp.Minimize(cp.sqrt(square))),
        r"^The objective, .*neither convex nor concave by DCP: .*is convex",
    ),
    (
        "a quadratic form that may be indefinite",
        lambda: cp.Problem(cp.Minimize(cp.quad_form(x, S))),
        r"^The objective, .*Declare `S` with `PSD=True`",
    ),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("build", "message"), [case[1:] for case in NOT_DCP], ids=[case[0] for case in NOT_DCP]
)
def test_a_problem_that_is_not_dcp_is_refused_with_its_expression(
    build: Callable[[], cp.Problem], message: str
) -> None:
    problem = build()
    with pytest.raises(NotDppError, match=message):
        compile_problem(problem, problem.parameters(), [x])


class _ConeOfAnotherKind(cp.NonNeg):
    """What a later CVXPY may have."""


UNSUPPORTED: list[tuple[str, Callable[[], cp.Problem], str]] = [
    (
        "cones of one solver",
        lambda: cp.Problem(cp.Minimize(square), [_ConeOfAnotherKind(x)]),
        r"of the kind _ConeOfAnotherKind, for which there is no cone",
    ),
    (
        "integers",
        lambda: cp.Problem(cp.Minimize(cp.sum(cp.Variable(2, integer=True, name="k")))),
        r"variable `k` is integer or boolean",
    ),
    ("no variables", lambda: cp.Problem(cp.Minimize(gamma)), r"has no variable"),
]


@pytest.mark.parametrize(
    ("build", "message"), [case[1:] for case in UNSUPPORTED], ids=[case[0] for case in UNSUPPORTED]
)
def test_what_the_engine_cannot_take_is_named(
    build: Callable[[], cp.Problem], message: str
) -> None:
    problem = build()
    try:
        outputs: list[Any] = [problem.variables()[0]]
    except IndexError:
        outputs = []
    with pytest.raises(UnsupportedProblemError, match=message):
        compile_problem(problem, problem.parameters(), outputs)


@pytest.mark.parametrize(
    ("parameters", "variables", "message"),
    [
        ([b, cp.Parameter(3, name="other")], [x], r"`parameters\[1\]`, `other`, does not appear"),
        ([b, b], [x], r"`parameters\[1\]`, `b`, is listed twice"),
        ([x], [x], r"`parameters\[0\]` is .*; it must be a `cvxpy.Parameter`"),
        ([b], [X], r"`variables\[0\]`, `X`, does not appear in the problem nor"),
        ([b], [x, x], r"`variables\[1\]`, `x`, is listed twice"),
        ([b], [x[0]], r"`variables\[0\]` is .*; it must be a `cvxpy.Variable`"),
        ([b], [(x <= 2).dual_variables[0]], r"nor a dual variable of one of its constraints"),
    ],
)
def test_lists_that_do_not_fit_the_problem_are_refused(
    parameters: list[Any], variables: list[Any], message: str
) -> None:
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)))
    with pytest.raises(ValueError, match=message):
        compile_problem(problem, parameters, variables)


def test_a_parameter_that_is_neither_input_nor_constant_is_refused() -> None:
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)))
    with pytest.raises(ParameterValueError, match=r"`b` of the problem is not among .* no value"):
        compile_problem(problem, [], [x])


def test_compiling_changes_nothing_of_the_users() -> None:
    gain = cp.Parameter(value=2.0)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - gain * b)), [x >= 0])
    b.value = np.array([1.0, -1.0, 2.0])
    before = problem.solve(solver=cp.CLARABEL)
    compile_problem(problem, [b], [x])
    assert b.value.tolist() == [1.0, -1.0, 2.0]
    assert gain.value == 2.0
    assert problem.solve(solver=cp.CLARABEL) == before
    b.value = None


def test_long_expressions_are_abridged_in_messages() -> None:
    big = np.random.default_rng(0).normal(size=(40, 3))
    problem = cp.Problem(cp.Minimize(square), [cp.multiply(gamma, gamma * (big @ x)) <= 1])
    with pytest.raises(NotDppError) as refusal:
        compile_problem(problem, [gamma], [x])
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 700
