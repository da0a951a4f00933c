# SPDX-License-Identifier: Apache-2.0
"""PyTorch and JAX under one set of names, for tests that run over both."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

FRAMEWORKS = ("torch", "jax")


class TorchKit:
    """What tests need of PyTorch."""

    name = "torch"

    def __init__(self) -> None:
        self.numpy: Any = pytest.importorskip("torch")
        self.implicit: Any = importlib.import_module("cvxlayer.torch")
        func = self.numpy.func
        self.vmap, self.grad = func.vmap, func.grad
        self.jacrev, self.jacfwd, self.hessian = func.jacrev, func.jacfwd, func.hessian

    def array(self, values: Any, dtype: Any = np.float64) -> Any:
        return self.numpy.as_tensor(np.asarray(values, dtype))

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.detach().numpy()

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    @contextlib.contextmanager
    def double_precision(self) -> Iterator[None]:
        yield


class JaxKit:
    """What tests need of JAX."""

    name = "jax"

    def __init__(self) -> None:
        self._jax: Any = pytest.importorskip("jax")
        self.numpy: Any = importlib.import_module("jax.numpy")
        self.implicit: Any = importlib.import_module("cvxlayer.jax")
        self.vmap, self.grad = self._jax.vmap, self._jax.grad
        self.jacrev, self.jacfwd, self.hessian = (
            self._jax.jacrev,
            self._jax.jacfwd,
            self._jax.hessian,
        )

    def array(self, values: Any, dtype: Any = np.float64) -> Any:
        return self.numpy.asarray(np.asarray(values, dtype))

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.asarray(array)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self._jax.jit(function)

    @contextlib.contextmanager
    def double_precision(self) -> Iterator[None]:
        """Compute in float64, and optimize nothing: compiling is what the tests wait for."""
        before = self._jax.config.read("jax_disable_most_optimizations")
        self._jax.config.update("jax_disable_most_optimizations", True)
        with self._jax.enable_x64(True):
            yield
        self._jax.config.update("jax_disable_most_optimizations", before)


Kit = TorchKit | JaxKit


def make_kit(name: str) -> Kit:
    return TorchKit() if name == "torch" else JaxKit()
