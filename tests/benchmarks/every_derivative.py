# SPDX-License-Identifier: Apache-2.0
"""Measures every other derivative and what the adapters cost; run by `run.py`.

`python -m tests.benchmarks.every_derivative --output part.json [--seconds S] [--only WORKLOAD]`,
in a process of its own on one core. Before it is timed, each derivative is held against
differences of solutions by Clarabel.
"""

from __future__ import annotations

import argparse
import functools
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.limits import as_peer, limit_memory
from tests.benchmarks.progress import Progress
from tests.benchmarks.targets import is_ours
from tests.benchmarks.worker import bind

BATCH = {"forward mode": 64, "jacobian": 1, "hessian product": 64, "cotangents": 64, "jit step": 64}
NUM_COTANGENTS = 16
WORKLOADS = ("simplex100", "qp10", "qp50-qh", "mpc20-start", "portfolio30")
OVERHEAD_BATCHES = (1, 64, 1024)
CHECK_BATCH, NUM_SETS = 4, 4
#: Relative to the largest difference, of which first ones are right to 1e-6 and second to 1e-4.
LIMIT = 1e-2
#: Second differences of solutions that are right to 1e-10.
SECOND_STEP = 1e-3
#: For one call of a peer.
LONGEST_CALL_SECONDS = 1.5
#: The same, for its check or for one of its turns.
PEER_SECONDS = 8.0
MOST_MEMORY_GIBIBYTES = 16


class Truth:
    """Differences of trusted solutions, at a few instances of a workload."""

    def __init__(self, workload: Any) -> None:
        self.workload = workload
        self.values = workload.sample(np.random.default_rng(1), CHECK_BATCH)

    def prepare(self, measure: str) -> None:
        """Compute what a measure is held against now: no contender answers for it."""
        assert self.curvatures is not None if measure == "hessian product" else self.directions

    @functools.cached_property
    def directions(self) -> Any:
        """Slopes of a linear loss along one direction per parameter."""
        from tests.benchmarks.reference import parameter_directions

        return parameter_directions(self.workload, self.values)

    @functools.cached_property
    def curvatures(self) -> np.ndarray:
        """Second differences of ½‖output‖² along the same directions; NaN at kinks."""
        from tests.benchmarks.reference import solve

        def loss(moved: Any) -> np.ndarray:
            program = self.workload.cone_program(moved)
            output = self.workload.output(solve(program, self.workload.reference_tolerance)[0])
            return 0.5 * (output**2).reshape(len(output), -1).sum(axis=1)

        here, found = loss(self.values), []
        for tangent in self.directions.tangents:
            estimates = []
            for step in (SECOND_STEP, SECOND_STEP / 2):
                moved = [
                    tuple(v + sign * step * t for v, t in zip(self.values, tangent, strict=True))
                    for sign in (1, -1)
                ]
                estimates.append((loss(moved[0]) + loss(moved[1]) - 2 * here) / step**2)
            coarse, fine = estimates
            kink = np.abs(coarse - fine) > LIMIT * (np.abs(fine) + np.abs(fine).mean())
            found.append(np.where(kink, np.nan, fine))
        return np.array(found)


def _paired(arrays: Any, others: Any) -> np.ndarray:
    """Σ of products over all but the batch dimension."""
    pairs = zip(arrays, others, strict=True)
    return sum((a * b).reshape(len(a), -1).sum(axis=1) for a, b in pairs)  # pyright: ignore


def _error(predicted: Any, truth: np.ndarray) -> float:
    regular = np.isfinite(truth)
    difference = np.linalg.norm((np.array(predicted) - truth)[regular])
    return float(difference / max(np.linalg.norm(truth[regular]), 1e-12))


