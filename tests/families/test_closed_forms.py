# SPDX-License-Identifier: Apache-2.0
"""Values and derivatives of the catalogue, in both frameworks, against closed forms."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.catalog.frameworks import FRAMEWORKS, Kit, make_kit
from tests.catalog.implicit_programs import IMPLICIT_PROGRAMS, ImplicitProgram

VALUE_TOLERANCE = 1e-12
DERIVATIVE_TOLERANCE = 1e-10

each_program = pytest.mark.parametrize("program", IMPLICIT_PROGRAMS, ids=str)


@functools.cache
def derivatives(framework: str, program: ImplicitProgram) -> dict[str, np.ndarray]:
    """Every kind of derivative, from one compilation."""
    kit = make_kit(framework)
    with kit.double_precision():
        function = program.make(kit)
        kinds = {
            "value": function,
            "reverse": kit.jacrev(function),
            "forward": kit.jacfwd(function),
            "forward over reverse": kit.jacfwd(kit.jacrev(function)),
            "reverse over reverse": kit.jacrev(kit.jacrev(function)),
        }
        evaluate = kit.compile(lambda theta: {k: f(theta) for k, f in kinds.items()})
        return {k: kit.to_numpy(v) for k, v in evaluate(kit.array(program.theta)).items()}


@each_program
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_value_is_the_closed_form(framework: str, program: ImplicitProgram) -> None:
    error = derivatives(framework, program)["value"] - program.truth.value
    assert np.max(np.abs(error)) <= VALUE_TOLERANCE


@each_program
@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_jacobian_is_the_closed_form(
    framework: str, program: ImplicitProgram, mode: str
) -> None:
    error = derivatives(framework, program)[mode] - program.truth.jacobian
    assert np.max(np.abs(error)) <= DERIVATIVE_TOLERANCE


@each_program
@pytest.mark.parametrize("mode", ["forward over reverse", "reverse over reverse"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_hessian_is_the_closed_form(
    framework: str, program: ImplicitProgram, mode: str
) -> None:
    error = derivatives(framework, program)[mode] - program.truth.hessian
    assert np.max(np.abs(error)) <= DERIVATIVE_TOLERANCE


@each_program
def test_torch_and_jax_agree(program: ImplicitProgram) -> None:
    torch, jax = (derivatives(framework, program) for framework in FRAMEWORKS)
    for kind in torch:
        tolerance = VALUE_TOLERANCE if kind == "value" else DERIVATIVE_TOLERANCE
        assert np.max(np.abs(torch[kind] - jax[kind])) <= tolerance, kind


@pytest.mark.parametrize("program", IMPLICIT_PROGRAMS[3:6], ids=str)
def test_a_mapped_gradient_is_that_of_each_instance(kit: Kit, program: ImplicitProgram) -> None:
    function = program.make(kit)
    gradient = kit.grad(lambda theta: kit.numpy.sum(function(theta) ** 2))
    thetas = kit.array(np.stack([1.01 * program.theta, program.theta]))
    mapped = kit.to_numpy(kit.compile(kit.vmap(gradient))(thetas))
    expected = 2.0 * program.truth.jacobian.T @ program.truth.value
    assert np.max(np.abs(mapped[1] - expected)) <= DERIVATIVE_TOLERANCE
