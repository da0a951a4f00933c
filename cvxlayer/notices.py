# SPDX-License-Identifier: Apache-2.0
"""What a call warns about, in one sentence with its figures, at the line that called the layer."""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Callable

import numpy as np

from cvxlayer.errors import DerivativeWarning, InaccurateWarning, Status
from cvxlayer.program.derivative_report import DerivativeReport
from cvxlayer.program.solution import ConeSolution

# Where the derivative is unique, the adjoint system is solved to rounding, far below this.
LARGE_ADJOINT_RESIDUAL = 1e-6


def batch_index(row: int, shape: tuple[int, ...]) -> int | tuple[int, ...]:
    """Return where a row is in the batch, as users write it."""
    if len(shape) == 1:
        return row
    return tuple(int(i) for i in np.unravel_index(row, shape)) if shape else ()


def _levels_to_caller() -> int:
    """Return the `stacklevel` at which a warning points at the code that called the layer."""
    # Level 0 is this function itself.
    level, frame = 0, inspect.currentframe()
    while frame is not None and _package(frame) in ("cvxlayer", "torch", "jax"):
        level, frame = level + 1, frame.f_back
    return level


def _package(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def warn_not_unique(
    residual: np.ndarray,
    batch_shape: tuple[int, ...],
    make_report: Callable[[], DerivativeReport] | None = None,
) -> None:
    """Warn if some row's linear system was not solved: its derivative is not unique.

    Args:
        residual: relative residual of each row.
        batch_shape: the batch dimensions, to name the worst row.
        make_report: makes the derivative report of the call, for those who catch the warning.
    """
    if residual.max(initial=0.0) <= LARGE_ADJOINT_RESIDUAL:
        return
    worst = int(np.argmax(residual))
    count = int(np.count_nonzero(residual > LARGE_ADJOINT_RESIDUAL))
    warnings.warn(
        DerivativeWarning(
            f"The derivative is not unique, or badly conditioned, in {count} of "
            f"{residual.size} rows of the batch: the adjoint system leaves a relative residual "
            f"of {residual[worst]:.1e} at batch index {batch_index(worst, batch_shape)}, above "
            f"{LARGE_ADJOINT_RESIDUAL:.0e}. The gradient there is that of a least-squares "
            "solution; a small quadratic term in the objective usually makes it unique. "
            "`layer.solve(…).derivative` names the constraints that are involved.",
            make_report,
        ),
        stacklevel=_levels_to_caller(),
    )


def warn_inaccurate(cone: ConeSolution) -> None:
    """Warn if some rows stopped short of the tolerance."""
    inaccurate = cone.status == Status.INACCURATE
    count = int(np.count_nonzero(inaccurate))
    if count:
        residuals = np.maximum(np.maximum(cone.primal_residual, cone.dual_residual), cone.gap)
        warnings.warn(
            f"{count} of {len(inaccurate)} rows of the batch stopped short of the tolerance; "
            f"their worst residual is {residuals[inaccurate].max():.1e}. Their values are "
            "returned; for more accuracy raise `max_iters` or rescale the problem.",
            InaccurateWarning,
            stacklevel=_levels_to_caller(),
        )
