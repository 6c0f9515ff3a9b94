"""What a device calls itself, how much memory it has and of what class it is.

Asked without opening a context: of NVML, the library under nvidia-smi. Knows no array library.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from penstock.domain.datasheet import DATASHEET
from penstock.domain.units import Bytes
from worker.nvml import nvml_device

_SLICED = re.compile(r"\b(MIG|GRID|vGPU)\b|-\d+[ABCQ]$")


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One device of this host.

    Attributes:
        uuid: by which CUDA finds it whatever else it sees; empty unless it is a GPU.
    """

    name: str
    memory_bytes: Bytes
    uuid: str = ""


def device_facts(executor: str, device: str, gpu_class: str) -> DeviceFacts:
    """Return the facts of a worker's device; an emulated one says so in its name.

    Args:
        device: of a GPU: its index as nvidia-smi counts, or its UUID.

    Raises:
        PenstockError: it is to be a CUDA device and there is none.
    """
    if executor == "cuda":
        return cuda_facts(device)
    host = DeviceFacts(_processor(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if executor.startswith("emulated"):
        return DeviceFacts(f"emulated {gpu_class} on {host.name}", host.memory_bytes)
    return host


def cuda_facts(device: str) -> DeviceFacts:
    """Ask NVML for a GPU.

    Raises:
        PenstockError: there is no such GPU, or no NVML.
    """
    with nvml_device(device) as found:
        return DeviceFacts(found.name(), found.memory_bytes(), found.uuid())


def recognised_class(name: str) -> str | None:
    """Return the class of the data sheets that a GPU's name tells; None if it tells none.

    A part of a GPU (MIG, vGPU) is none of them, nor is a sibling with a letter more.
    """
    if _SLICED.search(name):
        return None
    words = set(re.split(r"[^A-Za-z0-9]+", name.upper()))
    found = words & DATASHEET.keys()
    return found.pop() if len(found) == 1 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
