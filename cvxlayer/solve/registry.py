# SPDX-License-Identifier: Apache-2.0
"""Name → backend. A solver's package is imported when the solver is first asked for."""

from __future__ import annotations

import dataclasses
import functools
import importlib

from cvxlayer.errors import MissingDependencyError, OptionError, suggest
from cvxlayer.solve.backend import AbstractBackend

DEFAULT = "native"
# Those that can start from an earlier solution, named here so that none has to be loaded to tell.
WARM_STARTING = ("native", "scs")


@dataclasses.dataclass(frozen=True)
class _Entry:
    """Where a backend lives, and how to get what it needs."""

    module: str
    class_name: str
    remedy: str


def _install_extra(extra: str) -> str:
    return f"Install it with `pip install 'cvxlayer[{extra}]'`"


_BACKENDS = {
    "native": _Entry(
        "cvxlayer.solve.native",
        "NativeBackend",
        "Its compiled core is missing: install with `pip install .` (a C++ compiler is needed)",
    ),
    "clarabel": _Entry(
        "cvxlayer.solve.clarabel", "ClarabelBackend", "Install it with `pip install clarabel`"
    ),
    "scs": _Entry("cvxlayer.solve.scs", "ScsBackend", _install_extra("scs")),
    "ecos": _Entry("cvxlayer.solve.ecos", "EcosBackend", _install_extra("ecos")),
    "diffcp": _Entry("cvxlayer.solve.diffcp", "DiffcpBackend", _install_extra("diffcp")),
}


def backend_names() -> tuple[str, ...]:
    """Return every name `solver=` accepts, the default first."""
    return tuple(_BACKENDS)


def get_backend(solver: object = None) -> AbstractBackend:
    """Return the backend that `solver=` asks for.

    Args:
        solver: None for the default, our native engine; a name, upper or lower case (CVXPY's
            constants are such names: `cp.CLARABEL == "CLARABEL"`); or a backend of the
            caller's own, which is returned as it is.

    Returns:
        The backend; the same object each time for the same name.

    Raises:
        OptionError: no backend has this name; names the nearest one.
        MissingDependencyError: the backend's package cannot be imported.
    """
    if solver is None:
        return _load(DEFAULT)
    if isinstance(solver, AbstractBackend):
        return solver
    if not isinstance(solver, str):
        raise OptionError(
            f"`solver` is {solver!r}; it must be None, a name or an `AbstractBackend`. "
            f"Valid names: {', '.join(_BACKENDS)}."
        )
    name = solver.lower()
    if name not in _BACKENDS:
        raise OptionError(
            f"There is no solver `{solver}` here. {suggest(name, _BACKENDS)} "
            "Or pass an `AbstractBackend` of your own."
        )
    return _load(name)


@functools.cache
def _load(name: str) -> AbstractBackend:
    entry = _BACKENDS[name]
    try:
        # Imported here, so that no solver's package is needed before it is asked for.
        module = importlib.import_module(entry.module)
    except ImportError as error:
        raise MissingDependencyError(
            f"The solver `{name}` cannot be loaded: {error}. {entry.remedy}, "
            'or choose another one, such as `solver="clarabel"`.'
        ) from error
    backend: AbstractBackend = getattr(module, entry.class_name)()
    return backend
