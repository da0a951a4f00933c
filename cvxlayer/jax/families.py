# SPDX-License-Identifier: Apache-2.0
"""Implicit functions of JAX arrays: `root`, `fixed_point`, `argmin`."""

from __future__ import annotations

from cvxlayer.differentiate.backward import Exact, Neumann, OneStep, Phantom, Unroll
from cvxlayer.differentiate.krylov import CG, GMRES, LSMR, BiCGStab
from cvxlayer.differentiate.linear_solvers import LU, Cholesky
from cvxlayer.families.anderson import Anderson
from cvxlayer.families.functions import Families
from cvxlayer.families.interior_point import InteriorPoint
from cvxlayer.families.iteration import Picard
from cvxlayer.families.lbfgs import LBFGS
from cvxlayer.families.newton import Newton
from cvxlayer.jax.array_ops import JaxOps

_families = Families(JaxOps())
root = _families.root
fixed_point = _families.fixed_point
argmin = _families.argmin

__all__ = [
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
