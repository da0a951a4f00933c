# SPDX-License-Identifier: Apache-2.0
"""Symmetric matrices that are positive semidefinite but for rounding, and some that are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class MatrixCase:
    """A way to make a matrix, and whether the result counts as positive semidefinite.

    Attributes:
        name: for the name of the test.
        build: makes an n × n matrix.
        is_convex: whether it is positive semidefinite up to rounding.
    """

    name: str
    build: Callable[[np.random.Generator, int], np.ndarray]
    is_convex: bool = True

    def __str__(self) -> str:
        return self.name


def _gram(rng: np.random.Generator, n: int) -> np.ndarray:
    root = rng.normal(size=(n, max(1, n // 3)))
    return root @ root.T


def _gram_in_single_precision(rng: np.random.Generator, n: int) -> np.ndarray:
    # All entries of the root are near one: the largest eigenvalue is about n.
    root = (1.0 + 0.1 * rng.normal(size=(n, max(1, n // 3)))).astype(np.float32)
    return (root @ root.T).astype(float)


def _sparse_gram(rng: np.random.Generator, n: int) -> np.ndarray:
    root = rng.normal(size=(n, n)) * (rng.random((n, n)) < 0.1)
    root[:, n // 2 :] = 0.0
    return root @ root.T


def _covariance_of_a_constant(rng: np.random.Generator, n: int) -> np.ndarray:
    """E[xxᵀ] − E[x]E[x]ᵀ where one feature is constant, so that its variance is rounding."""
    samples = rng.normal(size=(2 * n, n))
    samples[:, 0] = np.pi
    mean = samples.mean(axis=0)
    return samples.T @ samples / len(samples) - np.outer(mean, mean)


def _clipped(rng: np.random.Generator, n: int) -> np.ndarray:
    """A symmetric matrix without its negative eigenvalues."""
    values, vectors = np.linalg.eigh(_symmetric(rng, n))
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def _badly_scaled(rng: np.random.Generator, n: int) -> np.ndarray:
    size = 10.0 ** rng.uniform(-3, 3, n)
    return _gram(rng, n) * size * size[:, None]


def _ones(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.ones((n, n)) * rng.uniform(0.1, 10.0)


def _zero(rng: np.random.Generator, n: int) -> np.ndarray:
    del rng
    return np.zeros((n, n))


def _symmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    """With eigenvalues of both signs."""
    root = rng.normal(size=(n, n))
    return root + root.T - np.trace(root) * (2.0 / n) * np.eye(n)


def _slightly_indefinite(rng: np.random.Generator, n: int) -> np.ndarray:
    """One eigenvalue of −10⁻⁴ beside others of about one."""
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = rng.uniform(0.5, 2.0, n)
    values[0] = -1e-4
    return (basis * values) @ basis.T


def _badly_scaled_indefinite(rng: np.random.Generator, n: int) -> np.ndarray:
    size = 10.0 ** rng.uniform(-0.7, 0.7, n)
    return _slightly_indefinite(rng, n) * size * size[:, None]


def _hollow(rng: np.random.Generator, n: int) -> np.ndarray:
    """Zeros on the diagonal and something beside them."""
    matrix = _symmetric(rng, n)
    np.fill_diagonal(matrix, 0.0)
    return matrix


def _negative_diagonal(rng: np.random.Generator, n: int) -> np.ndarray:
    diagonal = rng.uniform(0.5, 2.0, n)
    diagonal[-1] = -1e-5
    return np.diag(diagonal)


def _negative(rng: np.random.Generator, n: int) -> np.ndarray:
    return -np.eye(n) * rng.uniform(1e-9, 1e9)


MATRICES = [
    MatrixCase("gram", _gram),
    MatrixCase("gram-single", _gram_in_single_precision),
    MatrixCase("gram-sparse", _sparse_gram),
    MatrixCase("covariance", _covariance_of_a_constant),
    MatrixCase("clipped", _clipped),
    MatrixCase("badly-scaled", _badly_scaled),
    MatrixCase("ones", _ones),
    MatrixCase("zero", _zero),
    MatrixCase("symmetric", _symmetric, is_convex=False),
    MatrixCase("slightly-indefinite", _slightly_indefinite, is_convex=False),
    MatrixCase("badly-scaled-indefinite", _badly_scaled_indefinite, is_convex=False),
    MatrixCase("hollow", _hollow, is_convex=False),
    MatrixCase("negative-diagonal", _negative_diagonal, is_convex=False),
    MatrixCase("negative", _negative, is_convex=False),
]
