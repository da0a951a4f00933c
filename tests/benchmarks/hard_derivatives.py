# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.benchmarks.hard_derivatives [PAGE.md]`: gradients where they are hard.

Every layer gets the same problems (`tests/catalog/hard_derivatives.py`), one instance each, at
its own default accuracy. Judged by formulas on paper, not by another solver.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpy.reductions.solvers.conic_solvers.moreau_conif import MOREAU
from cvxpylayers.torch import CvxpyLayer

from cvxlayer.errors import DerivativeWarning
from cvxlayer.torch import Layer
from tests.catalog.hard_derivatives import HARD_CASES, HardCase

# As in layers.py: cvxpylayers 1.2.0 drops the cones it asks CVXPY to put on x itself.
MOREAU.DIR_CONE_KINDS = frozenset()

RIGHT = 1e-6
_PAGE = """# Hard derivatives

`python -m tests.benchmarks.hard_derivatives docs/derivatives.md` writes this page. Each problem is
differentiated at one point by each layer at its default settings. The error is the largest
difference to the true gradient, a formula on paper, relative to 1 + its largest entry. At a kink
it is the distance to the convex hull of the gradients of the adjacent smooth pieces (Clarke's
generalized derivative); where the loss depends on a part of the solution that is not unique there
is no truth, and the question is whether the layer says so. Of problems without a solution, the
right answer is an error or NaN, never a finite gradient.

cvxlayer is right on {ours} of {total}, cvxpylayers with diffcp on {diffcp}, with moreau on
{moreau}. **Bold**: right to 1e-6, or said to be undefined.

"""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a layer made of a case: a few words, and whether it is right."""

    words: str
    is_right: bool


def _ours(case: HardCase) -> Callable[..., Sequence[torch.Tensor]]:
    return Layer(*case.build(), gp=case.gp)


def _cvxpylayers(solver: str) -> Callable[[HardCase], Callable[..., Sequence[torch.Tensor]]]:
    def build(case: HardCase) -> Callable[..., Sequence[torch.Tensor]]:
        return CvxpyLayer(*case.build(), gp=case.gp, solver=solver)

    return build


CONTENDERS: dict[str, Callable[[HardCase], Callable[..., Sequence[torch.Tensor]]]] = {
    "cvxlayer": _ours,
    "cvxpylayers, diffcp": _cvxpylayers(cp.DIFFCP),
    "cvxpylayers, moreau": _cvxpylayers(cp.MOREAU),
}


def judge(build: Callable[[HardCase], Any], case: HardCase) -> Verdict:
    """Differentiate one case; a refusal is a verdict too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            layer = build(case)
            values = [torch.tensor(value, requires_grad=True) for value in case.values]
            outputs = layer(*values)
            terms = zip(outputs, case.weights, strict=True)
            sum((x * torch.tensor(w)).sum() for x, w in terms).backward()
        except Exception as error:  # noqa: BLE001 (whatever a layer raises is its answer)
            return Verdict(type(error).__name__, not case.is_solvable)
    zero = [np.zeros_like(value) for value in case.values]
    gradients = [z if v.grad is None else v.grad.numpy() for v, z in zip(values, zero, strict=True)]
    has_warned = any(isinstance(one.message, DerivativeWarning) for one in caught)
    is_finite = all(np.isfinite(gradient).all() for gradient in gradients)
    if not case.is_solvable:
        return Verdict("a finite gradient" if is_finite else "NaN", not is_finite)
    if not case.pieces:
        words = "warns" if has_warned else "no warning"
        return Verdict(words, has_warned or not is_finite)
    error = case.error(tuple(gradients))
    return Verdict(f"{error:.0e}" if np.isfinite(error) else "NaN", error <= RIGHT)


def _kind(case: HardCase) -> str:
    if not case.is_solvable:
        return "no solution"
    return {0: "not unique", 1: "exists"}.get(len(case.pieces), "kink")


def main() -> None:
    """Print the table, or write the page."""
    rows: list[list[str]] = []
    count = dict.fromkeys(CONTENDERS, 0)
    for case in HARD_CASES:
        row = [case.name, case.title, _kind(case)]
        for name, build in CONTENDERS.items():
            verdict = judge(build, case)
            count[name] += verdict.is_right
            row.append(f"**{verdict.words}**" if verdict.is_right else verdict.words)
        rows.append(row)
    header = ["case", "what is hard", "derivative", *CONTENDERS]
    table = "\n".join(
        "| " + " | ".join(one) + " |" for one in [header, ["---"] * len(header), *rows]
    )
    ours, diffcp, moreau = count.values()
    page = _PAGE.format(ours=ours, total=len(rows), diffcp=diffcp, moreau=moreau) + table + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