class Examination:
    """One contender and one measure on one workload: what it is called with, and is it right?"""

    def __init__(self, contender: Any, measure: str, truth: Truth) -> None:
        self.contender, self.measure, self.truth = contender, measure, truth
        self.function: Any = None

    def extra(self, tangent: Any, weights: np.ndarray) -> Any:
        """The second argument of the measure's function, in NumPy."""
        if self.measure in ("forward mode", "hessian product"):
            return tangent
        if self.measure == "jit step":
            return weights
        if self.measure == "jacobian":
            return ()
        scales = np.linspace(1.0, 2.0, NUM_COTANGENTS)
        return np.multiply.outer(scales, weights)

    def convert(self, arrays: Any) -> Any:
        """Return arrays of the framework, tuples of them as tuples."""
        if isinstance(arrays, tuple):
            return tuple(map(self.contender.array, arrays))
        return self.contender.array(arrays)

    def _call(self, values: Any, extra: Any) -> list[np.ndarray]:
        converted = self.convert(values), self.convert(extra)
        if self.function is None:
            self.function = self.contender.choose(self.measure, self.truth.workload, *converted)
        return self.contender.to_numpy(self.function(*converted))

    def error(self) -> float:
        """The largest relative error to the differences.

        Raises:
            CannotError: there is no such derivative.
        """
        directions, values = self.truth.directions, self.truth.values
        weights, tangents = directions.weights, directions.tangents
        if self.measure == "forward mode":
            moved = [self._call(values, tangent) for tangent in tangents]
            return _error([_paired(one, [weights]) for one in moved], directions.slopes)
        if self.measure == "hessian product":
            products = [self._call(values, tangent) for tangent in tangents]
            found = [_paired(*pair) for pair in zip(products, tangents, strict=True)]
            return _error(found, self.truth.curvatures)
        if self.measure == "jacobian":
            return directions.error(self._gradients_by_rows(values, weights))
        found = self._call(values, self.extra(None, weights))
        if self.measure == "jit step":
            return directions.error(found[1:])
        last = np.linspace(1.0, 2.0, NUM_COTANGENTS)[-1]
        return max(directions.error([part[k] / scale for part in found])
                   for k, scale in ((0, 1.0), (-1, last)))  # fmt: skip

    def _gradients_by_rows(self, values: Any, weights: np.ndarray) -> list[np.ndarray]:
        """Multiply the Jacobian of each instance by its weights."""
        rows = []
        for k in range(CHECK_BATCH):
            single = tuple(value[k : k + 1] for value in values)
            blocks = self._call(single, ())
            rows.append([np.tensordot(weights[k : k + 1], b, weights.ndim) for b in blocks])
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def seconds_of_check(self) -> float:
        """Return how long one instance takes, roughly."""
        size = 1 if self.measure == "jacobian" else CHECK_BATCH
        values = tuple(value[:size] for value in self.truth.values)
        weights = self.truth.directions.weights[:size]
        tangent = tuple(part[:size] for part in self.truth.directions.tangents[0])
        start = time.process_time()
        self._call(values, self.extra(tangent, weights))
        return (time.process_time() - start) / size

    def job(self) -> Any:
        """The job over a few data sets."""
        from tests.benchmarks.contenders import Answer, Job

        workload, sets = self.truth.workload, []
        for k in range(NUM_SETS):
            rng = np.random.default_rng([3, k])
            values = workload.sample(rng, BATCH[self.measure])
            weights = rng.standard_normal(
                (BATCH[self.measure], *self.truth.directions.weights.shape[1:])
            )
            tangent = tuple(rng.standard_normal(value.shape) for value in values)
            sets.append((self.convert(values), self.convert(self.extra(tangent, weights))))
        contender, function = self.contender, self.function
        return Job(lambda k: contender.finish(function(*sets[k])), lambda *_: Answer())


def measure_derivatives(
    workload: Any, seconds: float, progress: Progress
) -> Iterator[list[dict[str, Any]]]:
    """The cells of every contender on one workload, one measure after the other."""
    from tests.benchmarks.transformed import MEASURES, transformed_contenders

    truths: dict[str, Truth] = {}
    contenders = transformed_contenders()
    for measure in MEASURES:
        if progress.has(workload.name, measure):
            continue
        jobs: dict[str, Any] = {}
        records = {}
        for one in contenders:
            variant = one.variant(workload)
            key = "" if variant is workload else "variant"
            truth = truths.setdefault(key, Truth(variant))
            truth.prepare(measure)
            records[one.name] = {
                "workload": workload.name, "measure": measure, "batch": BATCH[measure],
                "contender": one.name, "settings": one.settings,
            }  # fmt: skip
            place = workload.name, measure, one.name
            progress.announce(*place)
            found = progress.death(*place) or _verdict(Examination(one, measure, truth), jobs)
            records[one.name] |= found
        for name, found in _times(jobs, seconds, workload.name, measure, progress).items():
            records[name] |= found
        yield list(records.values())


def _times(
    jobs: dict[str, Any], seconds: float, workload: str, measure: str, progress: Progress
) -> dict[str, dict[str, Any]]:
    from tests.benchmarks.timing import Peers
    from tests.benchmarks.timing import measure as time_jobs

    names = [name for name in jobs if not is_ours(name)]
    announce = functools.partial(progress.announce, workload, measure)
    return time_jobs(jobs, NUM_SETS, seconds, Peers(names, PEER_SECONDS, announce))


def _verdict(examination: Examination, jobs: dict[str, Any]) -> dict[str, Any]:
    """Check a contender, and add its job to those to be timed if it is right.

    An error of ours is raised; one of a peer is its verdict.
    """
    from tests.benchmarks.contenders import CannotError

    record: dict[str, Any] = {"error": None}
    name = examination.contender.name
    if not is_ours(name):
        with as_peer(record, PEER_SECONDS):
            record |= _judged(examination, jobs)
        return record
    try:
        return _judged(examination, jobs)
    except CannotError as reason:
        return {"status": "cannot", "note": str(reason), "error": None}


