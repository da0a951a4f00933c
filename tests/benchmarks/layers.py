# SPDX-License-Identifier: Apache-2.0
"""The whole torch step: parameters in, output, and the gradient of a linear loss.

Every layer is built from a fresh problem: cvxpylayers reorders what CVXPY caches on a
problem, and a second layer on the same one would be handed permuted data.
"""

from __future__ import annotations

import abc
import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpy.reductions.solvers.conic_solvers.moreau_conif import MOREAU
from cvxpylayers.torch import CvxpyLayer
from proxsuite.torch.qplayer import QPFunction as ProxsuiteFunction

from tests.benchmarks.contenders import (
    TOLERANCE,
    AbstractContender,
    Answer,
    DataSet,
    Job,
    needs_quadratic_program,
)
from tests.benchmarks.tensor_forms import TensorProgram, tensor_form
from tests.benchmarks.workloads import Built, Values, Workload

# cvxpylayers 1.2.0 asks CVXPY for cones on x itself and then drops them: without this
# line its moreau backend ignores sign constraints.
MOREAU.DIR_CONE_KINDS = frozenset()

Tensors = tuple[torch.Tensor, ...]


Call = Callable[[Tensors], torch.Tensor]
DenseSolver = Callable[[TensorProgram], torch.Tensor]


def _torch_job(call: Call, sets: list[DataSet], *, backward_alone: bool = False) -> Job:
    """The job of any function of parameter tensors; its forward may go before the clock starts."""
    inputs = [
        tuple(torch.from_numpy(np.ascontiguousarray(v)).requires_grad_() for v in one.values)
        for one in sets
    ]
    weights = [torch.from_numpy(np.ascontiguousarray(one.output_bar)) for one in sets]
    outputs: dict[int, torch.Tensor] = {}

    def before(k: int) -> None:
        if backward_alone:
            outputs[k] = call(inputs[k])

    def run(k: int) -> tuple[torch.Tensor, Tensors]:
        output = outputs.pop(k) if backward_alone else call(inputs[k])
        return output, torch.autograd.grad((output * weights[k]).sum(), inputs[k])

    def read(found: tuple[torch.Tensor, Tensors], _: int) -> Answer:
        output, gradients = found
        return Answer(
            output=output.detach().numpy(), gradients=[g.detach().numpy() for g in gradients]
        )

    return Job(run, read, before)


class AbstractLayer(AbstractContender):
    """A layer built from the CVXPY problem, timed whole or in its backward pass alone."""

    backward_alone = False

    def refuses(self, workload: Workload) -> str | None:
        if self.backward_alone and workload.quadratic_program is not None:
            return "backward of quadratic programs is compared without the layer"
        return None

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        call = self.build(sets[0].workload, threads)
        return _torch_job(call, sets, backward_alone=self.backward_alone)

    @abc.abstractmethod
    def build(self, workload: Workload, threads: int) -> Call:
        """Values of the parameters ↦ the output."""


class OurLayer(AbstractLayer):
    """cvxlayer.torch.Layer."""

    settings = f"eps = {TOLERANCE:g}, derivative exact"

    def __init__(self, solver: str | None = None) -> None:
        self.name = "cvxlayer" if solver is None else f"cvxlayer ({solver})"
        self._solver = solver

    def build(self, workload: Workload, threads: int) -> Call:
        # Imported here: peers can be measured where the native core is not built.
        from cvxlayer.torch import Layer

        options = {"eps": TOLERANCE, "threads": threads}
        layer = Layer(*workload.build(), gp=workload.gp, solver=self._solver, solver_args=options)
        return lambda values: layer(*values)[0]


class CvxpyLayersMoreau(AbstractLayer):
    """cvxpylayers with moreau, the quadratic objective kept."""

    def __init__(self, mode: str) -> None:
        self.name = f"cvxpylayers moreau {mode}"
        self._options: dict[str, Any] = {
            "solver": mode,
            "device": "cpu",
            "ipm_settings": {
                "tol_gap_abs": TOLERANCE, "tol_gap_rel": TOLERANCE, "tol_feas": TOLERANCE
            },
        }  # fmt: skip
        self.settings = f"solver = {mode}, tol_* = {TOLERANCE:g}, DIR_CONE_KINDS emptied"

    def build(self, workload: Workload, threads: int) -> Call:
        layer = self.layer(workload, threads, CvxpyLayer)
        return lambda values: layer(*values)[0]

    def layer(self, workload: Workload, threads: int, layer_type: Any) -> Any:
        """The layer, for PyTorch or for JAX."""
        del threads
        options = {"solver": cp.MOREAU, "solver_args": self._options}
        return layer_type(*workload.build(), gp=workload.gp, **options)


