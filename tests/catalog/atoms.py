# SPDX-License-Identifier: Apache-2.0
"""Every atom that CVXPY exports, each in a small problem with a unique solution.

An affine atom is minimized in squares, a convex one as it is, a concave one with its sign
changed; its arguments are `scale · variable + shift`, with parameters for scale and shift.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import zlib
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms.affine import wraps
from cvxpy.atoms.atom import Atom

IS_OLD = cp.__version__.startswith("1.7")

Problem = tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]


@dataclasses.dataclass(frozen=True)
class Argument:
    """What an argument of an atom is.

    Attributes:
        shape: its shape.
        attributes: declared for its variable and for its shift.
        is_positive: whether it has to be positive, or positive definite.
    """

    shape: tuple[int, ...]
    attributes: tuple[str, ...] = ()
    is_positive: bool = False

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a value, away from the border of where it has to be."""
        value = rng.normal(size=self.shape)
        if {"complex", "hermitian"} & set(self.attributes):
            value = value + 1j * rng.normal(size=self.shape)
        if {"symmetric", "hermitian"} & set(self.attributes):
            if self.is_positive:
                return value @ value.T.conj() / len(value) + np.eye(len(value))
            return 0.5 * (value + value.T.conj())
        return 1.0 + np.abs(value) if self.is_positive else np.asarray(value)

    def draw_shift(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a small change of a value, which may have any sign."""
        value = 0.2 * dataclasses.replace(self, is_positive=False).draw(rng)
        return np.abs(value) if "nonneg" in self.attributes else value


ARGUMENTS = {
    "x": Argument((3,)),
    "y": Argument((3,)),
    "x>0": Argument((3,), is_positive=True),
    "y>0": Argument((3,), is_positive=True),
    "x>=0": Argument((3,), ("nonneg",), is_positive=True),
    "t": Argument(()),
    "t>0": Argument((), is_positive=True),
    "X": Argument((2, 3)),
    "X>0": Argument((2, 3), is_positive=True),
    "Y": Argument((2, 3)),
    "S": Argument((3, 3), ("symmetric",)),
    "S>0": Argument((3, 3), ("symmetric",), is_positive=True),
    "R>0": Argument((2, 2), ("symmetric",), is_positive=True),
    "Q>0": Argument((2, 2), ("symmetric",), is_positive=True),
    "D": Argument((4, 4)),
    "z": Argument((3,), ("complex",)),
    "H": Argument((3, 3), ("hermitian",)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class AtomCase:
    """An atom and arguments for it.

    Attributes:
        name: of the atom in `cvxpy.atoms`, or of a class that only operators make.
        arguments: space-separated names in `ARGUMENTS`.
        apply: (atom, *arguments) ↦ an expression, or one and constraints.
        note: what tells the case from others of its atom.
    """

    name: str
    arguments: str = "x"
    apply: Callable[..., Any] = lambda atom, *arguments: atom(*arguments)
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.note or self.arguments}"

    @property
    def is_there(self) -> bool:
        """Whether this CVXPY has the atom."""
        if self.name.endswith("_wrap"):
            return hasattr(wraps, self.name)
        return hasattr(cp.atoms, self.name) or self.name in MADE_BY_OPERATORS

    @functools.cached_property
    def kinds(self) -> list[Argument]:
        """What the arguments are."""
        return [ARGUMENTS[name] for name in self.arguments.split()]

    def expression(self, *arguments: Any) -> tuple[cp.Expression, list[Any]]:
        """Return the atom of the arguments, and constraints it needs."""
        applied = self.apply(getattr(cp.atoms, self.name, None), *arguments)
        return applied if isinstance(applied, tuple) else (applied, [])

    def build(self) -> Problem:
        """Return the problem, its parameters and its variables: new objects each time."""
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        scale = cp.Parameter(nonneg=True, name="scale")
        variables, shifts, cost = [], [], 0
        for i, kind in enumerate(self.kinds):
            declared: dict[str, Any] = dict.fromkeys(kind.attributes, True)
            variables.append(cp.Variable(kind.shape, name=f"x{i}", **declared))
            shifts.append(cp.Parameter(kind.shape, name=f"shift{i}", **declared))
            cost += 0.5 * cp.sum_squares(variables[-1] - kind.draw(rng))
        shifted = [scale * v + s for v, s in zip(variables, shifts, strict=True)]
        expression, constraints = self.expression(*shifted)
        problem = cp.Problem(cp.Minimize(cost + _cost(expression)), constraints)
        return problem, [scale, *shifts], variables

    def draw(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Draw one value for each parameter."""
        return [np.asarray(rng.uniform(0.8, 1.2))] + [k.draw_shift(rng) for k in self.kinds]


@dataclasses.dataclass(frozen=True, eq=False)
class GeometricAtomCase(AtomCase):
    """An atom of geometric programs, whose arguments are `scale · variable`.

    Attributes:
        shape: of each variable.
    """

    shape: tuple[int, ...] = (3,)

    def build(self) -> Problem:
        """Return the problem, its parameters and its variables: new objects each time."""
        scale, prices = cp.Parameter(pos=True, name="scale"), cp.Parameter(pos=True, name="prices")
        variables, cost = [], 0
        for i in range(len(self.arguments.split())):
            variables.append(cp.Variable(self.shape, pos=True, name=f"x{i}"))
            # 0.3 to 0.1, one for each: nothing is symmetric.
            weights = np.linspace(0.3, 0.1, variables[-1].size).reshape(self.shape) / (i + 1)
            cost += prices * cp.sum(variables[-1]) + cp.sum(
                cp.multiply(weights, variables[-1] ** -1)
            )
        expression, constraints = self.expression(*[scale * v for v in variables])
        power = 1 if expression.is_log_log_convex() else -1
        problem = cp.Problem(cp.Minimize(cost + cp.sum(expression**power)), constraints)
        return problem, [scale, prices], variables

    def draw(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Draw one value for each parameter."""
        return [np.asarray(rng.uniform(0.3, 0.4)), np.asarray(rng.uniform(0.8, 1.2))]


def _cost(expression: cp.Expression) -> cp.Expression:
    """Return a convex function of the expression that tells its entries apart."""
    if expression.is_affine():
        return 0.5 * cp.sum_squares(expression - 0.3)
    weights = np.linspace(0.4, 0.7, expression.size).reshape(expression.shape)
    weighted = cp.sum(cp.multiply(weights, expression))
    return weighted if expression.is_convex() else -weighted


def _exact_power(atom: Any, x: Any) -> Any:
    """CVXPY 1.7 knows approximations by second-order cones alone."""
    return atom(x, 2.5) if IS_OLD else atom(x, 2.5, approx=False)


def _wrap(R: Any) -> Any:
    """CVXPY 1.7 does not see that a symmetric parameter, scaled, is Hermitian."""
    return wraps.hermitian_wrap(R) if IS_OLD else R


def _perspective(atom: Any, x: Any, t: Any) -> tuple[cp.Expression, list[Any]]:
    v, s = cp.Variable(3), cp.Variable(nonneg=True)
    return atom(cp.sum(cp.exp(v)), s), [v == x, s == t]


def _support(x: Any) -> tuple[cp.Expression, list[Any]]:
    # CVXPY does not see parameters in the argument of a support function.
    z, y = cp.Variable(3), cp.Variable(3)
    return cp.suppfunc(z, [cp.norm(z, 2) <= 1, z[0] >= 0.1])(y), [y == x]


def _geometric_product(atom: Any, x: Any) -> tuple[cp.Expression, list[Any]]:
    # CVXPY takes variables only.
    y = cp.Variable(3, pos=True)
    return atom(_B.T, y), [y == x]


_CONSTANTS = np.random.default_rng(5)
_B = _CONSTANTS.normal(size=(3, 2))
_C = _CONSTANTS.normal(size=3)
_ROOT = _CONSTANTS.normal(size=(3, 3))
_F = _ROOT @ _ROOT.T + np.eye(3)
_ON_FIRST_TWO = np.diag([1.0, 1.0, 0.0])

AFFINE = [
    AtomCase("AddExpression", "x y", lambda f, x, y: f([x, y])),
    AtomCase("MulExpression", "x", lambda f, x: f(_F, x)),
    AtomCase("Sum", "X", lambda f, X: f(X, axis=1)),
    AtomCase("Trace", "S"),
    AtomCase("bmat", "x y", lambda f, x, y: f([[x, y], [y, -x]])),
    AtomCase("broadcast_to", "x", lambda f, x: f(x, (2, 3))),
    AtomCase("concatenate", "x y", lambda f, x, y: f([x, y])),
    AtomCase("conj", "z"),
    AtomCase("conv", "x", lambda f, x: f(_C, x)),
    AtomCase("convolve", "x", lambda f, x: f(_C, x)),
    AtomCase("cumsum", "X", lambda f, X: f(X, axis=1)),
    AtomCase("deep_flatten", "X", lambda f, X: f([X, X[0]])),
    AtomCase("diag", "x", note="of a vector"),
    AtomCase("diag", "S", note="of a matrix"),
    AtomCase("diff", "x", lambda f, x: f(x, 2)),
    AtomCase("einsum", "X", lambda f, X: f("ij,jk->ik", X, _B)),
    AtomCase("hermitian_wrap", "H"),
    AtomCase("hstack", "x y", lambda f, x, y: f([x, y])),
    AtomCase("imag", "z"),
    AtomCase("kron", "X", lambda f, X: f(_B, X)),
    AtomCase("matmul", "X", lambda f, X: f(X, _B)),
    AtomCase("mean", "X", lambda f, X: f(X, axis=0)),
    AtomCase("moveaxis", "X", lambda f, X: f(X, [0], [1])),
    AtomCase("multiply", "x", lambda f, x: f(_C, x)),
    AtomCase("outer", "x", lambda f, x: f(_C, x)),
    AtomCase("partial_trace", "D", lambda f, D: f(D, (2, 2), axis=1)),
    AtomCase("partial_transpose", "D", lambda f, D: f(D, (2, 2), axis=0)),
    AtomCase("permute_dims", "X", lambda f, X: f(X, [1, 0])),
    AtomCase("promote", "t", lambda f, t: f(t, (3,))),
    AtomCase("psd_wrap", "S>0"),
    AtomCase("real", "z"),
    AtomCase("reshape", "X", lambda f, X: f(X, (3, 2), order="C")),
    AtomCase("scalar_product", "x", lambda f, x: f(_C, x)),
    AtomCase("skew_symmetric_wrap", "x", lambda f, x: f(_ROOT - _ROOT.T + 0 * cp.diag(x))),
    AtomCase("squeeze", "x", lambda f, x: f(cp.reshape(x, (3, 1), order="F"))),
    AtomCase("stack", "x y", lambda f, x, y: f([x, y])),
    AtomCase("sum", "X"),
    AtomCase("swapaxes", "X", lambda f, X: f(X, 0, 1)),
    AtomCase("symmetric_wrap", "S"),
    AtomCase("trace", "S"),
    AtomCase("transpose", "X"),
    # CVXPY's own value of its column is a vector, which would broadcast against others.
    AtomCase("upper_tri", "S", lambda f, S: cp.vec(f(S), order="F")),
    AtomCase("vdot", "x", lambda f, x: f(_C, x)),
    AtomCase("vec", "X", lambda f, X: f(X, order="C")),
    AtomCase("vec_to_upper_tri", "x"),
    AtomCase("vstack", "x y", lambda f, x, y: f([x, y])),
]
CONVEX = [
    AtomCase("MatrixFrac", "x R>0", lambda f, x, R: f(x[:2], R)),
    AtomCase("Pnorm", "x", lambda f, x: f(x, 3)),
    AtomCase("PnormApprox", "x", lambda f, x: f(x, 3)),
    AtomCase("Power", "x>0", lambda f, x: f(x, 1.7)),
    AtomCase("PowerApprox", "x>0", lambda f, x: f(x, 1.7)),
    AtomCase("QuadForm", "x", lambda f, x: f(x, cp.Constant(_F))),
    AtomCase("abs"),
    AtomCase("abs", "z"),
    AtomCase("cummax"),
    AtomCase("cvar", "x", lambda f, x: f(x, 0.5)),
    AtomCase("dotsort", "x", lambda f, x: f(x, np.array([0.2, 0.5, 0.3]))),
    AtomCase("exp"),
    AtomCase("huber", "x", lambda f, x: f(x, 0.5)),
    AtomCase("inv_pos", "x>0"),
    AtomCase("inv_prod", "x>0"),
    AtomCase("kl_div", "x>0 y>0"),
    AtomCase("lambda_max", "S"),
    AtomCase("lambda_max", "H"),
    AtomCase("lambda_sum_largest", "S", lambda f, S: f(S, 2)),
    AtomCase("log_sum_exp", "X", lambda f, X: f(X, axis=1)),
    AtomCase("loggamma", "x>0"),
    AtomCase("logistic"),
    AtomCase("matrix_frac", "x R>0", lambda f, x, R: f(x[:2], R)),
    AtomCase("matrix_frac", "x", lambda f, x: f(x, _F), note="of a constant matrix"),
    AtomCase("max", "X", lambda f, X: f(X, axis=1)),
    AtomCase("maximum", "x y"),
    AtomCase("mixed_norm", "X", lambda f, X: f(X, 2, 1)),
    AtomCase("neg"),
    AtomCase("norm", "x"),
    AtomCase("norm", "z", note="of complex numbers"),
    AtomCase("norm", "X", lambda f, X: f(X, "fro"), note="of Frobenius"),
    AtomCase("norm1"),
    AtomCase("norm2", "X", lambda f, X: f(X, axis=1)),
    AtomCase("normNuc", "X"),
    AtomCase("norm_inf"),
    AtomCase("perspective", "x t>0", _perspective),
    AtomCase("pnorm", "x", lambda f, x: f(x, 1.5)),
    AtomCase("pos"),
    AtomCase("power", "x", lambda f, x: f(x, 4), note="4"),
    AtomCase("power", "x>0", lambda f, x: f(x, -0.5), note="-0.5"),
    AtomCase("power", "x>0", _exact_power, note="2.5, a power cone"),
    AtomCase("ptp"),
    AtomCase("quad_form", "x", lambda f, x: f(x, _F)),
    AtomCase("quad_over_lin", "x t>0"),
    AtomCase("quantum_rel_entr", "R>0 Q>0", lambda f, R, Q: f(_wrap(R), _wrap(Q))),
    AtomCase("rel_entr", "x>0 y>0"),
    AtomCase("scalene", "x", lambda f, x: f(x, 0.4, 0.9)),
    AtomCase("sigma_max", "X"),
    AtomCase("square"),
    AtomCase("std"),
    AtomCase("sum_largest", "x", lambda f, x: f(x, 2)),
    AtomCase("sum_squares"),
    AtomCase("tr_inv", "R>0"),
    AtomCase("tv", "X"),
    AtomCase("var"),
    AtomCase("xexp", "x>=0"),
]
CONCAVE = [
    AtomCase("GeoMean", "x>0", lambda f, x: f(x, [0.2, 0.5, 0.3])),
    AtomCase("GeoMeanApprox", "x>0", lambda f, x: f(x, [0.2, 0.5, 0.3])),
    AtomCase("entr", "x>0"),
    AtomCase("geo_mean", "x>0", lambda f, x: f(x, [1, 2, 1])),
    AtomCase("harmonic_mean", "x>0"),
    AtomCase("lambda_min", "S"),
    AtomCase("lambda_sum_smallest", "S", lambda f, S: f(S, 2)),
    AtomCase("log", "x>0"),
    AtomCase("log1p", "x>0"),
    AtomCase("log_det", "S>0"),
    AtomCase("log_normcdf"),
    AtomCase("min", "X", lambda f, X: f(X, axis=1)),
    AtomCase("minimum", "x y"),
    AtomCase("power", "x>0", lambda f, x: f(x, 0.6), note="0.6"),
    AtomCase("quantum_cond_entr", "R>0", lambda f, R: f(wraps.hermitian_wrap(R), (2, 1))),
    AtomCase("sqrt", "x>0"),
    AtomCase("sum_smallest", "x", lambda f, x: f(x, 2)),
    AtomCase("von_neumann_entr", "R>0", lambda f, R: f(_wrap(R))),
]
MADE_BY_OPERATORS = {
    "DivExpression": lambda x: x / 2.0,
    "NegExpression": lambda x: -x,
    "Promote": lambda x: x[0] + np.ones((2, 2)),
    "index": lambda x: x[::-1],
    "special_index": lambda x: x[[0, 2, 0]],
    "nonneg_wrap": lambda x: wraps.nonneg_wrap(x),
    "nonpos_wrap": lambda x: wraps.nonpos_wrap(x),
    "nsd_wrap": lambda x: wraps.nsd_wrap(cp.diag(x)),
    "SuppFuncAtom": _support,
}
OPERATORS = [
    AtomCase(name, "x", lambda f, x, make=make: make(x)) for name, make in MADE_BY_OPERATORS.items()
]
GEOMETRIC = [
    GeometricAtomCase("Prod"),
    GeometricAtomCase("cumprod"),
    GeometricAtomCase("diff_pos", "x y"),
    GeometricAtomCase("eye_minus_inv", "X", shape=(2, 2)),
    GeometricAtomCase("gmatmul", "x", _geometric_product),
    GeometricAtomCase("one_minus_pos"),
    GeometricAtomCase("pf_eigenvalue", "X", shape=(2, 2)),
    GeometricAtomCase("prod"),
    GeometricAtomCase("resolvent", "X", lambda f, X: f(X, 2.0), shape=(2, 2)),
]
ATOM_CASES = [
    case for case in [*AFFINE, *CONVEX, *CONCAVE, *OPERATORS, *GEOMETRIC] if case.is_there
]

_QUASI = "quasiconvex: CVXPY bisects (`qcp=True`), which is no single cone program"
_STEPWISE = "piecewise constant and only quasiconvex: its derivative is zero"
EXCLUDED_ATOMS = {
    "ceil": _STEPWISE,
    "floor": _STEPWISE,
    "sign": _STEPWISE,
    "condition_number": _QUASI,
    "dist_ratio": _QUASI,
    "gen_lambda_max": _QUASI,
    "length": _QUASI,
}
_ABSTRACT = "abstract: only its subclasses are made"
_NONLINEAR = "neither convex nor concave: for CVXPY's nonlinear solvers (`nlp=True`)"
_LOGIC = "of boolean variables: a mixed-integer program"
EXCLUDED_CLASSES = {
    **EXCLUDED_ATOMS,
    **dict.fromkeys(
        ("AffAtom", "AxisAtom", "BinaryOperator", "Elementwise", "LogicExpression",
         "UnaryOperator", "Wrap", "_NaryLogicExpression"),
        _ABSTRACT,
    ),
    **dict.fromkeys(("asinh", "atanh", "cos", "normcdf", "sin", "sinh", "tan", "tanh"), _NONLINEAR),
    **dict.fromkeys(("And", "Not", "Or", "Xor"), _LOGIC),
    "SymbolicQuadForm": "made by CVXPY's own reductions, never by a user",
}  # fmt: skip


def exported_atoms() -> set[str]:
    """Return every name of an atom, class or function, that `cvxpy.atoms` exports."""
    return {
        name
        for name, value in vars(cp.atoms).items()
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
    }


def atom_classes() -> set[str]:
    """Return the name of every class of atoms in CVXPY's package of atoms."""
    found, waiting = set(), [Atom]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        found.update(c.__name__ for c in subclasses if c.__module__.startswith("cvxpy.atoms."))
        waiting += subclasses
    return found
