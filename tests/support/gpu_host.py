"""A host with a GPU that is not there: libraries and a control program for real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.shares.mps import CONTROL

ROOT = Path(__file__).parents[2]

# A daemon is a sleep that has the directories in its environment, as the real one has.
_CONTROL = """#!/bin/sh
pid="$CUDA_MPS_PIPE_DIRECTORY/nvidia-cuda-mps-control.pid"
if [ "$1" = -d ]; then
  if [ -n "$FAKE_MPS_FAILS" ]; then
    echo "no device may be used" > "$CUDA_MPS_LOG_DIRECTORY/control.log"
    exit 1
  fi
  echo "start $CUDA_VISIBLE_DEVICES $CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" >> "$FAKE_MPS_LOG"
  sleep 600 < /dev/null > /dev/null 2>&1 &
  echo $! > "$pid"
  exit 0
fi
read word
echo "$word" >> "$FAKE_MPS_LOG"
[ -n "$FAKE_MPS_STUBBORN" ] && exit 0
[ -f "$pid" ] || exit 1
kill "$(cat "$pid")"
rm "$pid"
"""

_DRIVER = """
from tests.support.cuda import cuda_of_environment

_device = cuda_of_environment()


def __getattr__(name):
    return getattr(_device, name)
"""

_NVML = """
from tests.support.nvml import FakeNvml

_library = FakeNvml()


def __getattr__(name):
    return getattr(_library, name)
"""


class GpuHost:
    """Where the stand-ins lie.

    Attributes:
        log: what the control program was asked to do, a line for each call.
    """

    def __init__(self, directory: Path) -> None:
        self.programs = directory / "bin"
        self.libraries = directory / "lib"
        self.temporary = directory / "tmp"
        self.log = directory / "mps.log"
        for each in (self.programs, self.libraries / "cuda" / "bindings", self.temporary):
            each.mkdir(parents=True)
        (self.programs / CONTROL).write_text(_CONTROL)
        (self.programs / CONTROL).chmod(0o755)
        for package in ("cuda", "cuda/bindings"):
            (self.libraries / package / "__init__.py").touch()
        (self.libraries / "cuda" / "bindings" / "driver.py").write_text(_DRIVER)
        (self.libraries / "pynvml.py").write_text(_NVML)

    @property
    def environment(self) -> dict[str, str]:
        """What a process on this host has in its environment."""
        return {
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{self.libraries}{os.pathsep}{ROOT}",
            "TMPDIR": str(self.temporary),
            "FAKE_MPS_LOG": str(self.log),
        }

    def said(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@contextmanager
def gpu_host(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpuHost]:
    """Let this process, and those it starts, be on such a host."""
    host = GpuHost(directory)
    for name, value in host.environment.items():
        monkeypatch.setenv(name, value)
    yield host