class CvxpyLayersDiffcp(AbstractLayer):
    """cvxpylayers with diffcp, which has no quadratic objective."""

    def __init__(self, mode: str) -> None:
        self.name = f"cvxpylayers diffcp {mode}"
        self._mode = mode
        self.settings = f"mode = {mode}, solve_method = CLARABEL, tol_* = {TOLERANCE:g}"

    def variant(self, workload: Workload) -> Workload:
        if workload.parameter_names[0] != "P":
            return workload
        return _with_root(workload)

    def build(self, workload: Workload, threads: int) -> Call:
        layer = self.layer(workload, threads, CvxpyLayer)
        return lambda values: layer(*values)[0]

    def layer(self, workload: Workload, threads: int, layer_type: Any) -> Any:
        """The layer, for PyTorch or for JAX."""
        options = {
            "solve_method": "CLARABEL", "mode": self._mode, "n_jobs_forward": threads,
            "n_jobs_backward": threads, "tol_gap_abs": TOLERANCE, "tol_gap_rel": TOLERANCE,
            "tol_feas": TOLERANCE,
        }  # fmt: skip
        return layer_type(*workload.build(), gp=workload.gp, solver=cp.DIFFCP, solver_args=options)


def _with_root(workload: Workload) -> Workload:
    """The same QP with ½‖R x‖² for ½xᵀPx: a parameter P is not DPP for conic solvers."""

    def build() -> Built:
        problem, (P, q, *others), (x,) = workload.build()
        root = cp.Parameter(P.shape, name="root")
        objective = cp.Minimize(0.5 * cp.sum_squares(root @ x) + q @ x)
        return cp.Problem(objective, problem.constraints), [root, q, *others], [x]

    def original(values: Values) -> Values:
        root = values[0]
        return (root.transpose(0, 2, 1) @ root, *values[1:])

    def sample(rng: np.random.Generator, batch: int) -> Values:
        P, *others = workload.sample(rng, batch)
        return (np.linalg.cholesky(P).transpose(0, 2, 1).copy(), *others)

    form = workload.quadratic_program
    assert form is not None
    return dataclasses.replace(
        workload,
        build=build,
        sample=sample,
        symmetric=(),
        quadratic_program=lambda values: form(original(values)),
        cone_program=lambda values: workload.cone_program(original(values)),
    )


class ProxsuiteLayer(AbstractContender):
    """proxsuite's torch layer on the dense natural QP."""

    name = "proxsuite"
    settings = f"eps = eps_backward = {TOLERANCE:g}, omp_parallel off"

    def refuses(self, workload: Workload) -> str | None:
        return needs_quadratic_program(workload)

    def prepare(self, sets: list[DataSet], threads: int) -> Job:
        del threads
        return dense_job(self.solver(), sets)

    def solver(self) -> DenseSolver:
        """The function of the matrices."""
        function = ProxsuiteFunction(eps=TOLERANCE, maxIter=1000, eps_backward=TOLERANCE)

        def solve(form: TensorProgram) -> torch.Tensor:
            unbounded = torch.full_like(form.h, -1e20)
            return function(form.P, form.q, form.A, form.b, form.G, unbounded, form.h)[0]

        return solve


def dense_job(solve: DenseSolver, sets: list[DataSet]) -> Job:
    """The job of a layer that takes the dense natural QP."""
    return _torch_job(dense_call(solve, sets[0].workload, sets[0].values), sets)


def dense_call(solve: DenseSolver, workload: Workload, values: Values) -> Call:
    """Parameters ↦ output, through the dense natural QP; `values` supply what is constant."""
    form = tensor_form(workload, values)
    size = workload.cone_program(tuple(v[:1] for v in values)).structure.num_variables
    where = torch.from_numpy(workload.output(np.arange(size)[None])[0].copy())
    return lambda parameters: solve(form(parameters))[:, where]


def _compiled_layers(solver: str | None) -> list[AbstractLayer]:
    return [
        OurLayer(solver),
        CvxpyLayersMoreau("ipm"),
        CvxpyLayersMoreau("auto"),
        CvxpyLayersDiffcp("lsqr"),
        CvxpyLayersDiffcp("dense"),
    ]


def layer_backward_contenders(solver: str | None = None) -> list[AbstractContender]:
    """The backward pass alone of every layer that takes cones, ours first."""
    contenders: list[AbstractContender] = []
    for layer in _compiled_layers(solver):
        layer.backward_alone = True
        contenders.append(layer)
    return contenders


def step_contenders(solver: str | None = None) -> list[AbstractContender]:
    """Every torch layer, ours first."""
    contenders = [*_compiled_layers(solver), ProxsuiteLayer()]
    if importlib.util.find_spec("qpth") is not None:  # it builds with few setuptools only
        from tests.benchmarks.qpth_layer import QpthLayer

        contenders.append(QpthLayer())
    return contenders
