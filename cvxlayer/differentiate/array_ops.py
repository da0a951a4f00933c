# SPDX-License-Identifier: Apache-2.0
"""ArrayOps: what a framework has to lend so that an implicit function can be differentiated.

Everything behind it is written once. Arrays are the framework's own; a vector unknown is
held as *rows* (batch, n), one for each independent instance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from cvxlayer.differentiate.implicit import Equation

# A torch.Tensor or a jax.Array: the engine never needs to know which.
Array = Any
Arrays = tuple[Array, ...]
# (rows, arrays) ↦ one row for each instance.
RowFunction = Callable[[Array, Arrays], Array]


@runtime_checkable
class ArrayOps(Protocol):
    """The functions of one framework.

    Elementwise arithmetic and reductions come from `numpy`, where the frameworks agree on
    names and on `axis=`; the methods are what they spell differently.
    """

    @property
    def numpy(self) -> Any:
        """The array namespace: `torch` or `jax.numpy`."""
        ...

    # Pytrees and arrays.

    def flatten(self, tree: Any) -> tuple[list[Any], Any]:
        """Return the leaves of a pytree and what `unflatten` needs."""
        ...

    def unflatten(self, definition: Any, leaves: Sequence[Any]) -> Any:
        """Undo `flatten`."""
        ...

    def is_array(self, leaf: Any) -> bool:
        """Whether a leaf is an array of the framework."""
        ...

    def is_real(self, array: Array) -> bool:
        """Whether an array has a real floating-point dtype."""
        ...

    def is_concrete(self, array: Array) -> bool:
        """Whether the values are at hand now, and not only under a transform."""
        ...

    def to_numpy(self, array: Array) -> np.ndarray:
        """Return concrete values as a NumPy array."""
        ...

    def cast(self, array: Array, dtype: Any) -> Array:
        """Return the array in another dtype."""
        ...

    def eye(self, size: int, like: Array) -> Array:
        """Return the identity matrix, of the dtype and device of an array."""
        ...

    def random_like(self, array: Array, seed: int) -> Array:
        """Return standard normal numbers of the shape, dtype and device of an array."""
        ...

    # Derivatives, maps and loops.

    def constant(self, array: Array) -> Array:
        """Return the values without any derivative."""
        ...

    def vjp(
        self, function: Callable[..., Array], *primals: Array
    ) -> tuple[Array, Callable[[Array], Arrays]]:
        """Return the value and the map from its cotangent to those of the primals."""
        ...

    def linearize(
        self, function: Callable[..., Array], *primals: Array
    ) -> tuple[Array, Callable[..., Array]]:
        """Return the value and the map from tangents of the primals to its tangent."""
        ...

    def jvp(self, function: Callable[..., Array], primals: Arrays, tangents: Arrays) -> Array:
        """Return the tangent of the value, by forward mode."""
        ...

    def vmap(self, function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        """Map a function over a new leading dimension."""
        ...

    def while_loop(
        self, is_running: Callable[[Arrays], Array], step: Callable[[Arrays], Arrays], state: Arrays
    ) -> Arrays:
        """Repeat `step` while `is_running`, a boolean scalar; not to be differentiated."""
        ...

    def recorded_loop(
        self,
        is_running: Callable[[Arrays], Array] | None,
        step: Callable[[Arrays], Arrays],
        state: Arrays,
        most: int,
    ) -> Arrays:
        """Repeat as `while_loop`, at most `most` times, so that the loop can be differentiated.

        Exactly so often where `is_running` is None.
        """
        ...

    # Dense linear algebra. Failures are NaN, never exceptions.

    def solve(self, matrix: Array, right: Array) -> Array:
        """Solve (batch, n, n) systems with (batch, n, count) right-hand sides by LU."""
        ...

    def solve_positive(self, matrix: Array, right: Array) -> Array:
        """Solve by Cholesky; NaN where a matrix is not positive definite."""
        ...

    # The custom derivatives.

    def lift(
        self, functions: Sequence[RowFunction], rows: Array, arrays: Arrays
    ) -> tuple[list[RowFunction], Arrays]:
        """Make captured arrays into arguments.

        Args:
            functions: of (rows, arrays), which may close over other arrays.
            rows: an example of the first argument.
            arrays: an example of the second.

        Returns:
            The functions of (rows, (*arrays, *captured)), and `captured`.

        Raises:
            UnsupportedDerivativeError: something is captured that cannot be made an
                argument, so that its derivative would be lost.
        """
        ...

    def refuse_derivative(self, arrays: Arrays, message: str) -> Arrays:
        """Return the arrays; whoever differentiates them gets UnsupportedDerivativeError."""
        ...

    def call_constant(
        self,
        equation: Equation,
        function: Callable[[Equation, Array, Arrays], Arrays],
        start: Array,
        arrays: Arrays,
    ) -> Arrays:
        """Call `function(equation, start, arrays)` without derivative, under any transform.

        It returns arrays whose first dimension is that of the rows.
        """
        ...

    def root(
        self,
        equation: Equation,
        function: Callable[[Equation, Array, Arrays], Arrays],
        start: Array,
        arrays: Arrays,
    ) -> Arrays:
        """Return (z, *statistics) of `function`; z differentiates as a root of the equation."""
        ...

    def linear_solve(
        self, equation: Equation, is_transposed: bool, right: Array, z: Array, arrays: Arrays
    ) -> Array:
        """Solve A w = right or Aᵀ w = right with A = ∂F/∂z at (z, θ), differentiably."""
        ...

    def tell(self, listener: Callable[[Any, Any], None], residual: Array, iterations: Array) -> Any:
        """Call `listener(residual, iterations)` with values, also from compiled code."""
        ...
