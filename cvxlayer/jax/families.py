# SPDX-License-Identifier: Apache-2.0
"""Implicit functions of JAX arrays: `root`, `fixed_point`, `argmin`."""

from __future__ import annotations

from cvxlayer.families.functions import Families
from cvxlayer.jax.array_ops import JaxOps

_families = Families(JaxOps())
root = _families.root
fixed_point = _families.fixed_point
argmin = _families.argmin
