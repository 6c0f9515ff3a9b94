"""Time what runs on a device, and say which device it was.

One of the few modules that read a clock. Knows nothing of blocks, profiles or files.

On CUDA a captured graph is replayed between two events, as a worker runs a stage: launch overhead
of the host is not part of the latency. On the CPU each run is timed by the host's clock.
"""

from __future__ import annotations

import math
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import TypeAlias

import torch

from execution.compiling import reason_of
from execution.cuda_graphs import Built, Run, captured, plain
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
        warm_up: runs whose time is thrown away.
        repeats: timed runs, unless `seconds` are over first; never fewer than five.
        seconds: time for one cell's timed runs.
    """

    warm_up: int = 3
    repeats: int = 30
    seconds: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Latency of one run in microseconds.

    Attributes:
        remark: why it was not measured as a captured graph; empty if it was, and on the CPU.
    """

    mean_us: float
    median_us: float
    p99_us: float
    samples: int
    remark: str = ""


def time_runs(run: Run, inputs: Tensors, effort: Effort) -> Timing:
    """Measure runs with the given inputs, on the device they lie on.

    Args:
        run: must have run with inputs of this size before, if it is compiled.
        inputs: at least one; `run` takes all of them.
        effort: how often to run.
    """
    with torch.inference_mode():
        for _ in range(effort.warm_up):
            run(inputs)
        if not inputs[0].is_cuda:
            return _summary(_samples(_cpu_timer(run, inputs), effort))
        built, remark = _built(run, inputs)
        return replace(_summary(_samples(_cuda_timer(built), effort)), remark=remark)


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


def _cpu_timer(run: Run, inputs: Tensors) -> Timer:
    def timer() -> float:
        begin = time.perf_counter_ns()
        run(inputs)
        return (time.perf_counter_ns() - begin) / NS_PER_US

    return timer


def _cuda_timer(built: Built) -> Timer:
    begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def timer() -> float:
        begin.record()
        built.run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * US_PER_MS

    return timer


def _built(run: Run, inputs: Tensors) -> tuple[Built, str]:
    """Return a captured graph, or what launches kernels one by one and why."""
    torch.cuda.synchronize()
    stream = _capture_stream(inputs[0].device)
    try:
        return captured(run, inputs, stream, torch.cuda.graph_pool_handle()), ""
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return plain(run, inputs), f"not captured: {reason_of(error)}"


def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream to capture on: the present one, because a graph stays on its share.

    A new one in the place of the default stream, which cannot be captured.
    """
    present = torch.cuda.current_stream(device)
    if present != torch.cuda.default_stream(device):
        return present
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


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
