"""What is known of a server before it runs, and what it takes to start it.

Knows no particular server, and nothing of processes or load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from bench.servers.wires import Wire
from penstock.domain.errors import PenstockError

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).parent / "pins"
PROGRAMS = Path(__file__).parent / "programs"


class NotAvailable(PenstockError):
    """A server cannot be had, or does not run, here; says why in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where one server is to run.

    Attributes:
        folder: empty, for its files; gone after the run.
        python: interpreter of its environment.
        model: the one model to serve.
        ports: free ones of the loopback interface; the first is the one that will be asked.
    """

    folder: Path
    python: Path
    model: str
    ports: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a server is started: its command line, and what the environment has beside ours."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


# Writes the files that a server needs and returns how it is started. Starts nothing.
Plan: TypeAlias = Callable[[Site], Launch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server.

    Attributes:
        name: on the command line, and of its pins and environment.
        version: of what is measured.
        wire: how a client speaks with it.
        setting: workers, threads and what else was chosen, for the reader of a table.
        streams: whether it takes many requests over one ``ModelStreamInfer``.
        pinned: whether it has an environment of its own; else it runs in ours.
    """

    name: str
    version: str
    wire: Wire
    setting: str
    plan: Plan
    streams: bool = False
    pinned: bool = True
