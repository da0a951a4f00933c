# SPDX-License-Identifier: Apache-2.0
"""A report as one screen of text: a mark, a title and what was found, line by line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cvxlayer.checks.report import (
    DerivativeCheck,
    GradientReport,
    GradientVerdict,
    ProgramReport,
    Report,
    SolveReport,
    TimingReport,
    Verdict,
)

_GOOD, _BAD, _UNSURE, _NONE = ("✓", "green"), ("✗", "red"), ("!", "yellow"), ("", "")
_MOST_PARAMETERS = 14


def render_report(report: Report, path: str, expression: str) -> RenderableType:
    """Return the page for a terminal.

    Args:
        report: what the checks found.
        path: the file that the problem comes from.
        expression: what gives the problem there.
    """
    page = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2):
        page.add_column(no_wrap=True)
    page.add_column(overflow="fold")
    _add_verdict(page, report.verdict)
    if report.program is not None:
        _add_program(page, report)
    if report.solve is not None:
        _add_solve(page, report.solve)
    if report.derivative is not None:
        _add_derivative(page, report.derivative)
    if report.gradient is not None:
        _add_gradient(page, report.gradient)
    elif report.solve is not None and report.solve.num_solved:
        _add(
            page, _NONE, "Gradient", Text("The problem has no parameter: nothing to differentiate.")
        )
    if report.timing is not None:
        _add(page, _NONE, "Time", _describe_timing(report.timing))
    heading = Text.assemble((expression, "bold"), " in ", (path, "bold"))
    return Group(heading, Text(), page, Text(), _conclusion(report, expression))


def _add(page: Table, mark: tuple[str, str], title: str, content: RenderableType) -> None:
    page.add_row(Text(*mark), Text(title, style="bold"), content)


def _add_verdict(page: Table, verdict: Verdict) -> None:
    if verdict.is_supported:
        _add(page, _GOOD, "Rules", Text(f"{_rules(verdict)} and DPP"))
        return
    if not verdict.is_dcp:
        found = f"not {_rules(verdict)}"
    elif verdict.is_dpp:
        found = f"{_rules(verdict)} and DPP, but not supported"
    else:
        found = f"{_rules(verdict)}, but not DPP"
    text = Text.assemble((found, "bold"), "\n", _with_code(verdict.message or ""))
    _add(page, _BAD, "Rules", text)


def _rules(verdict: Verdict) -> str:
    """Return the rules that the problem was judged by."""
    return "DCP" if verdict.is_dgp is None else "DGP"


def _add_program(page: Table, report: Report) -> None:
    program = report.program
    assert program is not None
    size, before = program.size, program.cvxpy_size
    nonzeros, before_nonzeros = (s.nonzeros_P + s.nonzeros_A for s in (size, before))
    sizes = Text.assemble(
        (
            f"{_count(size.num_variables, 'variable')}, {_count(size.num_rows, 'row')}, "
            f"{_count(nonzeros, 'nonzero')}",
            "bold",
        ),
        f" in P and A; CVXPY's form has {before.num_variables}, {before.num_rows}, "
        f"{before_nonzeros}",
    )
    lines: list[RenderableType] = [sizes, Text(f"cones: {_describe_cones(program)}")]
    lines.append(Text(_describe_dependence(program)))
    _add(page, _GOOD, "Cone program", Group(*lines))
    if report.parameters:
        _add(page, _NONE, "Parameters", _table_of_parameters(report))


def _describe_cones(program: ProgramReport) -> str:
    parts: list[str] = []
    if program.zero:
        parts.append(_count(program.zero, "equality", "equalities"))
    if program.nonnegative:
        parts.append(_count(program.nonnegative, "inequality", "inequalities"))
    if program.second_order:
        cones = _count(len(program.second_order), "second-order cone")
        parts.append(f"{cones} of dimension {_span(program.second_order)}")
    if program.semidefinite:
        cones = _count(len(program.semidefinite), "semidefinite cone")
        parts.append(f"{cones} of order {_span(program.semidefinite)}")
    if program.exponential:
        parts.append(_count(program.exponential, "exponential cone"))
    if program.power:
        parts.append(_count(program.power, "power cone"))
    return ", ".join(parts) or "none, the problem is unconstrained"


def _span(sizes: Sequence[int]) -> str:
    smallest, largest = min(sizes), max(sizes)
    return str(smallest) if smallest == largest else f"{smallest} to {largest}"


def _describe_dependence(program: ProgramReport) -> str:
    """Say which of P, q, A, b depend on parameters; the table says on which."""
    moving = [letter for letter, names in program.depends.items() if names]
    constant = [letter for letter, names in program.depends.items() if not names]
    if not moving:
        return "P, q, A and b are constant"
    still = f"; {_join(constant)} {_verb(constant)} constant" if constant else ""
    return f"{_join(moving)} {'depend' if len(moving) > 1 else 'depends'} on parameters{still}"


def _table_of_parameters(report: Report) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    for title in ("name", "shape", "declared", "enters", "values"):
        table.add_column(title, overflow="fold")
    for parameter in report.parameters[:_MOST_PARAMETERS]:
        table.add_row(
            Text(parameter.name),
            Text(_shape(parameter.shape)),
            Text(parameter.domain or "–"),
            Text(", ".join(parameter.enters) or "nothing"),
            Text(parameter.source),
        )
    more = len(report.parameters) - _MOST_PARAMETERS
    if more > 0:
        table.add_row(Text(f"and {more} more"))
    return table


def _add_solve(page: Table, solve: SolveReport) -> None:
    kind = "given" if solve.is_given else "sampled"
    if solve.num_instances == 1:
        counts = f"the {kind} instance: "
    else:
        counts = f"{solve.num_solved} of {solve.num_instances} {kind} instances: "
    statuses = ", ".join(f"{count} {name}" for name, count in solve.statuses.items())
    text = Text.assemble((counts + statuses, "bold"))
    if solve.num_solved:
        worst = max(solve.primal_residual, solve.dual_residual, solve.gap)
        text.append(
            f"\nworst residual {worst:.0e} (primal {solve.primal_residual:.0e}, dual "
            f"{solve.dual_residual:.0e}, gap {solve.gap:.0e}), "
            f"at most {_count(solve.iterations, 'iteration')}"
        )
    if solve.advice:
        text.append("\n").append_text(_with_code(solve.advice))
    mark = _BAD if not solve.is_good else _UNSURE if solve.advice else _GOOD
    _add(page, mark, "Solve", text)


def _add_derivative(page: Table, derivative: DerivativeCheck) -> None:
    count, total = derivative.num_exists, derivative.num_instances
    instances = _count(total, "instance")
    if count:
        text = Text.assemble(("exists and is unique", "bold"))
        text.append(f" at {instances if count == total else f'{count} of {instances}'}; ")
    else:
        text = Text.assemble(("is not unique", "bold"), f" at any of {instances}; ")
    margin = "none" if math.isinf(derivative.margin) else f"{derivative.margin:.0e}"
    condition = "infinite" if math.isinf(derivative.condition) else f"{derivative.condition:.0e}"
    text.append(f"smallest margin {margin}, largest condition {condition}")
    for name, number in derivative.failed.items():
        text.append(f"\n{_count(number, 'instance')}: {_FAILED[name]}")
    if derivative.constraints:
        listed = ", ".join(f"`{name}`" for name in derivative.constraints[:_MOST_CONSTRAINTS])
        more = len(derivative.constraints) - _MOST_CONSTRAINTS
        tail = f" and {more} more" if more > 0 else ""
        text.append("\ninvolved: ").append_text(_with_code(listed + tail))
    _add(page, _GOOD if count == total else _UNSURE, "Derivative", text)


_MOST_CONSTRAINTS = 5
_FAILED = {
    "STRICT_COMPLEMENTARITY": "a kink, where a constraint holds without force",
    "CONSISTENCY": "what is returned is not unique; a small quadratic term would make it so",
    "DUAL_UNIQUENESS": "a kink, where more constraints meet than are needed",
}


def _add_gradient(page: Table, gradient: GradientReport) -> None:
    where = f"{_count(gradient.num_instances, 'instance')}"
    compared = f"in {_count(gradient.num_directions, 'direction')} at {where}"
    error = f"relative difference {gradient.error:.0e}"
    text = {
        GradientVerdict.AGREES: Text.assemble(
            ("equals finite differences", "bold"), f": {error}\n{compared}"
        ),
        GradientVerdict.DISAGREES: Text.assemble(
            ("differs from finite differences", "bold"),
            f": {error},\n{compared}; {_by_parameter(gradient)}\nThe solution may jump or be "
            "barely unique at these values: check with others (--seed, --values). If it "
            "persists, please report it with this file.",
        ),
        GradientVerdict.NOT_SMOOTH: Text.assemble(
            ("cannot be judged", "bold"),
            f": finite differences settle in no direction at {where}, so the solution has kinks "
            "or jumps there. Check at other values (--seed, --values), or make the solution "
            "smooth with a small quadratic term.",
        ),
        GradientVerdict.NOT_UNIQUE: Text.assemble(
            ("does not exist", "bold"),
            f": the derivative is not unique at any of {where} (residual "
            f"{gradient.adjoint_residual:.0e}). A small quadratic term in the objective usually "
            "makes it so.",
        ),
    }[gradient.verdict]
    notes: list[str] = []
    if gradient.num_kinks and gradient.num_directions:
        notes.append(f"{_count(gradient.num_kinks, 'direction')} left out, with a kink nearby")
    if gradient.num_not_unique and gradient.num_directions:
        notes.append(f"{_count(gradient.num_not_unique, 'instance')} left out, not unique")
    if notes:
        text.append("\n" + "; ".join(notes))
    _add(page, _GOOD if gradient.is_good else _BAD, "Gradient", text)


def _by_parameter(gradient: GradientReport) -> str:
    figures = gradient.error_by_parameter.items()
    return "by parameter: " + ", ".join(
        f"{name} {'–' if math.isnan(error) else f'{error:.0e}'}" for name, error in figures
    )


def _describe_timing(timing: TimingReport) -> Text:
    def pair(forward: float, backward: float | None) -> str:
        back = "" if backward is None else f" + {_duration(backward)} backward"
        return f"{_duration(forward)}{back}"

    cores = _count(timing.num_cores, "core")
    batch = pair(timing.forward_seconds, timing.backward_seconds)
    alone = pair(timing.single_forward_seconds, timing.single_backward_seconds)
    text = Text.assemble((batch, "bold"), f" per instance, batch of {timing.batch} on {cores}\n")
    return text.append(f"{alone}, one instance alone")


def _conclusion(report: Report, expression: str) -> RenderableType:
    if not report.verdict.is_supported:
        return Text("This problem cannot be a layer as it stands.", style="bold red")
    if report.solve is not None and not report.solve.is_good:
        return Text("This problem cannot be solved at these values.", style="bold red")
    if not report.is_good:
        return Text("Do not rely on the gradient of this problem yet.", style="bold red")
    assert report.program is not None
    parameters = ", ".join(parameter.name for parameter in report.parameters)
    variables = ", ".join(report.program.variables)
    options = "" if report.verdict.is_dgp is None else ", gp=True"
    call = f"Layer({expression}, parameters=[{parameters}], variables=[{variables}]{options})"
    good = Text("Good. Use it as", style="bold green")
    return Group(good, Padding(Text(call), (0, 0, 0, 3)))


def _with_code(message: str) -> Text:
    """Color what stands between backticks, which stay for copies without color."""
    text = Text(message)
    text.highlight_regex(r"`[^`]+`", "cyan")
    return text


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _verb(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
