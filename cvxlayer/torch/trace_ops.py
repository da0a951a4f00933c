# SPDX-License-Identifier: Apache-2.0
"""The functions that PyTorch lends to `tracing` and to the rules of cone programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


@dataclasses.dataclass(frozen=True)
class TorchOps:
    """Functions of float64 tensors on one device; see `TraceOps`.

    Attributes:
        device: of the values.
    """

    device: torch.device

    def take(self, rows: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        """Return `rows[..., index]`."""
        return rows.index_select(-1, self.constant(index))

    def segment_sum(self, rows: torch.Tensor, index: np.ndarray, size: int) -> torch.Tensor:
        """Return the last axis summed by index."""
        total = rows.new_zeros((*rows.shape[:-1], size))
        return total.index_add(-1, self.constant(index), rows)

    def where(self, condition: torch.Tensor, rows: Any, otherwise: Any) -> torch.Tensor:
        """Choose by entry."""
        return torch.where(condition, rows, otherwise)

    def broadcast_to(self, rows: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Return rows repeated to a shape."""
        return rows.broadcast_to(shape)

    def constant(self, array: np.ndarray) -> torch.Tensor:
        """Return a constant as a tensor."""
        return torch.from_numpy(array).to(self.device)

    def log(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the natural logarithm."""
        return rows.log()

    def exp(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the exponential."""
        return rows.exp()

    def isinf(self, rows: torch.Tensor) -> torch.Tensor:
        """Tell which entries are infinite."""
        return rows.isinf()

    def constant_of(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the same values without derivative."""
        return rows.detach()

    def concatenate(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Join along the last axis."""
        return torch.cat(list(parts), dim=-1)

    def to_real(self, values: torch.Tensor) -> torch.Tensor:
        """Return (..., 2) real and imaginary parts."""
        return torch.view_as_real(values.to(torch.complex128))

    def to_complex(self, parts: torch.Tensor) -> torch.Tensor:
        """Return complex values from (..., 2) real and imaginary parts."""
        return torch.view_as_complex(parts.contiguous())
