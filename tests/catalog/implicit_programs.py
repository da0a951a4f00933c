# SPDX-License-Identifier: Apache-2.0
"""Implicit functions whose value, Jacobian and Hessian are known in closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.catalog.frameworks import Kit

TOLERANCE = 1e-13


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """The solution (n), its Jacobian (n, p) and Hessian (n, p, p) in θ (p)."""

    value: np.ndarray
    jacobian: np.ndarray
    hessian: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ImplicitProgram:
    """A function of θ (p) that is defined by an equation or a minimum.

    Attributes:
        name: for test ids.
        theta: where to evaluate.
        make: kit ↦ (θ ↦ z).
        truth: the closed form.
    """

    name: str
    theta: np.ndarray
    make: Callable[[Kit], Callable[[Any], Any]]
    truth: Truth

    def __str__(self) -> str:
        return self.name


def ridge() -> ImplicitProgram:
    """minimize ½‖X w − y‖² + ½ λ ‖w‖²: w′ = −M⁻¹ w, w″ = 2 M⁻² w with M = XᵀX + λ I."""
    X, y, lam = _regression(1)
    M = X.T @ X + lam * np.eye(X.shape[1])
    w = np.linalg.solve(M, X.T @ y)
    first = -np.linalg.solve(M, w)

    def make(kit: Kit) -> Callable[[Any], Any]:
        features, labels = kit.array(X), kit.array(y)

        @kit.implicit.argmin(tolerance=TOLERANCE)
        def fit(w: Any, theta: Any) -> Any:
            errors = features @ w - labels
            return 0.5 * kit.numpy.sum(errors**2) + 0.5 * theta[0] * kit.numpy.sum(w**2)

        return lambda theta: fit(kit.array(np.zeros(X.shape[1])), theta)

    return _scalar("ridge", lam, make, w, first, -2.0 * np.linalg.solve(M, first))


def lasso() -> ImplicitProgram:
    """The same with λ ‖w‖₁, as the fixed point of a proximal step; affine on its support."""
    X, y, _ = _regression(2)
    lam, step = 2.0, 1.0 / np.linalg.norm(X, 2) ** 2
    w = np.zeros(X.shape[1])
    for _ in range(5000):
        w = w - step * X.T @ (X @ w - y)
        w = np.sign(w) * np.maximum(np.abs(w) - step * lam, 0.0)
    support = np.flatnonzero(w)
    assert 0 < len(support) < len(w)
    gram = X[:, support].T @ X[:, support]
    signs = np.sign(w[support])
    w[support] = np.linalg.solve(gram, X[:, support].T @ y - lam * signs)
    first = np.zeros_like(w)
    first[support] = -np.linalg.solve(gram, signs)

    def make(kit: Kit) -> Callable[[Any], Any]:
        features, labels, numpy = kit.array(X), kit.array(y), kit.numpy

        @kit.implicit.fixed_point(tolerance=TOLERANCE)
        def shrink(w: Any, theta: Any) -> Any:
            moved = w - step * (features.T @ (features @ w - labels))
            is_kept = numpy.abs(moved) > step * theta[0]
            return numpy.where(is_kept, moved - step * theta[0] * numpy.sign(moved), 0.0 * moved)

        return lambda theta: shrink(kit.array(np.zeros(X.shape[1])), theta)

    return _scalar("lasso", lam, make, w, first, np.zeros_like(w))


def logistic() -> ImplicitProgram:
    """Logistic regression with ½ λ ‖w‖²: w′ = −H⁻¹ w, w″ = −H⁻¹ (D³f[w′, w′] + 2 w′)."""
    X, y, lam = _regression(3)
    X, y = 0.5 * X, np.sign(y)
    w = np.zeros(X.shape[1])
    for _ in range(50):
        sigma = 1.0 / (1.0 + np.exp(y * (X @ w)))
        H = X.T @ ((sigma * (1 - sigma))[:, None] * X) + lam * np.eye(len(w))
        w = w - np.linalg.solve(H, -X.T @ (y * sigma) + lam * w)
    first = -np.linalg.solve(H, w)
    third = X.T @ (-y * sigma * (1 - sigma) * (1 - 2 * sigma) * (X @ first) ** 2)
    second = -np.linalg.solve(H, third + 2.0 * first)

    def make(kit: Kit) -> Callable[[Any], Any]:
        features, labels, numpy = kit.array(X), kit.array(y), kit.numpy

        @kit.implicit.argmin(tolerance=TOLERANCE)
        def fit(w: Any, theta: Any) -> Any:
            losses = numpy.log1p(numpy.exp(-labels * (features @ w)))
            return numpy.sum(losses) + 0.5 * theta[0] * numpy.sum(w**2)

        return lambda theta: fit(kit.array(np.zeros(X.shape[1])), theta)

    return _scalar("logistic regression", lam, make, w, first, second)


def simplex_projection() -> ImplicitProgram:
    """minimize ½‖x − y‖² over the unit simplex: I − 11ᵀ/k on the support."""
    y = np.array([0.9, 0.3, -0.4, 0.5])
    support = np.array([0, 1, 3])
    value = np.zeros(4)
    value[support] = y[support] + (1.0 - y[support].sum()) / 3.0
    jacobian = np.zeros((4, 4))
    jacobian[np.ix_(support, support)] = np.eye(3) - 1.0 / 3.0

    def make(kit: Kit) -> Callable[[Any], Any]:
        numpy = kit.numpy
        project = kit.implicit.argmin(
            lambda x, y: 0.5 * numpy.sum((x - y) ** 2),
            equality=lambda x, y: numpy.sum(x) - 1.0,
            inequality=lambda x, y: -x,
            tolerance=TOLERANCE,
        )
        return lambda theta: project(kit.array(np.full(4, 0.25)), theta)

    return ImplicitProgram(
        "simplex projection", y, make, Truth(value, jacobian, np.zeros((4, 4, 4)))
    )


def ball_projection() -> ImplicitProgram:
    """minimize ½‖x − y‖² subject to ‖x‖² ≤ 1, from outside: x = y/‖y‖."""
    y = np.array([1.2, -0.7, 0.4])
    r, eye = np.linalg.norm(y), np.eye(3)
    x = y / r
    jacobian = (eye - np.outer(x, x)) / r
    pairs = (
        np.einsum("ij,k->ijk", eye, x)
        + np.einsum("ik,j->ijk", eye, x)
        + np.einsum("jk,i->ijk", eye, x)
    )
    hessian = (3.0 * np.einsum("i,j,k->ijk", x, x, x) - pairs) / r**2

    def make(kit: Kit) -> Callable[[Any], Any]:
        numpy = kit.numpy
        project = kit.implicit.argmin(
            lambda x, y: 0.5 * numpy.sum((x - y) ** 2),
            inequality=lambda x, y: numpy.sum(x**2) - 1.0,
            tolerance=TOLERANCE,
        )
        return lambda theta: project(kit.array(np.zeros(3)), theta)

    return ImplicitProgram("ball projection", y, make, Truth(x, jacobian, hessian))


def equilibrium() -> ImplicitProgram:
    """A small DEQ, z = tanh(W z + b): z′ = (I − D W)⁻¹ D, and once more."""
    rng = np.random.default_rng(4)
    W, b = 0.4 * rng.standard_normal((4, 4)), rng.standard_normal(4)
    z = np.zeros(4)
    for _ in range(500):
        z = np.tanh(W @ z + b)
    D = 1.0 - z**2
    inverse = np.linalg.inv(np.eye(4) - D[:, None] * W)
    jacobian = inverse * D
    inner = W @ jacobian + np.eye(4)
    curvature = (-2.0 * z * D)[:, None, None] * inner[:, :, None] * inner[:, None, :]
    hessian = np.einsum("ij,jkl->ikl", inverse, curvature)

    def make(kit: Kit) -> Callable[[Any], Any]:
        weight = kit.array(W)
        layer = kit.implicit.fixed_point(
            lambda z, b: kit.numpy.tanh(weight @ z + b), tolerance=TOLERANCE
        )
        return lambda theta: layer(kit.array(np.zeros(4)), theta)

    return ImplicitProgram("equilibrium", b, make, Truth(z, jacobian, hessian))


def equality_program() -> ImplicitProgram:
    """minimize ½ xᵀ(P + θ I) x + qᵀx subject to A x = b: x′ = −Π x, x″ = 2 Π² x.

    Π is the upper left block of the inverse KKT matrix.
    """
    rng = np.random.default_rng(5)
    root, A = rng.standard_normal((5, 5)), rng.standard_normal((2, 5))
    P, q, b, theta = root @ root.T, rng.standard_normal(5), rng.standard_normal(2), 0.7
    kkt = np.block([[P + theta * np.eye(5), A.T], [A, np.zeros((2, 2))]])
    inverse = np.linalg.inv(kkt)
    x = (inverse @ np.concatenate([-q, b]))[:5]
    block = inverse[:5, :5]

    def make(kit: Kit) -> Callable[[Any], Any]:
        matrix, cost, rows, right = (kit.array(array) for array in (P, q, A, b))
        program = kit.implicit.argmin(
            lambda x, theta: 0.5 * x @ (matrix @ x + theta[0] * x) + cost @ x,
            equality=lambda x, theta: rows @ x - right,
            tolerance=TOLERANCE,
        )
        return lambda theta: program(kit.array(np.zeros(5)), theta)

    return _scalar("equality program", theta, make, x, -block @ x, 2.0 * block @ block @ x)


def cube_root() -> ImplicitProgram:
    """z³ = θ, elementwise."""
    theta = np.array([0.5, 2.0, 3.0])
    eye = np.eye(3)
    jacobian = eye * (theta ** (-2.0 / 3.0) / 3.0)
    hessian = np.einsum("ij,ik,i->ijk", eye, eye, -2.0 / 9.0 * theta ** (-5.0 / 3.0))

    def make(kit: Kit) -> Callable[[Any], Any]:
        solve = kit.implicit.root(lambda z, theta: z**3 - theta, tolerance=TOLERANCE)
        return lambda theta: solve(kit.array(np.ones(3)), theta)

    return ImplicitProgram("cube root", theta, make, Truth(np.cbrt(theta), jacobian, hessian))


def _regression(seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((12, 4))
    return X, X @ np.array([1.0, 0.0, -2.0, 0.1]) + 0.3 * rng.standard_normal(12), 0.8


def _scalar(
    name: str,
    theta: float,
    make: Callable[[Kit], Callable[[Any], Any]],
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> ImplicitProgram:
    truth = Truth(value, first[:, None], second[:, None, None])
    return ImplicitProgram(name, np.array([theta]), make, truth)


IMPLICIT_PROGRAMS = [
    ridge(),
    lasso(),
    logistic(),
    simplex_projection(),
    ball_projection(),
    equilibrium(),
    equality_program(),
    cube_root(),
]
