# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.benchmarks --others`: problems made by others, one at a time.

Every solver gets the same cone program, a fresh start and one thread; its time is that of
setup and solve together. What it returns is judged by our own KKT residual, not by its word.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cvxlayer.program.batch import ConeProgramBatch
from tests.benchmarks.other_solvers import SOLVERS, NotApplicableError, Outcome
from tests.catalog import maros_meszaros, sdplib
from tests.catalog.residuals import kkt_residual

#: A point this close to optimal counts as a solution, whatever its solver asked for.
RIGHT = 1e-6
REPETITIONS = 3
#: Seconds after which a solve is not repeated.
LONG = 0.5
DIGITS = 1e-6
INTRODUCTION = f"""# Problems made by others

The convex quadratic programs of Maros and Mészáros and the semidefinite programs of SDPLIB that
are at hand, one at a time. Every solver gets the same cone program, 1e-8, one thread and a fresh
start; the native engine works without its fallback. The time is processor time of setup and solve
together, the best of {REPETITIONS} unless it takes long. A point is right if its solver calls it
solved and its KKT residual, which we find from x and y alone, is at most {RIGHT:g}.
`{maros_meszaros.NOT_CONVEX}` is left out: its P has a negative eigenvalue, and our engine ends
NOT_CONVEX there. Made by `python -m tests.benchmarks --others --markdown`.
"""
PACKAGES = ("cvxlayer", "clarabel", "scs", "ecos", "qoco", "piqp")


@dataclasses.dataclass(frozen=True)
class Record:
    """What one solver made of one problem.

    Attributes:
        problem, solver: names.
        status: "solved" or the solver's own word for anything else.
        iterations: as the solver counts them.
        seconds: processor time of setup and solve, the best of some.
        residual: of `kkt_residual` at the returned point; NaN without one.
        objective: ½xᵀPx + qᵀx there.
    """

    problem: str
    solver: str
    status: str
    iterations: int = 0
    seconds: float = float("nan")
    residual: float = float("nan")
    objective: float = float("nan")

    @property
    def is_right(self) -> bool:
        """Whether it says solved, and is."""
        return self.status == "solved" and self.residual <= RIGHT

    @property
    def is_wrong(self) -> bool:
        """Whether it says solved, and is not; or has a certificate for a solvable problem."""
        claims = self.status in ("infeasible", "unbounded")
        return claims or (self.status == "solved" and not self.residual <= RIGHT)


def problems(names: list[str] | None = None) -> dict[str, Callable[[], ConeProgramBatch]]:
    """Every problem by its name, small sets first."""
    found = {
        path.stem: (lambda path=path: maros_meszaros.load(path))
        for path in maros_meszaros.FILES
        if path.stem != maros_meszaros.NOT_CONVEX
    }
    found |= {path.stem: (lambda path=path: sdplib.load(path)) for path in sdplib.FILES}
    return {name: load for name, load in found.items() if not names or name in names}


def run(solver: str, problem: str, batch: ConeProgramBatch) -> Record:
    """Solve one problem by one solver, a few times if it is quick."""
    best: Outcome | None = None
    seconds = float("inf")
    for _ in range(REPETITIONS):
        start = time.process_time()
        try:
            best = SOLVERS[solver](batch)
        except NotApplicableError as reason:
            return Record(problem, solver, f"not applicable: {reason}")
        seconds = min(seconds, time.process_time() - start)
        if seconds > LONG:
            break
    assert best is not None
    if not (np.isfinite(best.x).all() and np.isfinite(best.y).all()):
        return Record(problem, solver, best.status, best.iterations, seconds)
    upper, q, _, _ = batch.instance(0)
    objective = 0.5 * best.x @ (upper @ best.x + upper.T @ best.x - upper.diagonal() * best.x)
    return Record(
        problem, solver, best.status, best.iterations, seconds,
        kkt_residual(batch, best.x[None], best.y[None]), float(objective + q @ best.x),
    )  # fmt: skip


def measure_all(names: list[str] | None = None, solvers: list[str] | None = None) -> list[Record]:
    """Every solver on every problem, alternating."""
    records = []
    for name, load in problems(names).items():
        batch = load()
        records += [run(solver, name, batch) for solver in solvers or list(SOLVERS)]
    return records


def render(records: list[Record]) -> str:
    """Two tables in Markdown: a line per problem, and a line per solver."""
    solvers = list(dict.fromkeys(record.solver for record in records))
    found = {(record.problem, record.solver): record for record in records}
    lines = ["| problem | " + " | ".join(solvers) + " |", "|---" * (len(solvers) + 1) + "|"]
    for problem in dict.fromkeys(record.problem for record in records):
        cells = [_cell(found[problem, solver]) for solver in solvers]
        lines.append(f"| {problem} | " + " | ".join(cells) + " |")
    lines += ["", "Each cell: iterations, milliseconds, KKT residual.", ""]
    head = "| solver | right | wrong | not solved | seconds | native on the same |"
    lines += [head, "|---|---|---|---|---|---|"]
    for solver in solvers:
        lines.append(_summary(solver, [r for r in records if r.solver == solver], found))
    if missed := _optima(records):
        lines += [
            "",
            f"Right, but more than {DIGITS:g} from the published optimal value:",
            "",
            *missed,
        ]
    return "\n".join(lines)


def render_page(records: list[Record], machine: dict[str, Any]) -> str:
    """The tables as a page of the documentation."""
    packages = ", ".join(
        f"{name} {machine['packages'][name]}" for name in PACKAGES if name in machine["packages"]
    )
    setting = (
        f"{machine['processor']}, {machine['system']}, Python {machine['python']}. {packages}. "
        f"Commit {machine['commit']}."
    )
    return f"{INTRODUCTION}\n{setting}\n\n{render(records)}\n"


def _cell(record: Record) -> str:
    if record.status.startswith("not applicable"):
        return "–"
    text = f"{record.iterations}, {1e3 * record.seconds:.2f}, {record.residual:.0e}"
    if record.is_right:
        return text
    return f"{record.status}{' (wrong)' if record.is_wrong else ''}: {text}"


def _summary(solver: str, own: list[Record], found: dict[tuple[str, str], Any]) -> str:
    tried = [r for r in own if not r.status.startswith("not applicable")]
    right = [r for r in tried if r.is_right]
    wrong = sum(r.is_wrong for r in tried)
    ours = [found.get((r.problem, "native")) for r in right]
    both = [(a, b) for a, b in zip(right, ours, strict=True) if b is not None and b.is_right]
    return (
        f"| {solver} | {len(right)}/{len(tried)} | {wrong} | {len(tried) - len(right) - wrong} "
        f"| {sum(a.seconds for a, _ in both):.3f} | {sum(b.seconds for _, b in both):.3f} |"
    )


def _optima(records: list[Record]) -> list[str]:
    """Lines on solutions that miss a published optimal value."""
    if not sdplib.FILES:
        return []
    published = sdplib.published_optima()
    return [
        f"- {r.problem}, {r.solver}: objective {r.objective:.7e}, "
        f"published {published[r.problem]:.7e}"
        for r in records
        if r.problem in published and r.is_right
        and abs(abs(r.objective) - abs(published[r.problem])) > DIGITS * (1 + abs(r.objective))
    ]  # fmt: skip
