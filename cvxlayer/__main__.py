# SPDX-License-Identifier: Apache-2.0
"""`cvxlayer` and `python -m cvxlayer`: the command line, where its packages are installed."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cvxlayer.errors import MissingDependencyError

_WRONG_USE = 2


def main() -> None:
    """Run the command line.

    Exits with 2 and one sentence when the packages of the extra `cli` are not installed.
    """
    try:
        run = _load()
    except MissingDependencyError as error:
        sys.stderr.write(f"cvxlayer: {error}\n")
        sys.exit(_WRONG_USE)
    run()


def _load() -> Callable[[], None]:
    """Return the command line's entry.

    Raises:
        MissingDependencyError: typer or rich is not installed.
    """
    try:
        # Imported here, so that what is missing can be named.
        from cvxlayer.cli.app import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("typer", "rich"):
            raise
        raise MissingDependencyError(
            f"The command line needs the package `{error.name}`, which is not installed: "
            "install it with `pip install 'cvxlayer[cli]'`."
        ) from error
    return run


if __name__ == "__main__":
    main()
