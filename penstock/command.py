"""Runs a verb: finds it, imports it, turns what went wrong into one line and an exit code.

Exit codes: 0 done, 1 error, 2 wrong usage or input, 3 infeasible, 130 interrupted. Knows typer and
the error tree; knows a verb only by its entry in the table.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, NoReturn

import typer

from penstock import __version__
from penstock.console import show_error, show_text
from penstock.domain.errors import Infeasible, InvalidInput, PenstockError, UnknownName
from penstock.verbs import Verb

ERROR, USAGE, INFEASIBLE, INTERRUPTED = 1, 2, 3, 130

# Which extra brings a package that a serving host may lack.
EXTRA_OF: Mapping[str, str] = MappingProxyType(
    {
        "ortools": "planner",
        "matplotlib": "planner",
        "torch": "worker",
        "pynvml": "worker",
        "sklearn": "demo",
    }
)

SECTION = re.compile(r"^(?:Args|Returns|Raises|Yields|Example):$", re.MULTILINE)


def run(program: str, verbs: Sequence[Verb], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the verb that the arguments name, and exit.

    Only that verb's module is imported. Set ``PENSTOCK_TRACEBACK=1`` to see where an error came
    from instead of one line.

    Args:
        program: how the caller called us, for the usage line.
        verbs: what may be called; a single one needs no name on the command line.
        arguments: without the program; those of this process if None.

    Raises:
        SystemExit: always.
    """
    given = tuple(sys.argv[1:] if arguments is None else arguments)
    try:
        build_app(verbs, given)(args=given, prog_name=program)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (PenstockError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("PENSTOCK_TRACEBACK") or not is_told_in_one_line(error):
            raise
        show_error(message_of(error))
        sys.exit(exit_code(error))
    sys.exit(0)


def build_app(verbs: Sequence[Verb], arguments: Sequence[str]) -> typer.Typer:
    """Return the typer app, with the real function only for the verb that is called."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    called = verbs[0].name
    if len(verbs) > 1:
        app.callback()(root)
        called = next((word for word in arguments if not word.startswith("-")), "")
    for verb in verbs:
        if verb.name == called:
            function = load(verb)
            app.command(verb.name, help=help_of(function))(function)
        else:
            app.command(verb.name, help=verb.help)(unloaded)
    return app


def load(verb: Verb) -> Callable[..., object]:
    """Import the function behind a verb."""
    module, _, name = verb.target.partition(":")
    function = getattr(importlib.import_module(module), name)
    if not callable(function):
        raise TypeError(f"{verb.target} is not a function")
    return function  # type: ignore[no-any-return]  # a command's result is never used


def help_of(function: Callable[..., object]) -> str:
    """Return what a function's docstring says to its user: all before the sections for us."""
    text = inspect.getdoc(function) or ""
    return SECTION.split(text, maxsplit=1)[0].rstrip()


def unloaded() -> None:
    """Stand in for a verb that is only listed."""


def print_version(asked: bool) -> None:
    """Print the version and exit, if asked."""
    if asked:
        show_text(f"penstock {__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Pipelined inference serving over mixed GPUs.

    Every verb answers --help, and --json with a result for programs.
    """


def exit_code(error: Exception) -> int:
    """Return the documented exit code of an error."""
    match error:
        case InvalidInput() | UnknownName():
            return USAGE
        case Infeasible():
            return INFEASIBLE
        case _:
            return ERROR


def is_told_in_one_line(error: Exception) -> bool:
    """Say whether a person can act on the message alone; anything else is a bug of ours."""
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error) in EXTRA_OF
    return True


def message_of(error: Exception) -> str:
    """Return what to tell of an error."""
    if isinstance(error, ModuleNotFoundError):
        package = missing_package(error)
        return f"{package} is not installed; pip install 'penstock[{EXTRA_OF[package]}]' brings it"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def missing_package(error: ModuleNotFoundError) -> str:
    """Return the top-level package that could not be imported."""
    return (error.name or "").partition(".")[0]
