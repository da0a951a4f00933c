# SPDX-License-Identifier: Apache-2.0
"""The commands and their arguments.

Exit codes: 0 the problem is good, 1 it is at fault, 2 the command was used wrongly.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

import cvxlayer
from cvxlayer.cli.render import render_report
from cvxlayer.errors import (
    OptionError,
    ParameterValueError,
    ProblemFileError,
    ShapeError,
)

GOOD, AT_FAULT, WRONG_USE = 0, 1, 2

app = typer.Typer(
    name="cvxlayer",
    help="CVXPY problems as batched, differentiable layers.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the command line on the arguments of the process."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without these characters shows question marks, not a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()


def _print_version(is_wanted: bool) -> bool:
    """Print the version and leave, if wanted; what is returned becomes the option's value."""
    if is_wanted:
        typer.echo(f"cvxlayer {cvxlayer.__version__}")
        raise typer.Exit(GOOD)
    return is_wanted


@app.callback()
def _commands(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """CVXPY problems as batched, differentiable layers."""
    del version


@app.command()
def check(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE[:NAME]",
            help="A Python file that defines a cvxpy.Problem; NAME is a variable that holds it "
            "or a function that returns it, and may be left out when there is only one.",
        ),
    ],
    values: Annotated[
        Path | None,
        typer.Option(
            metavar="VALUES.npz",
            help="Parameter values to check at: one array per parameter, by name, with or "
            "without a batch dimension. By default they are sampled.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many instances to sample.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    gp: Annotated[bool, typer.Option("--gp", help="The problem is a geometric program.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a page.")] = False,
) -> None:
    """Check that a problem can be a layer: rules, size, solve, gradient and time.

    Exits with 0 if it can, 1 if the problem is at fault, 2 if the command was used wrongly.
    """
    # Imported here: CVXPY takes a second to import, and `--help` does not need it.
    from cvxlayer.checks import check_problem, load_problem

    try:
        with _progress() as announce:
            announce("loading CVXPY and the file")
            loaded = load_problem(target)
            report = check_problem(
                loaded.problem, values=values, samples=samples, seed=seed, gp=gp, progress=announce
            )
    except (ProblemFileError, ParameterValueError, ShapeError, OptionError) as error:
        Console(stderr=True).print(Text.assemble(("Error: ", "bold red"), str(error)))
        raise typer.Exit(WRONG_USE) from error
    if as_json:
        found = {"file": str(loaded.path), "problem": loaded.expression, **report.as_json()}
        typer.echo(json.dumps(found, indent=2))
    else:
        Console(highlight=False).print(render_report(report, str(loaded.path), loaded.expression))
    raise typer.Exit(GOOD if report.is_good else AT_FAULT)


@contextlib.contextmanager
def _progress() -> Generator[Callable[[str], None]]:
    """Yield a function that announces a step: a spinner on a terminal, plain lines elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda step: console.print(Text(f"{step} …"))
        return
    with console.status("starting …") as status:
        yield lambda step: status.update(f"{step} …")
