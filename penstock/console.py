"""What a command says to the person, or the program, that called it.

Results go to stdout, errors and progress to stderr. Knows nothing of what it prints. Rich is
imported when first used, because the start of every command would pay for it otherwise.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def show(*renderables: object, markup: bool = False) -> None:
    """Print text, tables and other rich renderables for a person, on stdout.

    Args:
        renderables: printed one after the other, each on lines of its own.
        markup: read ``[bold]…[/]`` in strings as style; off, because brackets occur in data.
    """
    from rich.console import Console

    console = Console(markup=markup, highlight=False, soft_wrap=False)
    for renderable in renderables:
        console.print(renderable)


def show_json(value: object) -> None:
    """Print a value of plain dicts, lists, strings and numbers as one JSON document, on stdout.

    Raises:
        ValueError: a number in it is infinite or not a number, which JSON cannot say.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def show_text(text: str) -> None:
    """Print text as it is, on stdout: no wrapping, no style."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def note(message: str) -> None:
    """Tell a person something beside the result, as one line on stderr."""
    sys.stderr.write(one_line(message) + "\n")
    sys.stderr.flush()


def show_error(message: str) -> None:
    """Print ``error: …`` as one line on stderr."""
    note(f"error: {message}")


def one_line(message: str) -> str:
    """Join the lines of a message, so that it stays one line in a log."""
    return " ".join(message.split())


def progress(*, quiet: bool = False) -> Progress:
    """Return a progress display on stderr that vanishes when done.

    Args:
        quiet: show nothing; for ``--json`` and for callers that are programs.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
