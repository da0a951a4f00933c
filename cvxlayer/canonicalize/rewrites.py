# SPDX-License-Identifier: Apache-2.0
"""Words for an expression that breaks DCP, DGP or DPP, with the rewrite that mends it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_LONGEST_TEXT = 120
# What CVXPY shows of a scalar that meets an array: Promote(gamma, (3,)).
_PROMOTION = re.compile(r"Promote\(((?:[^(),]|\([^()]*\))*), \([0-9, ]*\)\)")
_PRODUCTS = ("MulExpression", "multiply", "conv", "convolve", "kron", "outer")


def explain_not_dcp(name: str, part: Any) -> str:
    """Return the refusal of an objective or a constraint that is not convex by DCP."""
    culprit = _deepest(part, lambda expression: expression.is_dcp())
    if culprit is None:
        return f"{_capital(name)} {_wrong_curvature(part)}"
    return f"{_capital(name)} {_dcp_reason(culprit)}"


def explain_not_dpp(name: str, part: Any) -> str:
    """Return the refusal of an objective or a constraint that is DCP but not DPP."""
    culprit = _deepest(part, lambda expression: expression.is_dcp(dpp=True))
    if culprit is None:
        names = _names(part.parameters())
        return (
            f"{_capital(name)} is not DPP: {names} enter it with the wrong curvature. DPP treats a "
            "parameter like a variable when it checks convexity. Declare a parameter for the "
            "expression of the parameters itself and compute its value before the call."
        )
    return f"{_capital(name)} {_dpp_reason(culprit)}"


def explain_not_dgp(name: str, part: Any) -> str:
    """Return the refusal of an objective or a constraint that is not log-log convex by DGP."""
    culprit = _deepest(part, lambda expression: expression.is_dgp())
    if culprit is None:
        return f"{_capital(name)} {_wrong_log_curvature(part)}"
    return f"{_capital(name)} {_dgp_reason(culprit)}"


def explain_not_dpp_in_logarithms(name: str, part: Any) -> str:
    """Return the refusal of an objective or a constraint that is DGP but not DPP."""
    culprit = _deepest(part, lambda expression: expression.is_dgp(dpp=True)) or part
    text, names = abridge(culprit), _names(culprit.parameters())
    return (
        f"{_capital(name)} is not DPP: in `{text}` the parameters {names} enter in a way that is "
        "not affine in their logarithms. DPP treats a parameter of a geometric program like a "
        "positive variable, and an exponent like a factor: no power of a parameter by a parameter, "
        f"no difference. Declare one positive parameter for the part of `{text}` without variables."
    )


def _wrong_log_curvature(part: Any) -> str:
    """Say which log-log curvature an objective or a constraint has and which it needs."""
    kind = type(part).__name__
    if kind in ("Minimize", "Maximize"):
        needed = "convex (a posynomial)" if kind == "Minimize" else "concave (a monomial)"
        return (
            f"is {part.args[0].log_log_curvature.lower()}, but DGP lets one {kind.lower()} only a "
            f"log-log {needed} expression. "
            f"{'Maximize' if kind == 'Minimize' else 'Minimize'} it, or its inverse."
        )
    if kind == "Inequality":
        left, right = (argument.log_log_curvature.lower() for argument in part.args)
        return (
            f"has a left side that is {left} and a right side that is {right}. DGP needs a "
            "posynomial <= a monomial. Check the direction of the inequality, or divide both "
            "sides."
        )
    if kind == "Equality":
        return (
            "is an equality between expressions that are not both monomials. Relax it to an "
            "inequality, or keep only products and powers."
        )
    return (
        f"is a {kind} constraint, which has no meaning for logarithms. DGP allows `<=`, `>=` and "
        "`==` between positive expressions: write it with these."
    )


def _dgp_reason(culprit: Any) -> str:
    """Say why an expression is neither log-log convex nor log-log concave."""
    kind, text = type(culprit).__name__, abridge(culprit)
    if kind in ("Variable", "Parameter"):
        return (
            f"contains the {kind.lower()} `{culprit.name()}`, which is not known to be positive. "
            "In a geometric program all are, except parameters that are exponents: declare "
            f"`{culprit.name()}` with `pos=True`."
        )
    if kind == "Constant":
        return (
            f"contains the constant `{text}`, which is not positive. DGP knows positive numbers "
            "only: bring terms with a minus sign to the other side, or divide by them."
        )
    if kind == "NegExpression":
        return (
            f"subtracts `{abridge(culprit.args[0])}`. DGP has no differences: bring the term to "
            "the other side, divide, or use `cvxpy.diff_pos` or `cvxpy.one_minus_pos`."
        )
    arguments = ", ".join(f"`{abridge(a)}` is {a.log_log_curvature.lower()}" for a in culprit.args)
    return (
        f"contains `{text}`, which is neither log-log convex nor log-log concave by DGP: "
        f"{arguments}. DGP allows sums, products, quotients and powers of positive expressions, "
        f"and atoms such as `{kind}` only where the composition rule applies. Replace the argument "
        "by a positive variable bounded by it."
    )


def _deepest(part: Any, is_fine: Callable[[Any], bool]) -> Any | None:
    """Return the first expression that breaks a rule although all its arguments keep it."""
    for argument in part.args:
        if not is_fine(argument):
            return _deepest(argument, is_fine) or argument
    return None


def _wrong_curvature(part: Any) -> str:
    """Say which curvature an objective or a constraint has and which it needs."""
    kind = type(part).__name__
    if kind in ("Minimize", "Maximize"):
        found, needed = (
            part.args[0].curvature.lower(),
            "convex" if kind == "Minimize" else "concave",
        )
        return (
            f"is {found}, but DCP lets one {kind.lower()} only a {needed} expression. "
            f"Check the sign, or {'maximize' if kind == 'Minimize' else 'minimize'} it."
        )
    if kind == "Inequality":
        left, right = (argument.curvature.lower() for argument in part.args)
        return (
            f"has a left side that is {left} and a right side that is {right}. DCP needs convex "
            "<= concave. Check the direction of the inequality, or replace a side by an affine "
            "expression."
        )
    if kind in ("Equality", "Zero"):
        return (
            "is an equality between expressions that are not both affine, so its solutions do "
            "not form a convex set. Relax it to an inequality, or keep only affine terms."
        )
    return (
        "is not convex: DCP needs affine arguments in this constraint. Introduce a variable for "
        "each argument that is not affine."
    )


def _dcp_reason(culprit: Any) -> str:
    """Say why an expression is neither convex nor concave by DCP."""
    kind, text = type(culprit).__name__, abridge(culprit)
    if kind in _PRODUCTS and all(argument.variables() for argument in culprit.args):
        left, right = culprit.args[0], culprit.args[1]
        both = f"{_names(left.variables())} and {_names(right.variables())}"
        return (
            f"multiplies the variables {both} in `{text}`. DCP allows a constant or a parameter "
            "times a variable. Fix one factor, or use `sum_squares` or `quad_form` if a square "
            "is meant."
        )
    if kind == "QuadForm":
        matrix = culprit.args[1]
        declared = (
            f"Declare `{matrix.name()}` with `PSD=True`"
            if matrix.parameters() and hasattr(matrix, "attributes")
            else "Make the matrix semidefinite (`cvxpy.psd_wrap` if it is so up to rounding)"
        )
        return (
            f"contains `{text}`, whose matrix is not known to be positive or negative "
            f"semidefinite. DCP allows `quad_form` with a semidefinite matrix only. {declared}."
        )
    arguments = ", ".join(f"`{abridge(a)}` is {a.curvature.lower()}" for a in culprit.args)
    return (
        f"contains `{text}`, which is neither convex nor concave by DCP: {arguments}. DCP allows "
        f"`{kind}` only of arguments with which the composition rule applies. Replace the argument "
        "by a variable bounded by it, or use the atom that stands for the whole expression."
    )


def _dpp_reason(culprit: Any) -> str:
    """Say why an expression that is DCP is not DPP."""
    kind, text = type(culprit).__name__, abridge(culprit)
    if kind in _PRODUCTS:
        return _product_reason(culprit, text)
    if kind == "DivExpression" and culprit.args[1].parameters():
        denominator = culprit.args[1]
        return (
            f"divides by {_names(denominator.parameters())} in `{text}`. DPP allows a parameter "
            "as a factor, not as a divisor. Declare a parameter for "
            f"`1 / {_wrap(denominator)}` and multiply by it."
        )
    if kind == "QuadForm":
        return _quadratic_reason(culprit, text)
    names = _names(culprit.parameters())
    return (
        f"applies `{kind}` to {names} in `{text}`, and the result is not affine in the parameters. "
        f"DPP allows only affine functions of parameters where they multiply or bound "
        f"something. Declare one parameter for `{text}` if it contains no variable, else for "
        "its part without variables."
    )


def _product_reason(culprit: Any, text: str) -> str:
    left, right = culprit.args[0], culprit.args[1]
    if left.parameters() and right.parameters():
        names = _names([*left.parameters(), *right.parameters()])
        if left.variables() or right.variables():
            what = "the product of these parameters and multiply the variable by it"
        else:
            what = f"the product `{text}`"
        return (
            f"multiplies the parameters {names} in `{text}`. DPP allows a parameter times a "
            "variable, not a parameter times a parameter. Declare one parameter for "
            f"{what}."
        )
    factor = left if left.parameters() else right
    return (
        f"multiplies by `{abridge(factor)}` in `{text}`, which is not affine in "
        f"{_names(factor.parameters())}. DPP allows a factor that is affine in the parameters. "
        f"Declare one parameter for `{abridge(factor)}`."
    )


def _quadratic_reason(culprit: Any, text: str) -> str:
    point, matrix = culprit.args
    return (
        f"contains `{text}` with the parameter matrix {_names(matrix.parameters())}. DPP allows "
        "this in the objective only, with a constant factor, not in a constraint or inside "
        "another atom. Declare a parameter `L` with `L @ L.T` equal to the matrix and write "
        f"`sum_squares(L.T @ {_wrap(point)})`."
    )


def abridge(expression: Any) -> str:
    """Return an expression as one line of bearable length."""
    text = " ".join(str(expression).split())
    text = _PROMOTION.sub(r"\1", text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def _wrap(expression: Any) -> str:
    text = abridge(expression)
    return f"({text})" if " " in text else text


def _names(leaves: list[Any]) -> str:
    names = list(dict.fromkeys(f"`{leaf.name()}`" for leaf in leaves))
    if len(names) < 2:
        return "".join(names)
    return ", ".join(names[:-1]) + f" and {names[-1]}"


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]
