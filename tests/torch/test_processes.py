# SPDX-License-Identifier: Apache-2.0
"""The layer where PyTorch trains: without gradients, under autocast, in workers and in parallel."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import socket
import subprocess
import sys
import textwrap
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.func import vmap  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from cvxlayer.program.native_program import NativeRun  # noqa: E402
from cvxlayer.torch import Layer, ops, tensor_calls  # noqa: E402
from tests.catalog.problems import case_named  # noqa: E402

ROOT = Path(__file__).parents[2]


def relu() -> Layer:
    return Layer(*case_named("relu").build())


@pytest.fixture(params=["tensors", "arrays"])
def kept(monkeypatch, request) -> list[weakref.ref]:
    """Weak references to what each call computed, one way or the other."""
    references: list[weakref.ref] = []
    if request.param == "arrays":
        monkeypatch.setattr(tensor_calls, "_find_program", lambda evaluator: None)
    module, name = (
        (ops, "evaluate_plainly") if request.param == "arrays" else (tensor_calls, "TensorCall")
    )
    original = getattr(module, name)

    def evaluate(*args: Any, **options: Any) -> object:
        made = original(*args, **options)
        references.append(weakref.ref(made.run))
        return made

    monkeypatch.setattr(module, name, evaluate)
    return references


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_nothing_is_kept_for_a_derivative_without_gradients(mode, kept):
    value = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    with mode():
        (output,) = relu()(value)
    gc.collect()
    assert output.grad_fn is None
    assert len(kept) == 1
    assert kept[0]() is None
    (output,) = relu()(value)
    gc.collect()
    assert kept[1]() is not None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_derivative_is_prepared_without_gradients(mode, monkeypatch):
    from cvxlayer.differentiate.native import NativeDerivative

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a derivative was computed")

    for name in ("vjp", "refine", "apply", "curvature"):
        monkeypatch.setattr(NativeDerivative, name, refuse)
    monkeypatch.setattr(NativeRun, "pull_back", refuse)
    monkeypatch.setattr(tensor_calls.TensorCall, "pull_back", refuse)
    layer, value = relu(), torch.randn(3, 5, dtype=torch.float64)
    with mode():
        assert layer.solve(value).value.shape == (3,)
        torch.testing.assert_close(vmap(layer)(value)[0], layer(value)[0], atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_into_the_layer(dtype):
    torch.manual_seed(0)
    linear, layer = torch.nn.Linear(5, 5), relu()
    features = torch.randn(4, 5)
    with torch.autocast("cpu", dtype=dtype):
        hidden = linear(features)
        (output,) = layer(hidden)
        (wide,) = layer(features)
        mapped = vmap(layer)(features)[0]
    assert hidden.dtype == output.dtype == dtype
    assert wide.dtype == mapped.dtype == torch.float32
    torch.testing.assert_close(wide, torch.relu(features), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mapped, wide, atol=0, rtol=0)
    output.float().sum().backward()
    assert linear.weight.grad.isfinite().all()


def test_copies_of_a_layer_have_its_derivatives_of_second_order():
    layer = relu()
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    value = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64)

    def curvature(of: Layer) -> torch.Tensor:
        return torch.func.hessian(lambda v: (of(v)[0] ** 2).sum())(value)

    expected = torch.diag(2.0 * (value > 0).double())
    for other in (
        layer,
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(buffer, weights_only=False),
    ):
        torch.testing.assert_close(curvature(other), expected, atol=1e-6, rtol=1e-6)


def test_a_module_with_a_layer_saves_and_loads_its_state():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), relu())
    other = torch.nn.Sequential(torch.nn.Linear(3, 5), relu())
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    other.load_state_dict(model.state_dict())
    features = torch.randn(2, 3)
    torch.testing.assert_close(other(features)[0], model(features)[0], atol=0, rtol=0)


def test_data_parallel_gives_the_answers_of_the_layer():
    layer, value = relu(), torch.randn(4, 5)
    parallel = torch.nn.DataParallel(torch.nn.Sequential(torch.nn.Identity(), layer))
    torch.testing.assert_close(parallel(value)[0], layer(value)[0], atol=0, rtol=0)
    # On several devices it runs replicas, each in a thread of its own.
    replicas = [layer, layer._replicate_for_data_parallel()]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda replica, part: replica(part)[0], replicas, value.split(2)))
    torch.testing.assert_close(torch.cat(found), layer(value)[0], atol=0, rtol=0)


class Projected(Dataset):
    """Items that are computed by a layer."""

    def __init__(self) -> None:
        self.layer = relu()
        self.values = torch.linspace(-1.0, 1.0, 40).reshape(8, 5)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.layer(self.values[index])[0]


def test_forked_workers_of_a_data_loader_use_a_layer():
    items = Projected()
    items[0]  # the parent's threads run before the fork
    loader = DataLoader(items, batch_size=4, num_workers=2, multiprocessing_context="fork")
    found = torch.cat(list(loader))
    torch.testing.assert_close(found, torch.relu(items.values), atol=1e-5, rtol=1e-5)


def test_spawned_workers_of_a_data_loader_use_a_layer(tmp_path):
    # A file, because a spawned process imports the program it comes from.
    program = tmp_path / "loads.py"
    program.write_text(
        textwrap.dedent(
            """
            import torch
            from torch.utils.data import DataLoader
            from cvxlayer.torch import Layer
            from tests.catalog.problems import case_named

            class Projected(torch.utils.data.Dataset):
                def __init__(self):
                    self.layer = Layer(*case_named("relu").build())
                    self.values = torch.linspace(-1.0, 1.0, 20).reshape(4, 5)
                def __len__(self):
                    return 4
                def __getitem__(self, index):
                    return self.layer(self.values[index])[0]

            if __name__ == "__main__":
                items = Projected()
                loader = DataLoader(items, num_workers=1, multiprocessing_context="spawn")
                found = torch.cat(list(loader))
                torch.testing.assert_close(found, items.values.relu(), atol=1e-5, rtol=1e-5)
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_two_processes_train_to_the_gradient_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = """
        import os, sys, torch
        import torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel
        from cvxlayer.torch import Layer
        from tests.catalog.problems import case_named

        rank = int(sys.argv[1])
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[2])
        dist.init_process_group("gloo", rank=rank, world_size=2)
        torch.manual_seed(0)

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = torch.nn.Linear(3, 6, dtype=torch.float64)
                self.layer = Layer(*case_named("simplex").build())
            def forward(self, features):
                return self.layer(self.linear(features))[0]

        model, features = Model(), torch.randn(4, 3, dtype=torch.float64)
        (model(features) ** 2).sum().backward()
        expected = model.linear.weight.grad.clone()
        model.zero_grad()
        parallel = DistributedDataParallel(model)
        # The mean over two processes of twice their halves.
        (2 * parallel(features[2 * rank : 2 * rank + 2]) ** 2).sum().backward()
        torch.testing.assert_close(model.linear.weight.grad, expected, atol=1e-8, rtol=1e-8)
        dist.barrier()
        dist.destroy_process_group()
        # Once there was a DistributedDataParallel, threads of gloo outlive its group, and seem to
        # be what now and then aborts the process while the interpreter ends, with "terminate
        # called without an active exception" (as pytorch/pytorch#190489). This is about gradients.
        os._exit(0)
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), str(rank), str(port)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for worker in workers:
            _, trouble = worker.communicate(timeout=240)
            assert worker.returncode == 0, trouble
    finally:
        for worker in workers:
            worker.kill()
