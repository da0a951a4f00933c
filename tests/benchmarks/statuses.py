# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.benchmarks.statuses [FILE]`: how solvers end on programs whose end is known.

Every solver gets the programs of tests/catalog/known_programs.py at 1e-8. Its status counts as
right only with a value, or a certificate, that is. The table is printed, or written into FILE.
"""

from __future__ import annotations

import argparse
import collections
import enum
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from cvxlayer.cones import projection
from cvxlayer.errors import Status
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.solve.registry import get_backend
from tests.catalog.known_programs import FAMILIES, SORTS, KnownBatch, Program, known_batch

EPS = 1e-8
#: How far a value of a solved row may be off, relative to its terms; it is not unique otherwise.
VALUE = 1e-5
NEARLY = 1e-3
#: What a certificate may miss, relative to its terms.
CERTIFICATE = 1e-4
BATCHES = 13
SECONDS = 5.0
SOLVERS: dict[str, dict[str, Any]] = {
    "native": {"fallback": False},
    "clarabel": {},
    "scs": {"time_limit_secs": SECONDS},
}


class Verdict(enum.Enum):
    """What a status is worth.

    NEARLY: short of the tolerance, and says so, but close.
    UNDECIDED: no claim at all.
    WRONG: a claim that is not true.
    """

    RIGHT = "right"
    NEARLY = "nearly"
    UNDECIDED = "undecided"
    WRONG = "wrong"


def judge(program: Program, solution: ConeSolution, row: int) -> Verdict:
    """Hold what a solver says of one row against the proof of how it has to end."""
    status = Status(int(solution.status[row]))
    if status in (Status.MAX_ITERATIONS, Status.NUMERICAL_ERROR):
        return Verdict.UNDECIDED
    if status in (Status.SOLVED, Status.INACCURATE) and program.status is Status.SOLVED:
        most = VALUE if status is Status.SOLVED else NEARLY
        if not value_error(program, solution.x[row]) <= most:
            return Verdict.WRONG
        return Verdict.RIGHT if status is Status.SOLVED else Verdict.NEARLY
    if status is not program.status:
        return Verdict.WRONG
    x, y, s = solution.x[row], solution.y[row], solution.s[row]
    error = ray_error(program, x, s) if status is Status.UNBOUNDED else proof_error(program, y)
    return Verdict.RIGHT if error <= CERTIFICATE else Verdict.WRONG


def value_error(program: Program, x: np.ndarray) -> float:
    """Return how far the objective at x is from that of the known solution, relative to both."""
    terms = [
        (0.5 * float(point @ program.P @ point), float(program.q @ point))
        for point in (x, program.x)
    ]
    dual = float(program.b @ program.y)
    scale = max(abs(term) for pair in (*terms, (dual,)) for term in pair)
    return abs(sum(terms[0]) - sum(terms[1])) / (scale or 1.0)


def proof_error(program: Program, y: np.ndarray) -> float:
    """Return how far y is from Aᵀy = 0, bᵀy < 0 and y ∈ K*."""
    outside = y - projection.project_dual(program.cones, y[None])[0]
    value, terms = float(program.b @ y), np.abs(program.A).T @ np.abs(y)
    if not value < 0.0:
        return np.inf
    return max(_share(program.A.T @ y, terms), _share(outside, np.abs(y)))


def ray_error(program: Program, x: np.ndarray, s: np.ndarray) -> float:
    """Return how far (x, s) is from Px = 0, Ax + s = 0, qᵀx < 0 and s ∈ K."""
    outside = s - projection.project(program.cones, s[None])[0]
    if not float(program.q @ x) < 0.0:
        return np.inf
    size = np.abs(x)
    return max(
        _share(program.P @ x, np.abs(program.P) @ size),
        _share(program.A @ x + s, np.abs(program.A) @ size + np.abs(s)),
        _share(outside, np.abs(s)),
    )


def _share(left: np.ndarray, terms: np.ndarray) -> float:
    largest = float(np.max(np.abs(left), initial=0.0))
    if np.isnan(left).any():
        return np.inf
    return largest / float(np.max(terms, initial=0.0)) if largest > 0.0 else 0.0


def solve(solver: str, known: KnownBatch) -> list[Verdict]:
    """Return the verdict on each row of a batch."""
    backend, batch = get_backend(solver), known.batch
    settings = Settings(EPS, EPS, threads=1, extra=SOLVERS[solver])
    solution = backend.solve(backend.setup(batch.structure), batch, settings)
    return [judge(program, solution, row) for row, program in enumerate(known.programs)]


def draw(family: str, sort: str, index: int) -> KnownBatch:
    """Return the batch of this number, the same on every machine and in every run."""
    return known_batch(
        family, sort, np.random.default_rng(zlib.crc32(f"{family}/{sort}/{index}".encode()))
    )


Counts = dict[tuple[str, str, str], collections.Counter[Verdict]]


def measure(solvers: list[str], batches: int = BATCHES) -> tuple[Counts, dict[str, float]]:
    """Count the verdicts of each (solver, family, sort), and the processor time of each solver."""
    counts: Counts = collections.defaultdict(collections.Counter)
    seconds: dict[str, float] = dict.fromkeys(solvers, 0.0)
    for family in FAMILIES:
        for sort in SORTS:
            for index in range(batches):
                known = draw(family, sort, index)
                for solver in solvers:
                    start = time.process_time()
                    verdicts = solve(solver, known)
                    seconds[solver] += time.process_time() - start
                    counts[solver, family, sort].update(verdicts)
                    for row, verdict in enumerate(verdicts):
                        if solver == "native" and verdict is not Verdict.RIGHT:
                            print(family, sort, index, row, verdict.value, file=sys.stderr)
        print(f"{family}: done", file=sys.stderr)
    return counts, seconds


_HEAD = """# Statuses

