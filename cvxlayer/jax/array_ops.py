# SPDX-License-Identifier: Apache-2.0
"""What JAX lends to the derivative engine: `ArrayOps` for JAX arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax import lax

from cvxlayer.differentiate import implicit
from cvxlayer.differentiate.array_ops import Arrays, RowFunction
from cvxlayer.differentiate.implicit import Equation
from cvxlayer.differentiate.linear_operator import LinearOperator
from cvxlayer.errors import UnsupportedDerivativeError


class JaxOps:
    """`ArrayOps` of JAX; methods are documented there."""

    numpy: Any = jnp

    def flatten(self, tree: Any) -> tuple[list[Any], Any]:
        """Return the leaves and the structure of a pytree."""
        return jax.tree.flatten(tree)

    def unflatten(self, definition: Any, leaves: Sequence[Any]) -> Any:
        """Undo `flatten`."""
        return jax.tree.unflatten(definition, leaves)

    def is_array(self, leaf: Any) -> bool:
        """Whether a leaf is a JAX or NumPy array."""
        return isinstance(leaf, jax.Array | np.ndarray)

    def is_real(self, array: jax.Array) -> bool:
        """Whether the dtype is a floating-point one."""
        return jnp.issubdtype(array.dtype, jnp.floating)

    def is_concrete(self, array: jax.Array) -> bool:
        """Whether values can be read: not under `jit` or `vmap`."""
        return not isinstance(array, jax.core.Tracer)

    def to_numpy(self, array: jax.Array) -> np.ndarray:
        """Return the values in host memory."""
        return np.asarray(array)

    def cast(self, array: jax.Array, dtype: Any) -> jax.Array:
        """Return the array in another dtype."""
        return jnp.asarray(array, dtype)

    def eye(self, size: int, like: jax.Array) -> jax.Array:
        """Return the identity."""
        return jnp.eye(size, dtype=like.dtype)

    def random_like(self, array: jax.Array, seed: int) -> jax.Array:
        """Return normal numbers."""
        numbers = np.random.default_rng(seed).standard_normal(array.shape)
        return jnp.asarray(numbers, array.dtype)

    def constant(self, array: jax.Array) -> jax.Array:
        """Stop the gradient."""
        return lax.stop_gradient(array)

    def vjp(
        self, function: Callable[..., jax.Array], *primals: jax.Array
    ) -> tuple[jax.Array, Callable[[jax.Array], Arrays]]:
        """Return the value and its pull-back."""
        return jax.vjp(function, *primals)

    def linearize(
        self, function: Callable[..., jax.Array], *primals: jax.Array
    ) -> tuple[jax.Array, Callable[..., jax.Array]]:
        """Return the value and its push-forward."""
        return jax.linearize(function, *primals)

    def jvp(
        self, function: Callable[..., jax.Array], primals: Arrays, tangents: Arrays
    ) -> jax.Array:
        """Return the tangent by forward mode."""
        return jax.jvp(function, primals, tangents)[1]

    def vmap(self, function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
        """Map over a new leading dimension."""
        return jax.vmap(function)

    def while_loop(
        self,
        is_running: Callable[[Arrays], jax.Array],
        step: Callable[[Arrays], Arrays],
        state: Arrays,
    ) -> Arrays:
        """Loop on the device."""
        return lax.while_loop(is_running, step, state)

    def recorded_loop(
        self,
        is_running: Callable[[Arrays], jax.Array] | None,
        step: Callable[[Arrays], Arrays],
        state: Arrays,
        most: int,
    ) -> Arrays:
        """Loop by `scan`, which reverse mode can go back through."""

        def body(state: Arrays, _: None) -> tuple[Arrays, None]:
            if is_running is None:
                return step(state), None
            return lax.cond(is_running(state), step, lambda state: state, state), None

        return lax.scan(body, state, None, length=most)[0]

    def solve(self, matrix: jax.Array, right: jax.Array) -> jax.Array:
        """Solve by LU; a singular matrix gives infinity or NaN."""
        return jnp.linalg.solve(matrix, right)

    def solve_positive(self, matrix: jax.Array, right: jax.Array) -> jax.Array:
        """Solve by Cholesky, which is NaN where it fails."""
        factor = lax.linalg.cholesky(matrix, symmetrize_input=False)
        half = lax.linalg.triangular_solve(factor, right, left_side=True, lower=True)
        return lax.linalg.triangular_solve(
            factor, half, left_side=True, lower=True, transpose_a=True
        )

    def lift(
        self, functions: Sequence[RowFunction], rows: jax.Array, arrays: Arrays
    ) -> tuple[list[RowFunction], Arrays]:
        """Trace the functions: what they captured are the constants of what was traced."""
        traced = [jax.make_jaxpr(function)(rows, arrays) for function in functions]
        starts = np.cumsum([0, *(len(closed.consts) for closed in traced)]) + len(arrays)

        def lifted(closed: Any, start: int) -> RowFunction:
            def call(rows: jax.Array, arrays_: Arrays) -> jax.Array:
                consts = arrays_[start : start + len(closed.consts)]
                replaced = jax.extend.core.ClosedJaxpr(closed.jaxpr, consts)
                flat = jax.tree.leaves((rows, tuple(arrays_[: len(arrays)])))
                return jax.extend.core.jaxpr_as_fun(replaced)(*flat)[0]

            return call

        captured = tuple(const for closed in traced for const in closed.consts)
        pairs = zip(traced, starts[:-1].tolist(), strict=True)
        return [lifted(closed, start) for closed, start in pairs], captured

    def refuse_derivative(self, arrays: Arrays, message: str) -> Arrays:
        """Return arrays that refuse to be differentiated."""

        @jax.custom_jvp
        def refuse(arrays: Arrays) -> Arrays:
            return arrays

        def rule(primals: Any, tangents: Any) -> Any:
            raise UnsupportedDerivativeError(message)

        refuse.defjvp(rule)
        return refuse(tuple(arrays))

    def call_constant(
        self, equation: Equation, function: Any, start: jax.Array, arrays: Arrays
    ) -> Arrays:
        """Call on values without derivative."""
        return function(equation, *lax.stop_gradient((start, tuple(arrays))))

    def root(self, equation: Equation, function: Any, start: jax.Array, arrays: Arrays) -> Arrays:
        """Solve, with the derivative of a root."""

        @jax.custom_jvp
        def solve(start: jax.Array, arrays: Arrays) -> Arrays:
            return function(equation, start, arrays)

        def rule(primals: tuple[jax.Array, Arrays], tangents: Any) -> tuple[Arrays, Arrays]:
            z, *statistics = solve(*primals)
            # Integers have tangents of their own kind, which are nothing.
            along = [
                tangent if self.is_real(array) else None
                for array, tangent in zip(primals[1], tangents[1], strict=True)
            ]
            dz = implicit.push_forward(equation, z, primals[1], along)
            return (z, *statistics), (dz, *(_zero_tangent(array) for array in statistics))

        solve.defjvp(rule)
        return solve(lax.stop_gradient(start), tuple(arrays))

    def linear_solve(
        self,
        equation: Equation,
        is_transposed: bool,
        right: jax.Array,
        z: jax.Array,
        arrays: Arrays,
    ) -> jax.Array:
        """Solve with the Jacobian; JAX differentiates through its product."""

        def at(values: jax.Array) -> jax.Array:
            return equation.residual(values, arrays)

        # Linearized here, once: the product and its transpose then close over the same numbers.
        # JAX's derivative rule (as of 0.10) fails where one of them depends on more than the
        # other, and the right-hand side on nothing.
        if is_transposed:
            _, pull = jax.vjp(at, z)

            def product(w: jax.Array) -> jax.Array:
                return pull(w)[0]
        else:
            _, product = jax.linearize(at, z)
        constants = lax.stop_gradient((z, arrays))

        def solve(apply: Callable[[jax.Array], jax.Array], right: jax.Array) -> jax.Array:
            def apply_transposed(v: jax.Array) -> jax.Array:
                return jax.linear_transpose(apply, right)(v)[0]

            precondition = None
            if equation.preconditioner is not None:
                precondition = implicit.linear_operator(
                    equation, is_transposed, *constants
                ).precondition
            operator = LinearOperator(
                self, right, apply, apply_transposed, equation.structure, precondition
            )
            return implicit.invert(equation, operator, right[None])[0]

        return lax.custom_linear_solve(product, right, solve, solve)

    def tell(
        self, listener: Callable[[Any, Any], None], residual: jax.Array, iterations: jax.Array
    ) -> None:
        """Call the listener from compiled code."""
        jax.debug.callback(listener, residual, iterations)


def _zero_tangent(array: jax.Array) -> Any:
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jnp.zeros_like(array)
    return np.zeros(array.shape, jax.dtypes.float0)
