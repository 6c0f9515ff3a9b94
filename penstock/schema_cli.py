"""The verb `schema`: prints the JSON Schema of a file format."""

from __future__ import annotations

from typing import Annotated

import typer


def schema(
    name: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="cluster, graph, blocks, profile, profile-row, plan, trace or run-log.",
        ),
    ],
    _json: Annotated[
        bool, typer.Option("--json", help="A schema is JSON anyway; taken as every verb takes it.")
    ] = False,
) -> None:
    """Print the JSON Schema of a file format.

    Point an editor at it, or check files with it in another language.
    """
    from penstock.console import show_json
    from penstock.formats.schemas import json_schema

    show_json(json_schema(name))
