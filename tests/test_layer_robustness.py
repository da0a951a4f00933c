# SPDX-License-Identifier: Apache-2.0
"""Whatever values a layer is called with, it refuses them in words, raises once, or answers."""

from __future__ import annotations

import functools
import warnings

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxlayer import Layer, Status
from cvxlayer.errors import CvxLayerWarning, ParameterValueError, SolverError
from tests.catalog.fuzzing import search
from tests.catalog.wild_cone_programs import LAYOUTS, TROUBLE

# The last two parameters of each problem are bounds that may be infinite, upwards and downwards.
SIZE = 3
DTYPES = ("float64", "float32", "float16", "int64", "bool")


@functools.cache
def layer(name: str, on_failure: str) -> Layer:
    """Return a layer of a problem whose constraints and objective are wherever values put them."""
    x = cp.Variable(SIZE)
    matrix, offset = cp.Parameter((SIZE, SIZE)), cp.Parameter(SIZE)
    upper, lower = cp.Parameter(SIZE), cp.Parameter(SIZE)
    bounds = [x <= upper, lower <= x]
    problems = {
        "least squares": cp.Problem(cp.Minimize(cp.sum_squares(matrix @ x - offset)), bounds),
        "linear": cp.Problem(cp.Minimize(offset @ x), [matrix @ x <= 1.0, *bounds]),
        "equalities": cp.Problem(cp.Minimize(cp.sum_squares(x)), [matrix @ x == offset, *bounds]),
        "ball": cp.Problem(cp.Maximize(offset @ x), [cp.norm(matrix @ x) <= 1.0, *bounds]),
    }
    parameters = [matrix, offset, upper, lower]
    return Layer(problems[name], parameters, [x], on_failure=on_failure)


PROBLEMS = ("least squares", "linear", "equalities", "ball")


@st.composite
def calls(draw, dtypes=DTYPES) -> list[np.ndarray]:
    """Values of the four parameters, some without a batch, some with entries that are trouble."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    batch = draw(st.sampled_from([0, 1, 2, 5, 11]))
    scale = 10.0 ** draw(st.sampled_from([0, 0, -6, 6]))
    values = []
    for position, shape in enumerate([(SIZE, SIZE), (SIZE,), (SIZE,), (SIZE,)]):
        lead = draw(st.sampled_from([(), (1,), (batch,)]))
        value = scale * np.round(2 * rng.standard_normal(lead + shape))
        value += {2: 3.0, 3: -3.0}.get(position, 0.0)
        dtype = draw(st.sampled_from(dtypes))
        value = (
            np.clip(value, -6e4, 6e4).astype(dtype) if dtype == "float16" else value.astype(dtype)
        )
        if value.dtype == np.float64 and value.size:
            for at, entry in draw(
                st.lists(st.tuples(st.integers(0, 40), st.sampled_from(TROUBLE)), max_size=2)
            ):
                value.flat[at % value.size] = entry
        values.append(_laid_out(value, draw(st.sampled_from(LAYOUTS))))
    return values


def _laid_out(value: np.ndarray, layout: str) -> np.ndarray:
    if layout == "columns":
        return np.asfortranarray(value)
    if layout == "strided":
        return np.repeat(value, 2, axis=-1)[..., ::2]
    return value[..., ::-1].copy()[..., ::-1] if layout == "backwards" else value


def must_refuse(values: list[np.ndarray]) -> bool:
    """Whether some number is none, or infinite where that is no bound."""
    allowed = (None, None, np.inf, -np.inf)
    return any(
        (~np.isfinite(value) & ((side is None) | (value != (side or 0.0)))).any()
        for value, side in zip(values, allowed, strict=True)
    )


@pytest.mark.parametrize("name", PROBLEMS)
@search(60)
@given(values=calls())
def test_values_are_refused_or_every_row_ends_with_a_status(name, values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CvxLayerWarning)
        if must_refuse(values):
            with pytest.raises(ParameterValueError):
                layer(name, "nan")(*values)
            return
        solution = layer(name, "nan").solve(*values)
    (x,), status = solution.variables, np.asarray(solution.status)
    has_solution = status <= Status.INACCURATE
    assert np.isnan(x[~has_solution]).all()
    assert not np.isnan(x[has_solution]).any()


@pytest.mark.parametrize("name", PROBLEMS)
@search(40)
@given(values=calls())
def test_one_error_names_exactly_the_rows_that_are_nan_otherwise(name, values):
    if must_refuse(values):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CvxLayerWarning)
        status = np.asarray(layer(name, "nan").solve(*values).status)
        failed = np.argwhere(status > Status.INACCURATE)
        expected = [tuple(index) if len(index) != 1 else index[0] for index in failed.tolist()]
        if not expected:
            layer(name, "raise")(*values)
            return
        with pytest.raises(SolverError) as caught:
            layer(name, "raise")(*values)
    assert caught.value.indices == expected
    assert caught.value.statuses == [Status(code) for code in status[status > Status.INACCURATE]]


@pytest.mark.parametrize("name", PROBLEMS)
@search(40)
@given(values=calls(dtypes=("float64",)))
def test_torch_gives_the_bits_of_numpy_and_failed_rows_give_no_gradient(name, values):
    torch = pytest.importorskip("torch")
    if must_refuse(values):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CvxLayerWarning)
        (expected,) = layer(name, "nan")(*values)
        batch = expected.shape[:-1]
        # Each row with its own values, so that its gradient can be told apart.
        whole = [np.broadcast_to(value, batch + value.shape[-n:]) for value, n in _ranks(values)]
        (plain,) = layer(name, "nan")(*whole)
        tensors = [torch.tensor(value.copy(), requires_grad=True) for value in whole]
        (x,) = layer(name, "nan")(*tensors)
        np.testing.assert_array_equal(x.detach().numpy(), plain)
        torch.nansum(x).backward()
    failed = np.isnan(plain).any(axis=-1)
    for tensor in tensors:
        assert (tensor.grad.numpy()[failed] == 0.0).all()


def _ranks(values: list[np.ndarray]) -> list[tuple[np.ndarray, int]]:
    return list(zip(values, (2, 1, 1, 1), strict=True))
