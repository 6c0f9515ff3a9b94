"""What a device calls itself and how much memory it has, asked without opening a context."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from penstock.domain.errors import PenstockError
from penstock.domain.units import Bytes
from worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One device of this host."""

    name: str
    memory_bytes: Bytes


def device_facts(settings: WorkerSettings) -> DeviceFacts:
    """Return the facts of the worker's device; an emulated one says so in its name.

    Raises:
        PenstockError: it is to be a CUDA device and there is none.
    """
    if settings.executor == "cuda":
        return _cuda_facts(settings.device)
    host = DeviceFacts(_processor(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if settings.executor.startswith("emulated"):
        return DeviceFacts(f"emulated {settings.gpu_class} on {host.name}", host.memory_bytes)
    return host


def _cuda_facts(device: str) -> DeviceFacts:
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(device))
        name = pynvml.nvmlDeviceGetName(handle)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except (pynvml.NVMLError, ValueError) as error:
        raise PenstockError(f"CUDA device {device}: {error}") from error
    return DeviceFacts(str(name), int(memory.total))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
