"""A GPU as NVML tells of it. Starts no CUDA; imports the library only when asked.

What a device does not tell is None: boards differ, and a part of a GPU tells least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from penstock.domain.errors import PenstockError
from penstock.domain.units import Bytes

_PERCENT = 100
_MILLIWATTS = 1_000
_HERTZ_PER_MHZ = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSample:
    """What a GPU does at one moment; None where it does not tell.

    Attributes:
        busy: part of the last moments in which some kernel ran.
        memory_busy: part of them in which memory was read or written.
        sm_hz, memory_hz: present clocks.
    """

    memory_used_bytes: Bytes | None
    busy: float | None
    memory_busy: float | None
    power_watts: float | None
    sm_hz: float | None
    memory_hz: float | None


class NvmlDevice:
    """One GPU, while NVML is open. Make it with `nvml_device`.

    Args:
        nvml: the library.
        handle: the library's own, of the device.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:  # noqa: ANN401 - a library without types
        self._nvml = nvml
        self._handle = handle

    def name(self) -> str:
        """Return what it calls itself."""
        return _text(self._nvml.nvmlDeviceGetName(self._handle))

    def uuid(self) -> str:
        """Return the name by which CUDA knows it everywhere."""
        return _text(self._nvml.nvmlDeviceGetUUID(self._handle))

    def memory_bytes(self) -> Bytes:
        """Return its memory, in all."""
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).total)

    def sample(self) -> DeviceSample:
        """Return what it does now."""
        nvml, handle = self._nvml, self._handle
        rates = self._told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        return DeviceSample(
            memory_used_bytes=self._told(lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used)),
            busy=None if rates is None else rates.gpu / _PERCENT,
            memory_busy=None if rates is None else rates.memory / _PERCENT,
            power_watts=self._told(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / _MILLIWATTS),
            sm_hz=self._clock(nvml.NVML_CLOCK_SM),
            memory_hz=self._clock(nvml.NVML_CLOCK_MEM),
        )

    def _clock(self, kind: int) -> float | None:
        mhz = self._told(lambda: self._nvml.nvmlDeviceGetClockInfo(self._handle, kind))
        return None if mhz is None else float(mhz * _HERTZ_PER_MHZ)

    def _told(self, ask: Callable[[], Any]) -> Any:  # noqa: ANN401 - as many types as questions
        try:
            return ask()
        except self._nvml.NVMLError:
            return None


@contextmanager
def nvml_device(device: str, nvml: Any = None) -> Iterator[NvmlDevice]:  # noqa: ANN401 - a library
    """Open NVML for one GPU.

    Args:
        device: its index as nvidia-smi counts, or its UUID.
        nvml: what stands for the library.

    Raises:
        PenstockError: there is no such GPU, or no NVML.
    """
    if nvml is None:
        nvml = _library(device)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise PenstockError(f"CUDA device {device}: {error}") from error
    try:
        yield NvmlDevice(nvml, _handle(nvml, device))
    except nvml.NVMLError as error:
        raise PenstockError(f"CUDA device {device}: {error}") from error
    finally:
        nvml.nvmlShutdown()


def _library(device: str) -> Any:  # noqa: ANN401 - a library without types
    try:
        import pynvml
    except ModuleNotFoundError as error:
        needs = "its facts need nvidia-ml-py, which is not installed"
        raise PenstockError(f"CUDA device {device}: {needs}") from error
    return pynvml


def _handle(nvml: Any, device: str) -> Any:  # noqa: ANN401 - the library's own type
    if device.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(device))
    return nvml.nvmlDeviceGetHandleByUUID(device)


def _text(given: str | bytes) -> str:
    return given.decode() if isinstance(given, bytes) else str(given)
