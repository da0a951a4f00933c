# SPDX-License-Identifier: Apache-2.0
"""Convex optimization layers, and implicit functions, of JAX arrays."""

from cvxlayer.jax.families import (
    CG,
    GMRES,
    LBFGS,
    LSMR,
    LU,
    Anderson,
    BiCGStab,
    Cholesky,
    Exact,
    InteriorPoint,
    Neumann,
    Newton,
    OneStep,
    Phantom,
    Picard,
    Unroll,
    argmin,
    fixed_point,
    root,
)
from cvxlayer.jax.layer import Layer

__all__ = [
    "Layer",
    "root",
    "fixed_point",
    "argmin",
    "Exact",
    "Neumann",
    "Phantom",
    "OneStep",
    "Unroll",
    "Newton",
    "Anderson",
    "Picard",
    "LBFGS",
    "InteriorPoint",
    "LU",
    "Cholesky",
    "CG",
    "GMRES",
    "BiCGStab",
    "LSMR",
]