How solvers end on programs whose end is known, each with its proof: a primal and dual solution, a
certificate of infeasibility, or a ray. A status counts as right only where the value agrees with
the known one (to {value:.0e}) or the certificate holds (to {certificate:.0e}), as nearly right
where the row is INACCURATE and close, as undecided where nothing is claimed, and as wrong where
something is claimed that is not true. All solvers run at 1e-8; the native engine without its
fallback. Made by `python -m tests.benchmarks.statuses docs/statuses.md`.
"""


def render(counts: Counts, seconds: dict[str, float]) -> str:
    """Return the page: totals, then a line for each family and each sort of cones."""
    solvers = list(seconds)
    lines = [_HEAD.format(value=VALUE, certificate=CERTIFICATE)]
    lines += [
        "| solver | right | nearly | undecided | wrong | of | seconds |",
        "|---|" + "---|" * 6,
    ]
    for solver in solvers:
        total = _sum(counts, solver, None, None)
        numbers = [str(total[verdict]) for verdict in Verdict]
        lines.append(
            f"| {solver} | {' | '.join(numbers)} | {sum(total.values())} | {seconds[solver]:.1f} |"
        )
    for title, keys, is_family in (("family", FAMILIES, True), ("cones", SORTS, False)):
        lines += ["", f"Right / nearly / undecided / wrong, by {title}:", ""]
        lines += [f"| {title} | " + " | ".join(solvers) + " |", "|---|" + "---|" * len(solvers)]
        for key in keys:
            cells = [
                _sum(counts, solver, *((key, None) if is_family else (None, key)))
                for solver in solvers
            ]
            texts = [" / ".join(str(cell[verdict]) for verdict in Verdict) for cell in cells]
            lines.append(f"| {key} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, ""])


def _sum(
    counts: Counts, solver: str, family: str | None, sort: str | None
) -> collections.Counter[Verdict]:
    total: collections.Counter[Verdict] = collections.Counter()
    for (who, of_family, of_sort), count in counts.items():
        if who == solver and family in (None, of_family) and sort in (None, of_sort):
            total.update(count)
    return total


def main() -> None:
    """Measure, then print or write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.statuses")
    parser.add_argument("file", nargs="?", type=Path, help="where to write the page")
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=list(SOLVERS))
    parser.add_argument("--batches", type=int, default=BATCHES, help="of each family and sort")
    options = parser.parse_args()
    page = render(*measure(options.solvers, options.batches))
    if options.file is None:
        print(page)
    else:
        options.file.write_text(page)


if __name__ == "__main__":
    main()
