"""A stage on a CUDA device: its streams, its built batch sizes, and batches on their way.

No tensor is handed to another stream before it is needed there no more: whoever holds a batch holds
its tensors, until its outputs are in host memory or with the next instance.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from execution.compiling import reason_of
from execution.conversion import set_float32_precision
from execution.cuda_graphs import Built, captured, plain
from penstock.domain.devices import DeviceTensor
from penstock.domain.execution import Computation
from penstock.domain.tensors import Tensor
from penstock.domain.units import US_PER_MS
from worker.executors.base import Handover, StageResult
from worker.executors.idle import COMPILING_QUIET_S, QUIET_S, IdleBuilder
from worker.executors.leaving import WayOut
from worker.executors.padding import Padding
from worker.executors.sizes import SizeBook
from worker.executors.tensors import gathered, host_empty
from worker.executors.torch_stage import TorchStage

_TIMED_RUNS = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Streams:
    """One for each of the three things that go on at once."""

    into: torch.cuda.Stream
    compute: torch.cuda.Stream
    out_of: torch.cuda.Stream

    @classmethod
    def on(cls, device: torch.device, compute: int = 0) -> Streams:
        """Return streams of a device.

        Args:
            device: of which.
            compute: handle of the one to compute on; 0: a new one.
        """
        given = _shared_stream(compute, device) if compute else _new_stream(device)
        return cls(_new_stream(device), given, _new_stream(device))


class CudaFlight:
    """One batch: copied in, computed, copied out.

    Args:
        stage: that computes it.
        sources: inputs in pinned memory, or in pieces of which some are on a device.
    """

    def __init__(
        self, stage: CudaStage, sources: Sequence[torch.Tensor | Tensor], samples: int
    ) -> None:
        self._stage = stage
        self._sources = sources  # until they are copied
        self.samples = samples
        self.size = samples
        self.began = _new_event()
        self.ended = _new_event()
        self.arrived = _new_event()
        self.outputs: Sequence[torch.Tensor] = ()
        with torch.cuda.stream(stage.streams.into):
            self.inputs = [self._copied_in(each) for each in sources]
            self.arrived.record()

    def launch(self) -> None:
        """Queue the computation; return when the batch before it is computed."""
        self._stage.launch(self)

    def result(self, handovers: Sequence[Handover] = ()) -> StageResult:
        """Wait for the outputs, in host memory or where they are handed over."""
        outputs, handed = self.taken_out(handovers)
        compute_us = self.began.elapsed_time(self.ended) * US_PER_MS
        self._stage.book.measured(self.size, compute_us)
        tensors = self._stage.stage.named(outputs) if outputs else ()
        return StageResult(tensors, compute_us=round(compute_us), handed=handed)

    def taken_out(
        self, handovers: Sequence[Handover] = ()
    ) -> tuple[list[torch.Tensor], tuple[tuple[DeviceTensor, ...] | None, ...]]:
        """Wait for what is handed over, and for the outputs in host memory if not all is."""
        stream, done = self._stage.streams.out_of, _new_event()
        way_out, outputs = self._stage.way_out, list[torch.Tensor]()
        with torch.cuda.stream(stream):
            stream.wait_event(self.ended)
            handed = tuple(
                [way_out.hand_over(self.outputs, each, stream.cuda_stream) for each in handovers]
            )
            if not handed or None in handed:
                outputs = way_out.to_host(self.outputs)
            done.record()
        done.synchronize()
        return outputs, handed

    def _copied_in(self, source: torch.Tensor | Tensor) -> torch.Tensor:
        device = self._stage.stage.device
        if isinstance(source, torch.Tensor):
            return source.to(device, non_blocking=True)
        return gathered(source, device, self._stage.streams.into.cuda_stream)


class CudaStage:
    """The sizes of a stage, and the order in which batches run.

    Args:
        stage: on the device.
        streams: of the device.
    """

    def __init__(self, stage: TorchStage, streams: Streams) -> None:
        self.stage = stage
        self.streams = streams
        self.book = SizeBook(stage.stage.batch)
        self._padding = Padding(stage.stage.inputs, stage.stage.outputs)
        self.way_out = WayOut(stage.stage.outputs, self._padding)
        self._built: dict[int, Built] = {}
        self._capture = stage.stage.execution.capture
        self._pool = torch.cuda.graph_pool_handle()
        self._remark = ""
        # While a graph is captured on it, nothing else may be queued on the computing stream.
        self._queueing = threading.Lock()
        self._last: torch.cuda.Event | None = None
        quiet_s = COMPILING_QUIET_S if stage.is_compiled else QUIET_S
        self._builder = IdleBuilder(stage.stage.name, self.book, self._build, quiet_s=quiet_s)

    def start(self) -> Computation:
        """Build the planned size, and see what it makes.

        Raises:
            StageLoadFailed: it does not run, or its outputs are too inexact.
            torch.OutOfMemoryError: there is not enough memory.
        """
        largest = self.stage.stage.batch
        with torch.cuda.stream(self.streams.compute):
            self.stage.first_run(self._padding.buffers(largest, self.stage.device), largest)
        self._build(largest)
        error = self.stage.error_of(self._through)
        torch.cuda.empty_cache()
        if self._ahead:
            self._builder.start()
        launched = "graphs" if self._capture else "plain"
        return self.stage.computation(error, launched=launched, remark=self._remark)

    def take_off(self, sources: Sequence[torch.Tensor | Tensor], samples: int) -> CudaFlight:
        """Start copying a batch to where the stage computes."""
        return CudaFlight(self, sources, samples)

    def launch(self, flight: CudaFlight) -> None:
        """Queue a batch; return when the one before it is computed."""
        if not self._ahead and flight.samples not in self._built:
            self._build(flight.samples)
        with self._queueing:
            self._queue(flight)
            last, self._last = self._last, flight.ended
        self._builder.batch(flight.samples, flight.size)
        if last is not None:
            last.synchronize()

    def close(self) -> None:
        """Let go of graphs and buffers, once nothing runs."""
        self._builder.stop()
        self.streams.compute.synchronize()
        self._built.clear()
        self._last = None

    @property
    def _ahead(self) -> bool:
        """Whether a size takes long to build, and is not built when a batch is waiting for it."""
        return self._capture or self.stage.is_compiled

    @torch.inference_mode()
    def _queue(self, flight: CudaFlight) -> None:
        flight.size = self.book.choose(flight.samples)
        built = self._built[flight.size]
        with torch.cuda.stream(self.streams.compute):
            self.streams.compute.wait_event(flight.arrived)
            flight.began.record()
            self._padding.fill(built.buffers, flight.inputs, flight.samples)
            outputs = self._padding.cut(built.run(), flight.samples)
            # Of its own, so that the next batch need not wait until these are copied out.
            flight.outputs = [each.clone(memory_format=torch.contiguous_format) for each in outputs]
            flight.ended.record()

    def _build(self, size: int) -> None:
        """Run a size for the first time and capture it; the first one that cannot be ends that.

        Raises:
            RuntimeError: a size cannot be built though others could.
        """
        set_float32_precision(self.stage.stage.execution)
        with torch.cuda.stream(self.streams.compute):
            buffers = self._padding.buffers(size, self.stage.device)
            self.stage.run(buffers)
        self.streams.compute.synchronize()
        built = self._captured(buffers) if self._capture else self._plain(buffers)
        took_us = self._time(built)
        self._built[size] = built
        self.book.add(size, took_us)

    @torch.inference_mode()
    def _time(self, built: Built) -> float:
        """Return how long a size takes; the first replay of a graph takes longer than others."""
        began, ended = _new_event(), _new_event()
        with self._queueing, torch.cuda.stream(self.streams.compute):
            built.run()
            began.record()
            for _ in range(_TIMED_RUNS):
                built.run()
            ended.record()
        ended.synchronize()
        return float(began.elapsed_time(ended)) * US_PER_MS / _TIMED_RUNS

    def _plain(self, buffers: Sequence[torch.Tensor]) -> Built:
        return plain(self.stage.run, buffers)

    def _captured(self, buffers: Sequence[torch.Tensor]) -> Built:
        try:
            with self._queueing:
                return captured(self.stage.run, buffers, self.streams.compute, self._pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self._built:
                raise
            self._capture = False
            self._remark = f"not captured: {reason_of(error)}"
            _log.warning("%s: %s", self.stage.stage.name, self._remark)
            return self._plain(buffers)

    def _through(self, inputs: Sequence[torch.Tensor], samples: int) -> Sequence[torch.Tensor]:
        """Send host tensors the way that batches go."""
        pinned = [host_empty(each.shape, each.dtype).copy_(each) for each in inputs]
        flight = self.take_off(pinned, samples)
        flight.launch()
        return flight.taken_out()[0]


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _shared_stream(handle: int, device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.ExternalStream(handle, device)  # type: ignore[no-untyped-call]


def _new_event() -> torch.cuda.Event:
    # Blocking: a thread that waits leaves its core to others.
    return torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
