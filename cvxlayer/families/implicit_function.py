# SPDX-License-Identifier: Apache-2.0
"""A call of an implicit function: user's pytrees → rows → a root and its derivative → pytrees."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from cvxlayer.differentiate.array_ops import Array, ArrayOps, Arrays, RowFunction
from cvxlayer.differentiate.backward import AbstractInverse, Exact, Unroll
from cvxlayer.differentiate.implicit import Equation, OnFailure
from cvxlayer.errors import OptionError, suggest
from cvxlayer.families.conditions import AbstractCondition, Form, Rebuild
from cvxlayer.families.forward import RunUntilLast, SolveByLoop, SolveByUser, judge
from cvxlayer.families.gradient_check import check_gradient
from cvxlayer.families.iteration import AbstractSolver, BoundEquation, Loop
from cvxlayer.families.layout import describe, flatten_batch

# (form) ↦ the solver to take when the user names none.
DefaultSolver = Callable[[Form], AbstractSolver]


@dataclasses.dataclass(frozen=True, eq=False)
class ImplicitSolution:
    """The answer of an implicit function, and how it was found.

    Attributes:
        value: the solution, a pytree like the initial guess; differentiable.
        multipliers: for `argmin` with constraints, those of the equalities and of the
            inequalities, (batch..., count) each; differentiable. Else None.
        converged: whether each instance met the tolerance, of the shape of the batch.
        residual: max|F| / (1 + max|z|) of each instance.
        iterations: steps of the solver for each instance; NaN for a user's solver.
    """

    value: Any
    multipliers: tuple[Array, Array] | None
    converged: Array
    residual: Array
    iterations: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Options:
    """What `root`, `fixed_point` and `argmin` are told; see `Families`."""

    solver: Any = None
    backward: Any = dataclasses.field(default_factory=Exact)
    tolerance: float | None = None
    batch_dims: int = 0
    on_failure: OnFailure = OnFailure.RAISE
    check: bool = False

    @classmethod
    def read(
        cls,
        solver: Any,
        backward: Any,
        tolerance: float | None,
        batch_dims: int,
        on_failure: str,
        check: bool,
    ) -> Options:
        """Return the options as the user gave them.

        Raises:
            OptionError: `on_failure` is not known; the others are checked where they are used.
        """
        backward = Exact() if backward is None else backward
        failure = read_on_failure(on_failure)
        return cls(solver, backward, tolerance, batch_dims, failure, check)


class ImplicitFunction:
    """θ ↦ z with F(z, θ) = 0, made by `root`, `fixed_point` or `argmin`.

    Call it as `function(initial, *theta)`; `initial` and each of `theta` are pytrees. Leaves
    of theta that are arrays get derivatives, and so do arrays that the user's function
    captures from a closure or a module. The initial guess gets none, except by
    `backward=Unroll()`.
    """

    def __init__(
        self,
        ops: ArrayOps,
        condition: AbstractCondition,
        default_solver: DefaultSolver,
        options: Options,
    ) -> None:
        _check_options(options)
        functools.update_wrapper(self, condition.function, updated=())
        self._ops = ops
        self._condition = condition
        self._default_solver = default_solver
        self._options = options

    def __call__(self, initial: Any, *theta: Any) -> Any:
        """Return the solution, a pytree like `initial`.

        Args:
            initial: where the solver starts; its shapes are those of the solution.
            theta: what the user's function takes besides the unknown.

        Raises:
            ConvergenceError: the solver did not converge (unless `on_failure="nan"`).
            ShapeError: the user's function returns other shapes than it should.
            UnsupportedDerivativeError: a captured array cannot be differentiated.
            DerivativeCheckError: `check=True` found a wrong derivative.

        Notes:
            Under `jax.jit` nothing can raise: there, rows that did not converge are NaN,
            and so are their derivatives.
        """
        return self.solve(initial, *theta).value

    def solve(self, initial: Any, *theta: Any) -> ImplicitSolution:
        """Return the solution with its report; arguments and errors as of a call."""
        ops, options = self._ops, self._options
        if options.check:
            unchecked = dataclasses.replace(options, check=False)
            solver = ImplicitFunction(ops, self._condition, self._default_solver, unchecked)
            check_gradient(ops, solver, isinstance(options.backward, Exact), initial, theta)
        layout = describe(ops, initial, options.batch_dims)
        arrays, rebuild = _split(ops, theta)
        form = self._condition.build(layout, initial, theta, rebuild)
        start = form.extend(layout.pack(initial, "The initial guess"))
        functions = dict(form.functions)
        preconditioner = _preconditioner(options.backward, form, rebuild)
        if preconditioner is not None:
            functions["preconditioner"] = preconditioner
        lifted, captured = ops.lift(list(functions.values()), start, arrays)
        named = dict(zip(functions, lifted, strict=True))
        equation = Equation(
            ops,
            named.pop("residual"),
            options.backward if isinstance(options.backward, AbstractInverse) else Exact(),
            form.structure,
            options.on_failure,
            preconditioner=named.pop("preconditioner", None),
            helpers=named,
            blocks=(layout.size, form.num_equalities, form.num_inequalities),
        )
        found = self._find(equation, form, start, (*arrays, *captured), rebuild)
        return _report(equation, form, found)

    def _find(
        self, equation: Equation, form: Form, start: Array, arrays: Arrays, rebuild: Rebuild
    ) -> Arrays:
        """Return (z, converged, residual, iterations) in rows; z carries the derivative."""
        options = self._options
        solver = self._default_solver(form) if options.solver is None else options.solver
        if isinstance(solver, AbstractSolver):
            if options.tolerance is not None:
                solver = dataclasses.replace(solver, tolerance=options.tolerance)  # pyright: ignore[reportArgumentType]
            if isinstance(options.backward, Unroll):
                return _unroll(equation, solver, options.backward.last, start, arrays)
            return equation.ops.root(equation, SolveByLoop(solver), start, arrays)
        by_user = SolveByUser(
            equation.ops, _in_rows(solver, form, rebuild), options.tolerance or _USER_TOLERANCE
        )
        if isinstance(options.backward, Unroll):
            z = by_user.solve_rows(start, arrays)
            return by_user.judge(equation, start, z, arrays)
        return equation.ops.root(equation, by_user, start, arrays)


# A user's solver is seldom as accurate as ours.
_USER_TOLERANCE = 1e-6


def _unroll(
    equation: Equation, solver: AbstractSolver, last: int | None, start: Array, arrays: Arrays
) -> Arrays:
    ops = equation.ops
    loop = Loop(solver, BoundEquation(equation, arrays))
    if last is None:
        carry = loop.start(start)
        carry = ops.recorded_loop(loop.is_any_running, loop.step, carry, solver.max_iterations)
    else:
        z, _, *rest = ops.call_constant(equation, RunUntilLast(solver, last), start, arrays)
        # The residual anew: the step that follows uses it, and has to see θ through it.
        carry = (z, loop.bound.residual(z), *rest)
        carry = ops.recorded_loop(None, loop.step, carry, last)
    return judge(equation, ops.constant(start), carry[0], carry[1], solver.tolerance, carry[-1])


def _report(equation: Equation, form: Form, found: Arrays) -> ImplicitSolution:
    z, converged, residual, iterations = found
    ops, numpy = equation.ops, equation.ops.numpy
    if equation.on_failure is OnFailure.NAN:
        # A mask: the gradients of failed rows are exactly zero.
        z = numpy.where(converged[:, None], z, numpy.full_like(z, float("nan")))
    elif not ops.is_concrete(converged):
        # A factor: where nothing could raise, gradients have to be NaN too.
        one = numpy.ones_like(residual)
        z = z * numpy.where(converged, one, float("nan") * one)[:, None]
    batch = form.layout.batch_shape
    return ImplicitSolution(
        form.layout.unpack(z[:, : form.layout.size]),
        form.multipliers(z),
        converged.reshape(batch),
        residual.reshape(batch),
        iterations.reshape(batch),
    )


def _split(ops: ArrayOps, theta: tuple[Any, ...]) -> tuple[Arrays, Rebuild]:
    """Return the arrays among the leaves of θ, and how to put others in their place."""
    leaves, definition = ops.flatten(theta)
    places = [place for place, leaf in enumerate(leaves) if ops.is_array(leaf)]

    def rebuild(arrays: Arrays) -> tuple[Any, ...]:
        replaced = list(leaves)
        # Behind those of θ come the captured ones, which are put in place elsewhere.
        for place, array in zip(places, arrays, strict=False):
            replaced[place] = array
        return ops.unflatten(definition, replaced)

    return tuple(leaves[place] for place in places), rebuild


def _preconditioner(
    backward: AbstractInverse | Unroll, form: Form, rebuild: Rebuild
) -> RowFunction | None:
    preconditioner = backward.preconditioner if isinstance(backward, Exact) else None
    if preconditioner is None:
        return None
    if form.num_multipliers:
        raise OptionError(
            "A preconditioner maps pytrees like the unknown, and with constraints the linear "
            "system also has multipliers. Use `Exact(solver=LU())` or a solver without one."
        )
    layout = form.layout

    def apply(rows: Array, arrays: Arrays) -> Array:
        value = preconditioner(layout.unpack(rows), *rebuild(arrays))
        return layout.pack(value, "The preconditioned vector")

    return apply


def _in_rows(
    solver: Callable[..., Any], form: Form, rebuild: Rebuild
) -> Callable[[Array, Arrays], Array]:
    """Return a user's (initial, *theta) ↦ solution as a function of rows.

    With constraints the solution is (x, ν, λ), or (x, ν) or (x, λ) where one kind is absent.
    """
    layout = form.layout

    def solve(rows: Array, arrays: Arrays) -> Array:
        answer = solver(layout.unpack(rows[:, : layout.size]), *rebuild(arrays))
        if not form.num_multipliers:
            return layout.pack(answer, "The answer of the solver")
        x = layout.pack(answer[0], "The answer of the solver")
        multipliers = flatten_batch(layout.ops, list(answer[1:]), layout, "A multiplier")
        return layout.ops.numpy.concatenate([x, multipliers], 1)

    return solve


def read_on_failure(name: str) -> OnFailure:
    """Return what `on_failure=` means.

    Raises:
        OptionError: it is neither "raise" nor "nan".
    """
    valid = [choice.value for choice in OnFailure]
    if name not in valid:
        raise OptionError(f'`on_failure="{name}"` is not known. {suggest(str(name), valid)}')
    return OnFailure(name)


def _check_options(options: Options) -> None:
    solver, backward = options.solver, options.backward
    if solver is not None and not isinstance(solver, AbstractSolver) and not callable(solver):
        raise OptionError(
            f"`solver` is {solver!r}; it must be a solver such as `Newton()`, or a function of "
            "(initial, *theta)."
        )
    if not isinstance(backward, AbstractInverse | Unroll):
        raise OptionError(
            f"`backward` is {backward!r}; it must be `Exact()`, `Neumann(k)`, `Phantom(tau, k)`, "
            "`OneStep()` or `Unroll(last=k)`."
        )
    is_users = solver is not None and not isinstance(solver, AbstractSolver)
    if is_users and isinstance(backward, Unroll) and backward.last is not None:
        raise OptionError(
            "`Unroll(last=k)` needs a solver whose steps can be counted, and `solver` is a "
            "function. Use `Unroll()`, which differentiates all of it."
        )