def _judged(examination: Examination, jobs: dict[str, Any]) -> dict[str, Any]:
    name, error = examination.contender.name, examination.error()
    if not error <= LIMIT:
        return {"status": "wrong", "note": f"error {error:.1e}", "error": error}
    expected = examination.seconds_of_check() * BATCH[examination.measure]
    if expected > LONGEST_CALL_SECONDS and not is_ours(name):
        return {"status": "left out", "note": f"{expected:.2g} s a call", "error": error}
    jobs[name] = examination.job()
    return {"status": "right", "note": "", "error": error}


def measure_overheads(workload: Any, seconds: float) -> list[dict[str, Any]]:
    """The step of each adapter beside the time of the engine in it, in turns."""
    from tests.benchmarks.timing import measure as time_jobs

    rows = []
    for batch in OVERHEAD_BATCHES:
        values = [workload.sample(np.random.default_rng([4, k]), batch) for k in range(NUM_SETS)]
        jobs = _overhead_jobs(workload, values)
        found = time_jobs(jobs, NUM_SETS, seconds)
        times = {name: one["processor_seconds"] for name, one in found.items()}
        rows.append({"workload": workload.name, "batch": batch, **times})
    return rows


def _overhead_jobs(workload: Any, values: list[Any]) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import torch

    from cvxlayer.jax import Layer as JaxLayer
    from cvxlayer.torch import Layer
    from tests.benchmarks.contenders import TOLERANCE, Answer, Job

    options = {"solver_args": {"eps": TOLERANCE, "threads": 1}, "gp": workload.gp}
    parts = workload.build()
    layer, jax_layer = Layer(*parts, **options), JaxLayer(*parts, **options)
    tensors = [tuple(torch.from_numpy(v.copy()).requires_grad_() for v in one) for one in values]
    arrays = [tuple(map(jnp.asarray, one)) for one in values]
    weights = [np.random.default_rng(k).standard_normal(layer(*tensors[k])[0].shape)
               for k in range(NUM_SETS)]  # fmt: skip
    torch_weights, jax_weights = (
        list(map(torch.from_numpy, weights)),
        list(map(jnp.asarray, weights)),
    )

    def torch_step(k: int) -> Any:
        output = layer(*tensors[k])[0]
        return torch.autograd.grad(output, tensors[k], torch_weights[k])

    @jax.jit
    def jax_function(values: Any, weights: Any) -> Any:
        output, pull_back = jax.vjp(lambda v: jax_layer(*v)[0], values)
        return output, pull_back(weights)

    def jax_step(k: int) -> Any:
        return jax.block_until_ready(jax_function(arrays[k], jax_weights[k]))

    engine = Engine(layer, values)
    answer = lambda *_: Answer()  # noqa: E731
    return {
        "engine": Job(engine.step, answer),
        "torch": Job(torch_step, answer),
        "jax": Job(jax_step, answer),
    }


class Engine:
    """The solve and the vjp that a step of a layer consists of, called on the reduced programs."""

    def __init__(self, layer: Any, values: list[Any]) -> None:
        from cvxlayer.differentiate.native import NativeDerivative

        evaluator = layer._evaluator
        program, self._backend = evaluator.program, evaluator.options.backend
        self._settings, self._derivative = evaluator.options.settings, NativeDerivative()
        found = [evaluator.evaluate(one, [0.0] * len(one)).solution for one in values]
        self._programs = [one.batch for one in found]
        self._bars = [np.ones_like(one.cone.x) for one in found]
        self._solver = program.prepare(self._backend)
        self._adjoint = self._derivative.setup(program.program.structure)
        self._needs = program.program.needs(program.coordinates.spread([True] * len(values[0])))

    def step(self, k: int) -> Any:
        """Solve and differentiate one batch."""
        batch = self._programs[k]
        cone = self._backend.solve(self._solver, batch, self._settings)
        return self._derivative.vjp(
            self._adjoint, batch, cone, self._bars[k], None, None, needs=self._needs, threads=1
        )


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1.0, help="per cell")
    parser.add_argument("--only", nargs="+", default=list(WORKLOADS))
    options = parser.parse_args()
    bind(1)
    limit_memory(MOST_MEMORY_GIBIBYTES)
    import jax
    import torch

    torch.set_num_threads(1)
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")
    from tests.benchmarks.catalog import workloads

    progress = Progress(options.output)
    for name in options.only:
        workload = workloads()[name]
        for cells in measure_derivatives(workload, options.seconds, progress):
            progress.add(cells=cells)
        if not progress.has(name, "overheads"):
            progress.announce(name, "overheads", "cvxlayer")
            progress.add(overheads=measure_overheads(workload, options.seconds))
    progress.finish()


if __name__ == "__main__":
    main()
