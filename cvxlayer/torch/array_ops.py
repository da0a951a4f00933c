# SPDX-License-Identifier: Apache-2.0
"""What PyTorch lends to the derivative engine: `ArrayOps` for tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from cvxlayer.differentiate.array_ops import Arrays, RowFunction
from cvxlayer.differentiate.implicit import Equation
from cvxlayer.errors import UnsupportedDerivativeError
from cvxlayer.torch import captured, implicit

_CORE: Any = torch._C  # pyright: ignore[reportPrivateUsage]
_FUNCTORCH: Any = _CORE._functorch


class TorchOps:
    """`ArrayOps` of PyTorch; methods are documented there."""

    numpy: Any = torch

    def flatten(self, tree: Any) -> tuple[list[Any], Any]:
        """Return the leaves and the structure of a pytree."""
        return pytree.tree_flatten(tree)

    def unflatten(self, definition: Any, leaves: Sequence[Any]) -> Any:
        """Undo `flatten`."""
        return pytree.tree_unflatten(leaves, definition)

    def is_array(self, leaf: Any) -> bool:
        """Whether a leaf is a tensor."""
        return isinstance(leaf, torch.Tensor)

    def is_real(self, array: torch.Tensor) -> bool:
        """Whether the dtype is a floating-point one."""
        return array.dtype.is_floating_point

    def is_concrete(self, array: torch.Tensor) -> bool:
        """Whether values can be read: not under `vmap`."""
        while _FUNCTORCH.is_functorch_wrapped_tensor(array):
            if _FUNCTORCH.is_batchedtensor(array):
                return False
            array = _FUNCTORCH.get_unwrapped(array)
        return True

    def to_numpy(self, array: torch.Tensor) -> np.ndarray:
        """Return the values in host memory."""
        while _FUNCTORCH.is_functorch_wrapped_tensor(array):
            array = _FUNCTORCH.get_unwrapped(array)
        # Not by `numpy`: under a transform even its `detach` would wrap the tensor again.
        return np.asarray(array.tolist())

    def cast(self, array: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the tensor in another dtype."""
        return array.to(dtype)

    def eye(self, size: int, like: torch.Tensor) -> torch.Tensor:
        """Return the identity."""
        return torch.eye(size, dtype=like.dtype, device=like.device)

    def random_like(self, array: torch.Tensor, seed: int) -> torch.Tensor:
        """Return normal numbers that leave the user's generator alone."""
        numbers = np.random.default_rng(seed).standard_normal(tuple(array.shape))
        return torch.as_tensor(numbers).to(dtype=array.dtype, device=array.device)

    def constant(self, array: torch.Tensor) -> torch.Tensor:
        """Detach from reverse and forward mode."""
        return array.detach()

    def vjp(
        self, function: Callable[..., torch.Tensor], *primals: torch.Tensor
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], Arrays]]:
        """Return the value and its pull-back."""
        pair: Any = torch.func.vjp(function, *primals)
        return pair

    def linearize(
        self, function: Callable[..., torch.Tensor], *primals: torch.Tensor
    ) -> tuple[torch.Tensor, Callable[..., torch.Tensor]]:
        """Return the value and its push-forward: the transpose of the transpose.

        PyTorch's own forward mode does not nest inside of a user's dual level.
        """
        value, pull = self.vjp(function, *primals)
        count = len(primals)

        def flat_pull(cotangent: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(pull(cotangent))

        def push(*tangents: torch.Tensor) -> torch.Tensor:
            assert len(tangents) == count
            pair: Any = torch.func.vjp(flat_pull, torch.zeros_like(value))
            return pair[1](tangents)[0]

        return value, push

    def jvp(
        self, function: Callable[..., torch.Tensor], primals: Arrays, tangents: Arrays
    ) -> torch.Tensor:
        """Return the tangent by PyTorch's forward mode."""
        return torch.func.jvp(function, primals, tangents)[1]

    def vmap(
        self, function: Callable[[torch.Tensor], torch.Tensor]
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Map over a new leading dimension."""
        return torch.func.vmap(function)

    def while_loop(
        self,
        is_running: Callable[[Arrays], torch.Tensor],
        step: Callable[[Arrays], Arrays],
        state: Arrays,
    ) -> Arrays:
        """Loop in Python."""
        while bool(is_running(state)):
            state = step(state)
        return state

    def recorded_loop(
        self,
        is_running: Callable[[Arrays], torch.Tensor] | None,
        step: Callable[[Arrays], Arrays],
        state: Arrays,
        most: int,
    ) -> Arrays:
        """Loop in Python; autograd records it."""
        for _ in range(most):
            if is_running is not None:
                goes_on = is_running(state)
                if not self.is_concrete(goes_on):
                    raise UnsupportedDerivativeError(
                        "`Unroll()` does not know under `torch.vmap` how many steps to record. "
                        "Use `Unroll(last=k)`, or `batch_dims=` instead of `vmap`."
                    )
                if not bool(goes_on):
                    break
            state = step(state)
        return state

    def solve(self, matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Solve by LU; a singular matrix gives infinity or NaN."""
        return torch.linalg.solve_ex(matrix, right)[0]

    def solve_positive(self, matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Solve by Cholesky."""
        factor, failed = torch.linalg.cholesky_ex(matrix)
        solution = torch.cholesky_solve(right, factor)
        return torch.where((failed != 0)[:, None, None], float("nan"), solution)

    def lift(
        self, functions: Sequence[RowFunction], rows: torch.Tensor, arrays: Arrays
    ) -> tuple[list[RowFunction], Arrays]:
        """Make captured tensors arguments."""
        return captured.lift(functions, rows, arrays)

    def refuse_derivative(self, arrays: Arrays, message: str) -> Arrays:
        """Return tensors that refuse to be differentiated."""
        return implicit.refuse(arrays, message)

    def call_constant(
        self, equation: Equation, function: Any, start: torch.Tensor, arrays: Arrays
    ) -> Arrays:
        """Call without derivative."""
        return implicit.call_constant(equation, function, start, arrays)

    def root(
        self, equation: Equation, function: Any, start: torch.Tensor, arrays: Arrays
    ) -> Arrays:
        """Solve, with the derivative of a root."""
        return implicit.root(equation, function, start, arrays)

    def linear_solve(
        self,
        equation: Equation,
        is_transposed: bool,
        right: torch.Tensor,
        z: torch.Tensor,
        arrays: Arrays,
    ) -> torch.Tensor:
        """Solve with the Jacobian, differentiably; one or (count, ...) right-hand sides."""
        if right.ndim == 2:
            return self.linear_solve(equation, is_transposed, right[None], z, arrays)[0]
        return implicit.linear_solve(equation, is_transposed, right, z, arrays)

    def tell(
        self,
        listener: Callable[[Any, Any], None],
        residual: torch.Tensor,
        iterations: torch.Tensor,
    ) -> None:
        """Call the listener with tensors."""
        listener(residual, iterations)
