# SPDX-License-Identifier: Apache-2.0
"""Cold start of one layer in this fresh process: import, construct, first call.

Run by `run.py` as `python -m tests.benchmarks.cold_start LAYER WORKLOAD`; prints JSON.
What every layer needs (NumPy, CVXPY, torch) is imported first and timed by itself.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def _lap(times: dict[str, float], name: str, since: float) -> float:
    now = time.perf_counter()
    times[name] = now - since
    return now


def construct(name: str, workload: Any) -> Any:
    """Build the layer as a user would, with its default settings."""
    problem, parameters, variables = workload.build()
    if name == "cvxlayer":
        from cvxlayer.torch import Layer

        return Layer(problem, parameters, variables)
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    if name == "cvxpylayers moreau auto":
        from cvxpy.reductions.solvers.conic_solvers.moreau_conif import MOREAU

        MOREAU.DIR_CONE_KINDS = frozenset()
        options = {"solver": cp.MOREAU, "solver_args": {"device": "cpu"}}
    else:
        options = {"solver": cp.DIFFCP}
    return CvxpyLayer(problem, parameters, variables, **options)


def main() -> None:
    """Time the stages and print them."""
    name, workload_name = sys.argv[1:3]
    times: dict[str, float] = {}
    now = time.perf_counter()
    import numpy as np
    import torch

    now = _lap(times, "import_torch", now)
    import cvxpy  # noqa: F401 (the time it takes is what is wanted)

    now = _lap(times, "import_cvxpy", now)
    if name == "cvxlayer":
        import cvxlayer.torch  # noqa: F401
    else:
        import cvxpylayers.torch  # noqa: F401
    _lap(times, "import_layer", now)

    from tests.benchmarks.catalog import workloads

    workload = workloads()[workload_name]
    values = workload.sample(np.random.default_rng(0), 8)
    tensors = [torch.from_numpy(v).requires_grad_() for v in values]
    now = time.perf_counter()
    layer = construct(name, workload)
    now = _lap(times, "construct", now)
    layer(*tensors)[0].sum().backward()
    now = _lap(times, "first_call", now)
    layer(*tensors)[0].sum().backward()
    _lap(times, "second_call", now)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
