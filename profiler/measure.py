"""Time a module on a device, and say which device it was.

One of the few modules that read a clock. Knows nothing of blocks, profiles or files.

On CUDA a captured graph is replayed between two events, as a worker runs a stage: launch overhead
of the host is not part of the latency. On the CPU each call is timed by the host's clock.
"""

from __future__ import annotations

import math
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import TypeAlias

import torch

from penstock.domain.errors import InvalidSettings
from penstock.domain.profiles import Provenance
from penstock.domain.units import US_PER_MS

Tensors: TypeAlias = Sequence[torch.Tensor]
Timer: TypeAlias = Callable[[], float]

NS_PER_US = 1000
CPU_INFO = Path("/proc/cpuinfo")
NVIDIA_SMI_SECONDS = 10.0
LEAST_SAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to measure one cell.

    Attributes:
        warm_up: calls whose time is thrown away.
        repeats: timed calls, unless `seconds` are over first; never fewer than five.
        seconds: time for one cell's timed calls.
    """

    warm_up: int = 3
    repeats: int = 30
    seconds: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Latency of one call in microseconds."""

    mean_us: float
    median_us: float
    p99_us: float
    samples: int


def time_module(module: torch.nn.Module, inputs: Tensors, effort: Effort) -> Timing:
    """Measure a module with the given inputs, on the device they lie on."""
    with torch.inference_mode():
        for _ in range(effort.warm_up):
            module(*inputs)
        timer = _cuda_timer(module, inputs) if inputs[0].is_cuda else _cpu_timer(module, inputs)
        return _summary(_samples(timer, effort))


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        InvalidSettings: it is neither the CPU nor a CUDA device of this machine.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu" and not number:
        return
    count = torch.cuda.device_count()
    if kind != "cuda" or (number and not number.isdecimal()) or int(number or 0) >= count:
        raise InvalidSettings("device", "", f"cpu or one of {count} CUDA devices", device)


def measured_provenance(device: str, note: str = "") -> Provenance:
    """Return where numbers measured now on this device come from, clocks included."""
    remarks = [note] if note else []
    if device == "cpu":
        name, driver = cpu_name(), platform.release()
        remarks.append(f"threads: {torch.get_num_threads()}")
    else:
        name = torch.cuda.get_device_name(device)
        driver, clocks = _nvidia_state(torch.device(device).index or 0)
        remarks += [f"CUDA {torch.version.cuda}", clocks]
    return Provenance(
        kind="measured",
        device=name,
        driver=driver,
        torch=torch.__version__,
        date=datetime.now(UTC).date().isoformat(),
        note="; ".join(remarks),
    )


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _samples(timer: Timer, effort: Effort) -> list[float]:
    samples: list[float] = []
    stop = time.monotonic() + effort.seconds
    while len(samples) < max(effort.repeats, LEAST_SAMPLES):
        samples.append(timer())
        if len(samples) >= LEAST_SAMPLES and time.monotonic() > stop:
            break
    return samples


def _summary(samples: Sequence[float]) -> Timing:
    ordered = sorted(samples)
    return Timing(
        mean_us=fmean(ordered),
        median_us=median(ordered),
        p99_us=ordered[math.ceil(0.99 * len(ordered)) - 1],
        samples=len(ordered),
    )


def _cpu_timer(module: torch.nn.Module, inputs: Tensors) -> Timer:
    def timer() -> float:
        begin = time.perf_counter_ns()
        module(*inputs)
        return (time.perf_counter_ns() - begin) / NS_PER_US

    return timer


def _cuda_timer(module: torch.nn.Module, inputs: Tensors) -> Timer:
    """Capture the module as a CUDA graph; the warm-up must have run before."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=_capture_stream()):
        module(*inputs)
    begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def timer() -> float:
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * US_PER_MS

    return timer


def _capture_stream() -> torch.cuda.Stream | None:
    """Return the stream to capture on: the present one, because a graph stays on its share.

    None on the default stream, which cannot be captured: torch then takes one of its own.
    """
    present = torch.cuda.current_stream()
    return None if present == torch.cuda.default_stream() else present


def _nvidia_state(index: int) -> tuple[str, str]:
    """Return the driver's version and the present clocks, as far as nvidia-smi tells."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return "unknown", "clocks unknown"
    query = "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit"
    result = subprocess.run(
        [command, query, "--format=csv,noheader", f"--id={index}"],
        capture_output=True,
        text=True,
        timeout=NVIDIA_SMI_SECONDS,
        check=False,
    )
    driver, _, clocks = result.stdout.strip().partition(",")
    return driver or "unknown", f"clocks SM, memory; power limit: {clocks.strip() or 'unknown'}"
