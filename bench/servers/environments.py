"""Pinned Python environments, one folder for each server.

An environment whose pins or Python differ from those wanted is made anew, as is one that was not
finished. Knows nothing of the servers.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.servers.definition import NotAvailable

_MARKER = "pins.txt"
_INSTALL_S = 1_800


def environment(folder: Path, pins: Path) -> Path:
    """Return the interpreter of an environment with these pins; make it unless it is there.

    Args:
        folder: of the environment alone; what is in it may be removed.
        pins: a file as ``pip install -r`` takes it.

    Raises:
        NotAvailable: it cannot be made.
    """
    python, marker = folder / "bin" / "python", folder / _MARKER
    wanted = f"# Python {sys.version}\n{pins.read_text(encoding='utf-8')}"
    if python.exists() and marker.exists() and marker.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(pins)])
    marker.write_text(wanted, encoding="utf-8")
    return python


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"cannot be installed: {error}") from error
    if done.returncode:
        raise NotAvailable(f"cannot be installed: {_complaint(done.stderr)}")


def _complaint(said: str) -> str:
    lines = said.strip().splitlines()
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it said nothing"])[-1]
