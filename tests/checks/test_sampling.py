# SPDX-License-Identifier: Apache-2.0
"""Sampled values lie in the declared domains; given ones are read and judged."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxlayer.canonicalize.leaves import domain_of
from cvxlayer.checks.sampling import read_values, sample_values
from cvxlayer.domains import find_violation
from cvxlayer.errors import ParameterValueError, ProblemFileError, ShapeError
from cvxlayer.inputs import InputRule
from cvxlayer.program.parameters import ParameterSpec

EPSILON = float(np.finfo(np.float64).eps)
SPARSITY = (np.array([0, 2]), np.array([1, 0]))
DECLARATIONS = [
    {},
    {"nonneg": True},
    {"nonpos": True},
    {"pos": True},
    {"neg": True},
    {"symmetric": True},
    {"PSD": True},
    {"NSD": True},
    {"diag": True},
    {"integer": True},
    {"boolean": True},
    {"bounds": [-2.0, 0.5]},
    {"bounds": [3.0, np.inf]},
    {"bounds": [-np.inf, np.arange(9.0).reshape(3, 3)]},
    {"sparsity": SPARSITY},
]


def spec_of(**declared) -> ParameterSpec:
    parameter = cp.Parameter((3, 3), name="theta", **declared)
    return ParameterSpec("theta", (3, 3), domain_of(parameter))


def inside(spec: ParameterSpec, rng: np.random.Generator) -> np.ndarray:
    """A value of the domain, made without the code under test."""
    value, domain = 2 * rng.normal(size=(3, 3)), spec.domain
    if domain.is_psd or domain.is_nsd:
        value = (1 if domain.is_psd else -1) * value @ value.T
    if domain.is_nonneg or domain.is_pos:
        value = np.abs(value)
    if domain.is_nonpos or domain.is_neg:
        value = -np.abs(value)
    if domain.is_symmetric:
        value = value + value.T
    if domain.is_diag:
        value = np.diag(np.diag(value))
    if domain.is_integer:
        value = np.round(value)
    if domain.is_boolean:
        value = (value > 0).astype(float)
    if domain.sparsity is not None:
        value = value * domain.sparsity
    has_bounds = domain.lower is not None or domain.upper is not None
    return np.clip(value, domain.lower, domain.upper) if has_bounds else value


def is_inside(spec: ParameterSpec, rows: np.ndarray) -> bool:
    return find_violation(spec.domain, rows.reshape(-1, *spec.shape), EPSILON) is None


def rule_of(spec: ParameterSpec) -> InputRule:
    return InputRule.of(spec, np.zeros(spec.size, dtype=np.int8))


@pytest.mark.parametrize("declared", DECLARATIONS, ids=str)
def test_drawn_values_lie_in_the_domain_and_differ(declared):
    spec = spec_of(**declared)
    values = sample_values([spec], [None], batch=16, seed=3)
    assert values.rows[0].shape == (16, 9)
    assert is_inside(spec, values.rows[0])
    assert len(np.unique(values.rows[0], axis=0)) > 8
    assert values.sources == ("drawn",)
    assert not values.is_given


@pytest.mark.parametrize("declared", DECLARATIONS, ids=str)
def test_values_near_that_of_the_file_lie_in_the_domain(declared, rng):
    spec = spec_of(**declared)
    center = inside(spec, rng)
    values = sample_values([spec], [center], batch=16, seed=3)
    assert is_inside(spec, values.rows[0])
    deviation = np.abs(values.rows[0].reshape(-1, 3, 3) - center).max()
    assert deviation <= 2.0 * max(1.0, float(np.abs(center).max()))
    assert values.sources == ("near the file's value",)


def test_the_seed_decides_the_values():
    first, again, other = (sample_values([spec_of()], [None], 4, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.rows[0], again.rows[0])
    assert not np.array_equal(first.rows[0], other.rows[0])


def test_attributes_that_leave_nothing_are_refused():
    spec = spec_of(bounds=[0.2, 0.4])
    object.__setattr__(spec.domain, "is_integer", True)
    with pytest.raises(ParameterValueError, match=r"No value could be drawn for `theta`.*--values"):
        sample_values([spec], [None], batch=4, seed=0)


def test_given_values_are_read_with_and_without_a_batch(tmp_path, rng):
    alpha, beta = ParameterSpec("alpha", (2,)), ParameterSpec("beta", ())
    path = tmp_path / "values.npz"
    alphas = rng.normal(size=(5, 2)).astype(np.float32)
    np.savez(path, alpha=alphas, beta=3)
    values = read_values(path, (rule_of(alpha), rule_of(beta)), [None, None])
    assert values.batch == 5
    assert values.is_given
    assert np.array_equal(values.rows[0], alphas.astype(np.float64))
    assert values.rows[1].tolist() == [[3.0]]


def test_a_value_of_the_file_stands_in_for_one_not_given(tmp_path):
    path = tmp_path / "values.npz"
    np.savez(path, alpha=np.ones(2))
    rules = (rule_of(ParameterSpec("alpha", (2,))), rule_of(ParameterSpec("beta", ())))
    values = read_values(path, rules, [None, np.array(7.0)])
    assert values.rows[1].tolist() == [[7.0]]
    assert values.sources == ("from values.npz", "the file's value")


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({}, ParameterValueError, "has no value for the parameter `alpha`"),
        ({"alpah": np.ones(2)}, ParameterValueError, r"holds `alpah`.*Did you mean `alpha`\?"),
        ({"alpha": np.ones(3)}, ShapeError, r"`alpha` has shape \(3,\)"),
        ({"alpha": np.array([1, np.nan])}, ParameterValueError, "contains NaN"),
        ({"alpha": np.array(["a", "b"])}, ParameterValueError, r"`alpha` in .* has the dtype <U1"),
    ],
)
def test_given_values_that_do_not_fit_are_refused(tmp_path, arrays, error, message):
    path = tmp_path / "values.npz"
    np.savez(path, **arrays)
    with pytest.raises(error, match=message):
        read_values(path, (rule_of(ParameterSpec("alpha", (2,))),), [None])


def test_values_cannot_be_given_by_a_name_that_two_parameters_share(tmp_path):
    path = tmp_path / "values.npz"
    np.savez(path, alpha=np.ones(2))
    rules = (rule_of(ParameterSpec("alpha", (2,))),) * 2
    with pytest.raises(ParameterValueError, match="2 parameters of the problem are named `alpha`"):
        read_values(path, rules, [None, None])


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    rules = (rule_of(ParameterSpec("alpha", (2,))),)
    text, single = tmp_path / "text.npz", tmp_path / "single.npy"
    text.write_text("hello", encoding="utf-8")
    np.save(single, np.ones(2))
    for path in (text, single, tmp_path / "missing.npz"):
        with pytest.raises(ProblemFileError, match=r"cannot be read: .*numpy.savez"):
            read_values(path, rules, [None])
