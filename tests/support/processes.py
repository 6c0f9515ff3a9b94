"""Server processes for tests: started, heard until ready, and never left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30


@dataclass(slots=True, eq=False)
class ServerProcess:
    """A process that reports in JSON lines."""

    process: subprocess.Popen[str]
    addresses: dict[str, str]

    def event(self, wanted: str) -> dict[str, str]:
        """Read lines until one tells of an event."""
        for line in _lines(self.process):
            told: dict[str, str] = json.loads(line)
            if told["event"] == wanted:
                return told
        raise AssertionError(f"the server ended before {wanted!r}")

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop and return its exit code."""
        self.process.send_signal(with_signal)
        return self.process.wait(PATIENCE_S)


def _lines(process: subprocess.Popen[str]) -> IO[str]:
    if process.stdout is None:
        raise AssertionError("the process was started without a pipe")
    return process.stdout


@contextmanager
def a_server(arguments: Sequence[str], *, ready: bool = True) -> Iterator[ServerProcess]:
    """Run `python -m` with these arguments until the block ends.

    Args:
        ready: wait until it is ready, not only until it listens.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        server = ServerProcess(process, {})
        server.addresses = server.event("listening")
        if ready:
            server.event("ready")
        yield server
    finally:
        process.kill()
        process.communicate()


def a_loopback_server(directory: Path, *options: str) -> list[str]:
    """Return the arguments of a frontend that answers by itself."""
    return ["tests.support.loopback_server", str(directory), *options]
