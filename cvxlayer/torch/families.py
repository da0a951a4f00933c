# SPDX-License-Identifier: Apache-2.0
"""Implicit functions of tensors: `root`, `fixed_point`, `argmin`."""

from __future__ import annotations

from cvxlayer.families.functions import Families
from cvxlayer.torch.array_ops import TorchOps

_families = Families(TorchOps())
root = _families.root
fixed_point = _families.fixed_point
argmin = _families.argmin
