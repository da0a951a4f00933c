# SPDX-License-Identifier: Apache-2.0
"""Plain calls with tensors that the core reads and makes by itself: no Python in between.

By the C exchange API of DLPack, which newer releases of PyTorch have. Without it, and for tensors
that are not plain (other dtypes, other devices, gaps, subclasses), `ops` goes by way of NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from cvxlayer.evaluation import Evaluator
from cvxlayer.notices import LARGE_ADJOINT_RESIDUAL
from cvxlayer.plain_call import core_settings, warn_of
from cvxlayer.program.inspection import find_bits
from cvxlayer.program.native_program import build_tensor_program, cone_of
from cvxlayer.program.solution import ConeSolution
from cvxlayer.solve.backend import Settings
from cvxlayer.torch.conversion import machine_epsilon, to_numpy

_NAME = "torch"
_TYPES = (torch.Tensor, torch.nn.Parameter)


class TensorCall(NamedTuple):
    """A call that was begun in the core.

    Attributes:
        evaluator: what was called.
        settings: those of the solve.
        run: what the core keeps.
        dtype: of results.
    """

    evaluator: Evaluator
    settings: Settings
    run: Any
    dtype: torch.dtype

    @property
    def cone(self) -> ConeSolution:
        """The solutions, in canonical scaling."""
        return cone_of(self.run)

    def pull_back(
        self,
        inputs: Sequence[torch.Tensor],
        cotangents: Sequence[torch.Tensor | None],
        needs: Sequence[bool],
    ) -> Sequence[torch.Tensor | None]:
        """Return the gradients of the inputs, of their dtypes; None where there is no need."""
        pull_back = self.run.pull_back_tensors
        found = pull_back(cotangents, needs, LARGE_ADJOINT_RESIDUAL)
        if found is None:
            bars = [None if bar is None else _plain(bar) for bar in cotangents]
            found = pull_back(bars, needs, LARGE_ADJOINT_RESIDUAL)
        gradients, residual = found
        if residual is not None:
            arrays = [to_numpy(tensor) for tensor in inputs]
            epsilons = [machine_epsilon(tensor) for tensor in inputs]
            shape = self.run.batch_shape
            warn_of(residual, shape, self.evaluator, arrays, epsilons, self.cone)
        return gradients


def call(
    evaluator: Evaluator, values: Sequence[Any], solver_args: Mapping[str, Any] | None
) -> tuple[TensorCall, list[torch.Tensor]] | None:
    """Solve, if the values are plain tensors and all is done in the core; else return None.

    The outputs beside the call are empty unless every row is SOLVED.
    """
    program = evaluator.kept.get(_NAME, evaluator)
    if program is evaluator:
        program = evaluator.kept[_NAME] = _find_program(evaluator)
    if program is None:
        return None
    settings = evaluator.settings_of(solver_args)
    if settings.verbose:
        return None
    found = program.run(values, *core_settings(settings))
    if found is None:
        return None
    run, outputs = found
    dtype = outputs[0].dtype if outputs else torch.float64
    return TensorCall(evaluator, settings, run, dtype), outputs


def _find_program(evaluator: Evaluator) -> Any:
    exchange = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    program = evaluator.program
    is_linear = evaluator.is_all_in_core and program.is_linear
    found = [find_bits(spec.domain) for spec in program.parameters]
    domains = [bits for bits in found if bits is not None]
    if exchange is None or not is_linear or len(domains) < len(found):
        return None
    return build_tensor_program(
        program.native,
        exchange,
        _TYPES,
        "is_neg",
        [spec.shape for spec in program.parameters],
        domains,
        [spec.shape for spec in program.outputs],
    )


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(to_numpy(tensor)))
