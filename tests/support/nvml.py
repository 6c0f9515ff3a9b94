"""Stands in for the library under nvidia-smi: one GPU, and what it does not tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

UUID = "GPU-11111111-2222-3333-4444-555555555555"


class NVMLError(Exception):
    """As the library's own."""


@dataclass
class FakeNvml:
    """One GPU.

    Attributes:
        absent: there is no library.
        silent: questions it does not answer.
        open: how often it was opened and not closed.
    """

    name: str | bytes = "NVIDIA H200"
    absent: bool = False
    silent: set[str] = field(default_factory=set)
    open: int = 0

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2

    def nvmlInit(self) -> None:
        if self.absent:
            raise NVMLError("NVML Shared Library Not Found")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index != 0:
            raise NVMLError("Invalid Argument")
        return UUID

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != UUID:
            raise NVMLError("Not Found")
        return UUID

    def nvmlDeviceGetName(self, handle: str) -> str | bytes:
        return self.name

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        self._maybe("memory")
        return SimpleNamespace(total=141 << 30, used=3 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        self._maybe("rates")
        return SimpleNamespace(gpu=75, memory=20)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        self._maybe("power")
        return 321_500

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        self._maybe("clocks")
        return {1: 1_980, 2: 3_201}[kind]

    def _maybe(self, what: str) -> None:
        if what in self.silent:
            raise NVMLError("Not Supported")
