# SPDX-License-Identifier: Apache-2.0
"""Complex and Hermitian variables and parameters: CVXPY's answers, and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer import Layer
from cvxlayer.compiler import compile_problem
from cvxlayer.differentiate.reference import ReferenceDerivative
from cvxlayer.errors import ParameterValueError
from cvxlayer.program.parameters import from_coordinates, to_coordinates
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.dpp_problems import DppCase, Parts, Values
from tests.catalog.slopes import slope_by_differences, slope_by_gradient

TIGHT = Settings(eps_abs=1e-10, eps_rel=1e-10)
CVXPY_OPTIONS = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
TOLERANCE = 1e-5


def _complex(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def _hermitian(rng: np.random.Generator, order: int) -> np.ndarray:
    root = _complex(rng, order, order)
    return root + root.conj().T


def _definite(rng: np.random.Generator, order: int) -> np.ndarray:
    root = _complex(rng, order, order)
    return root @ root.conj().T + np.eye(order)


def _least_norm() -> Parts:
    z, A = cp.Variable(3, complex=True), cp.Parameter((2, 3), complex=True, name="A")
    c = cp.Parameter(3, complex=True, name="c")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - c)), [A @ z == 1, cp.norm(z) <= 1.5])
    return problem, [A, c], [z]


def _imaginary() -> Parts:
    z, t = cp.Variable(3, complex=True), cp.Variable(3, imag=True)
    c = cp.Parameter(3, imag=True, name="c")
    cost = cp.sum_squares(z - c - 1) + cp.sum_squares(t - z)
    return cp.Problem(cp.Minimize(cost), [cp.real(z[0]) <= 0.2, cp.abs(z[1]) <= 0.5]), [c], [z, t]


def _nearest_density_matrix() -> Parts:
    X, H = cp.Variable((3, 3), hermitian=True), cp.Parameter((3, 3), hermitian=True, name="H")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - H)), [X >> 0, cp.real(cp.trace(X)) == 1])
    return problem, [H], [X]


def _definite_form() -> Parts:
    z, M = cp.Variable(2, complex=True), cp.Parameter((2, 2), complex=True, PSD=True, name="M")
    c = cp.Parameter(2, complex=True, name="c")
    cost = cp.quad_form(z, M) - 2 * cp.real(cp.sum(cp.multiply(c, z)))
    return cp.Problem(cp.Minimize(cost), [cp.real(z) <= 0.3]), [M, c], [z]


def _concave_form() -> Parts:
    z, M = cp.Variable(2, complex=True), cp.Parameter((2, 2), complex=True, NSD=True, name="M")
    problem = cp.Problem(cp.Maximize(cp.quad_form(z - 1j, M)), [cp.real(z) >= 0.3])
    return problem, [M], [z]


def _eigenvalue() -> Parts:
    t, H = cp.Variable(3), cp.Parameter((3, 3), hermitian=True, name="H")
    cost = cp.lambda_max(H + cp.diag(t)) + 0.5 * cp.sum_squares(t)
    return cp.Problem(cp.Minimize(cost)), [H], [t]


CASES = [
    DppCase("least norm", _least_norm, lambda rng: [_complex(rng, 2, 3), _complex(rng, 3)]),
    DppCase("imaginary", _imaginary, lambda rng: [1j * rng.normal(size=3)]),
    DppCase("nearest density matrix", _nearest_density_matrix, lambda rng: [_hermitian(rng, 3)]),
    DppCase("definite form", _definite_form, lambda rng: [_definite(rng, 2), _complex(rng, 2)]),
    DppCase("concave form", _concave_form, lambda rng: [-_definite(rng, 2)]),
    DppCase("eigenvalue", _eigenvalue, lambda rng: [_hermitian(rng, 3)]),
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)


def solve(program: Any, values: Values) -> Any:
    rows = [to_coordinates(s, v) for s, v in zip(program.parameters, values, strict=True)]
    return program.solve(rows, backend=get_backend("clarabel"), settings=TIGHT)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate", "ignore:You are solving")
@each_case
def test_solution_and_value_are_those_of_cvxpy(case: DppCase, rng: Any) -> None:
    if cp.__version__.startswith("1.7") and case.name == "concave form":
        pytest.skip("#3: CVXPY 1.7 cannot reduce it")
    problem, parameters, variables = case.build()
    values = case.sample(rng)
    program = compile_problem(problem, parameters, variables)
    solution = solve(program, values)
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = value
    problem.solve(solver=cp.CLARABEL, **CVXPY_OPTIONS)
    assert solution.value[0] == pytest.approx(problem.value, abs=TOLERANCE)
    for output, spec, variable in zip(solution.outputs, program.outputs, variables, strict=True):
        assert spec.is_complex == variable.is_complex()
        array = from_coordinates(spec, output, ())
        np.testing.assert_allclose(array, variable.value, atol=TOLERANCE)


@each_case
def test_the_gradient_is_that_of_the_parts(case: DppCase, rng: Any) -> None:
    """A cotangent is ∂L/∂Re + i ∂L/∂Im, so that dL is the real part of Σ conj(bar) d."""
    problem, parameters, variables = case.build()
    program = compile_problem(problem, parameters, variables)
    values, change = (
        case.sample(rng),
        [v - w for v, w in zip(case.sample(rng), case.sample(rng), strict=True)],
    )
    weights = [rng.normal(size=(1, spec.size)) for spec in program.outputs]
    slope, residual = slope_by_gradient(program, values, change, weights)
    assert residual < 1e-8
    expected = slope_by_differences(program, values, change, weights)
    assert slope == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_gradient_of_a_hermitian_parameter_is_hermitian(rng: Any) -> None:
    problem, parameters, variables = _nearest_density_matrix()
    program = compile_problem(problem, parameters, variables)
    solution = solve(program, [_hermitian(rng, 3)])
    weights = [rng.normal(size=(1, spec.size)) for spec in program.outputs]
    (bar,), _ = program.vjp(solution, weights, derivative=ReferenceDerivative())
    gradient = from_coordinates(program.parameters[0], bar, ())
    np.testing.assert_allclose(gradient, gradient.conj().T, atol=1e-12)


@pytest.mark.parametrize(
    ("declared", "value", "words"),
    [
        ({"hermitian": True}, np.array([[1, 1j], [1j, 1]]), "Hermitian"),
        ({"hermitian": True}, np.array([[1j, 0], [0, 1]]), "Hermitian"),
        ({"imag": True}, np.array([[1.0, 0], [0, 1j]]), "imaginary"),
        ({"complex": True, "PSD": True}, np.array([[1, 2j], [-2j, 1]]), "positive semidefinite"),
        ({"complex": True, "symmetric": True}, np.array([[1, 2j], [-2j, 1]]), "symmetric"),
    ],
    ids=["not conjugate", "not real on the diagonal", "real part", "indefinite", "not symmetric"],
)
def test_values_outside_a_complex_domain_are_refused(
    declared: dict[str, bool], value: np.ndarray, words: str
) -> None:
    z, c = cp.Variable((2, 2), complex=True), cp.Parameter((2, 2), name="c", **declared)
    layer = Layer(cp.Problem(cp.Minimize(cp.sum_squares(z - c))), [c], [z])
    with pytest.raises(ParameterValueError, match=f"`c` at batch index 1 is outside .* be {words}"):
        layer(np.stack([np.zeros((2, 2)), value]))


def test_a_complex_value_of_a_real_parameter_is_refused() -> None:
    x, b = cp.Variable(2), cp.Parameter(2, name="b")
    layer = Layer(cp.Problem(cp.Minimize(cp.sum_squares(x - b))), [b], [x])
    with pytest.raises(ParameterValueError, match="`b` has the dtype complex128; it must be real"):
        layer(np.ones(2) * 1j)


@pytest.mark.parametrize(
    ("given", "complex_dtype", "real_dtype"),
    [
        (np.complex128, np.complex128, np.float64),
        (np.complex64, np.complex64, np.float32),
        (np.float32, np.complex64, np.float32),
        (np.float64, np.complex128, np.float64),
        (np.int64, np.complex128, np.float64),
    ],
    ids=str,
)
def test_results_have_the_dtype_of_the_values(
    given: Any, complex_dtype: Any, real_dtype: Any
) -> None:
    z, x, c = cp.Variable(2, complex=True), cp.Variable(2), cp.Parameter(2, complex=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - c) + cp.sum_squares(x - 1)))
    solution = Layer(problem, [c], [z, x]).solve(np.ones(2, dtype=given))
    assert [array.dtype for array in solution.variables] == [complex_dtype, real_dtype]
    assert solution.value.dtype == real_dtype


MAKE_CONSTANT: list[Callable[[Any], Any]] = [lambda c: c, lambda c: cp.real(c) + 1j * cp.imag(c)]


@pytest.mark.parametrize("make", MAKE_CONSTANT, ids=["itself", "its parts"])
def test_a_complex_parameter_that_is_no_input_is_a_constant(make: Any) -> None:
    z, c = cp.Variable(2, complex=True), cp.Parameter(2, complex=True, value=[1 + 2j, 3 - 1j])
    layer = Layer(cp.Problem(cp.Minimize(cp.sum_squares(z - make(c)))), [], [z])
    np.testing.assert_allclose(layer()[0], c.value, atol=1e-9)
