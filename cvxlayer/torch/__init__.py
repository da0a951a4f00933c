# SPDX-License-Identifier: Apache-2.0
"""Convex problems as PyTorch modules: `from cvxlayer.torch import Layer`."""

from cvxlayer.torch.layer import Layer

__all__ = ["Layer"]
