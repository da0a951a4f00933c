# SPDX-License-Identifier: Apache-2.0
"""Parameters as torch tensors → the dense natural QP, for the layers that take matrices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from tests.benchmarks.control import (
    HORIZON,
    INPUTS,
    STATES,
    constant_dynamics,
    dynamics_pattern,
)
from tests.benchmarks.workloads import Values, Workload

Tensors = tuple[torch.Tensor, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class TensorProgram:
    """minimize ½xᵀPx + qᵀx subject to A x = b, G x ≤ h; matrices shared or per instance."""

    P: torch.Tensor
    q: torch.Tensor
    A: torch.Tensor
    b: torch.Tensor
    G: torch.Tensor
    h: torch.Tensor


def _constants(workload: Workload, values: Values) -> TensorProgram:
    """The program of the first instance, without a batch dimension."""
    assert workload.quadratic_program is not None
    program = workload.quadratic_program(tuple(block[:1] for block in values))
    G, h = program.inequalities()
    parts = (program.P.dense, program.q, program.A.dense, program.b, G.dense, h)
    return TensorProgram(*(torch.from_numpy(np.ascontiguousarray(part[0])) for part in parts))


def _dense_dynamics_index() -> torch.Tensor:
    """For each entry of the dense equality matrix its place in [F, H, −1, 0]."""
    rows, columns, source = dynamics_pattern()
    index = np.full((HORIZON * STATES, HORIZON * (STATES + INPUTS)), source.max() + 1)
    index[rows, columns] = source
    return torch.from_numpy(index.ravel())


def _linear_cost(target: torch.Tensor) -> torch.Tensor:
    no_cost = target.new_zeros((len(target), INPUTS))
    return torch.cat([no_cost, -target], dim=1).repeat(1, HORIZON)


def _right_hand_side(F: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    first = -torch.einsum("...ij,...j->...i", F, start)
    rest = start.new_zeros((len(start), (HORIZON - 1) * STATES))
    return torch.cat([first, rest], dim=1)


def _equalities(index: torch.Tensor, F: torch.Tensor, H: torch.Tensor) -> torch.Tensor:
    constants = F.new_tensor([-1.0, 0.0]).expand(len(F), 2)
    entries = torch.cat([F.flatten(1), H.flatten(1), constants], dim=1)
    return entries[:, index].reshape(len(F), HORIZON * STATES, -1)


def _control_form(fixed: TensorProgram) -> Callable[[Tensors], TensorProgram]:
    index = _dense_dynamics_index()

    def form(values: Tensors) -> TensorProgram:
        F, H, start, target = values
        return dataclasses.replace(
            fixed,
            q=_linear_cost(target),
            A=_equalities(index, F, H),
            b=_right_hand_side(F, start),
        )

    return form


def tensor_form(workload: Workload, values: Values) -> Callable[[Tensors], TensorProgram]:
    """The map from parameter tensors to the program; `values` supply what is constant."""
    fixed = _constants(workload, values)
    if not fixed.A.numel():  # both libraries want an empty tensor for "no equalities"
        fixed = dataclasses.replace(fixed, A=fixed.A.new_empty(0), b=fixed.b.new_empty(0))
    dynamics = torch.from_numpy(constant_dynamics()[0])
    forms: dict[tuple[str, ...], Callable[[Tensors], TensorProgram]] = {
        ("point",): lambda v: dataclasses.replace(fixed, q=-v[0]),
        ("q", "h"): lambda v: dataclasses.replace(fixed, q=v[0], h=v[1]),
        ("P", "q", "G", "h"): lambda v: TensorProgram(v[0], v[1], fixed.A, fixed.b, v[2], v[3]),
        ("P", "q", "G", "h", "A", "b"): lambda v: TensorProgram(v[0], v[1], v[4], v[5], v[2], v[3]),
        ("start", "target"): lambda v: dataclasses.replace(
            fixed, q=_linear_cost(v[1]), b=_right_hand_side(dynamics, v[0])
        ),
        ("F", "H", "start", "target"): _control_form(fixed),
    }
    return forms[workload.parameter_names]
