# SPDX-License-Identifier: Apache-2.0
"""What checks find out: frozen, free of arrays, ready to be printed or written as JSON."""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

SCHEMA = 1
"""Version of the JSON form; keys are only ever added under one number."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a problem can be compiled.

    Attributes:
        is_dcp, is_dpp: by CVXPY's rules; with `gp`, those of geometric programs.
        is_dgp: whether it is a geometric program; None unless asked for.
        is_supported: whether it compiled.
        message: the refusal, which names the expression and the rewrite, or None.
    """

    is_dcp: bool
    is_dpp: bool
    is_dgp: bool | None
    is_supported: bool
    message: str | None


@dataclasses.dataclass(frozen=True)
class ParameterReport:
    """One input of the layer.

    Attributes:
        name, shape: as declared.
        domain: what was declared about its values, in words; empty for nothing.
        enters: which of P, q, A, b depend on it, and "constant" for the part of the
            objective without variables.
        source: where its values come from.
    """

    name: str
    shape: tuple[int, ...]
    domain: str
    enters: tuple[str, ...]
    source: str


@dataclasses.dataclass(frozen=True)
class Size:
    """Size of a cone program: variables n, rows m, stored entries of P and A."""

    num_variables: int
    num_rows: int
    nonzeros_P: int
    nonzeros_A: int


@dataclasses.dataclass(frozen=True)
class ProgramReport:
    """The cone program that a problem compiles to.

    Attributes:
        size: after reduction: what every instance costs.
        cvxpy_size: before it, as CVXPY hands the program over.
        zero, nonnegative: rows in these cones.
        second_order: dimension of each second-order cone.
        semidefinite: order of the matrices of each semidefinite cone.
        exponential, power: number of cones of these kinds.
        depends: for each of P, q, A, b, the names of the parameters it depends on.
        variables: name and shape of each variable of the problem.
        compile_seconds: time to compile, once.
    """

    size: Size
    cvxpy_size: Size
    zero: int
    nonnegative: int
    second_order: tuple[int, ...]
    semidefinite: tuple[int, ...]
    exponential: int
    power: int
    depends: dict[str, tuple[str, ...]]
    variables: dict[str, tuple[int, ...]]
    compile_seconds: float


@dataclasses.dataclass(frozen=True)
class SolveReport:
    """A batched solve.

    Attributes:
        num_instances: size of the batch.
        is_given: whether the values were given rather than sampled.
        statuses: how many rows ended with which `Status`, by its name.
        primal_residual, dual_residual, gap: the worst over rows with a solution, in the
            scaling of the cone program; NaN if there is none.
        iterations: the most that a row with a solution took.
        advice: what to do about rows without a solution, or None.
    """

    num_instances: int
    is_given: bool
    statuses: dict[str, int]
    primal_residual: float
    dual_residual: float
    gap: float
    iterations: int
    advice: str | None

    @property
    def num_solved(self) -> int:
        """Number of rows with a solution."""
        return self.statuses.get("SOLVED", 0) + self.statuses.get("INACCURATE", 0)

    @property
    def is_good(self) -> bool:
        """Whether all given rows, or some of the sampled ones, have a solution."""
        return self.num_solved == self.num_instances if self.is_given else self.num_solved > 0


@dataclasses.dataclass(frozen=True)
class DerivativeCheck:
    """Whether the derivative exists and is unique, over the instances with a solution.

    Attributes:
        num_instances: how many these are.
        num_exists: at how many of them it exists and is unique.
        failed: how many failed which `DerivativeTest`, by its name; an instance may fail several.
        constraints: those that make instances fail, in the user's terms.
        margin: the smallest; infinite without inequalities.
        condition: the largest; infinite where the derivative's linear system is singular.
        residual: the worst of the optimality conditions, relative.
    """

    num_instances: int
    num_exists: int
    failed: dict[str, int]
    constraints: tuple[str, ...]
    margin: float
    condition: float
    residual: float


class GradientVerdict(enum.Enum):
    """What a comparison of the gradient with finite differences says.

    AGREES: equal in every direction where differences can tell.
    DISAGREES: different in some such direction.
    NOT_SMOOTH: differences settle nowhere: the solution has kinks at the values, or jumps.
    NOT_UNIQUE: the linear system of the derivative is singular at every instance.
    """

    AGREES = "agrees"
    DISAGREES = "disagrees"
    NOT_SMOOTH = "not smooth"
    NOT_UNIQUE = "not unique"


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """The gradient of a random linear function of the solution, against differences.

    Attributes:
        verdict: see `GradientVerdict`.
        error: worst relative difference over the directions compared; NaN if none.
        error_by_parameter: the same for each parameter by itself.
        num_directions: how many directions were compared.
        num_kinks: how many more were left out because differences did not settle.
        num_instances: at how many instances.
        num_not_unique: how many of these have no unique derivative (they are left out).
        adjoint_residual: worst relative residual of the derivative's linear system.
    """

    verdict: GradientVerdict
    error: float
    error_by_parameter: dict[str, float]
    num_directions: int
    num_kinks: int
    num_instances: int
    num_not_unique: int
    adjoint_residual: float

    @property
    def is_good(self) -> bool:
        """Whether the gradient agrees."""
        return self.verdict is GradientVerdict.AGREES


@dataclasses.dataclass(frozen=True)
class TimingReport:
    """Wall time for one instance, in seconds, the median of several calls.

    Attributes:
        batch: number of instances of the batch.
        forward_seconds, backward_seconds: for one instance of the batch.
        single_forward_seconds, single_backward_seconds: for one instance alone.
        num_cores: how many cores the engine could use.
    """

    batch: int
    forward_seconds: float
    backward_seconds: float | None
    single_forward_seconds: float
    single_backward_seconds: float | None
    num_cores: int


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything found out about one problem; parts that were not reached are None.

    Attributes:
        verdict: whether it can be compiled.
        parameters: the inputs, in call order.
        program: what it compiles to.
        solve: how a batch of it is solved.
        derivative: whether it can be differentiated at these instances; None also without
            parameters.
        gradient: whether its gradient is right; None also without parameters.
        timing: what it costs.
    """

    verdict: Verdict
    parameters: tuple[ParameterReport, ...] = ()
    program: ProgramReport | None = None
    solve: SolveReport | None = None
    derivative: DerivativeCheck | None = None
    gradient: GradientReport | None = None
    timing: TimingReport | None = None

    @property
    def is_good(self) -> bool:
        """Whether the problem is fit to be a layer."""
        parts = (self.solve, self.gradient)
        return self.verdict.is_supported and all(part is None or part.is_good for part in parts)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values with stable keys; see docs/cli.md."""
        plain: dict[str, Any] = {"schema": SCHEMA, "good": self.is_good}
        for field in dataclasses.fields(self):
            plain[field.name] = _plain(getattr(self, field.name))
        return plain


def _plain(value: Any) -> Any:
    """Turn data classes into dictionaries, and numbers JSON cannot hold into null."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
