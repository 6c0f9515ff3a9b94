"""What a worker offers to Prometheus on a port of its own: its device, and its instances' shares.

The device is asked every few seconds. Without NVML there are no metrics of it, which is said once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from penstock.domain.errors import PenstockError
from protos.control_pb2 import InstanceReady, WorkerMessage
from worker.nvml import DeviceSample, NvmlDevice, nvml_device
from worker.settings import GPU_EXECUTORS, WorkerSettings

_EVERY_S = 2.0

OpenDevice = Callable[[str], AbstractContextManager[NvmlDevice]]

_log = logging.getLogger(__name__)

_DEVICE: Mapping[str, tuple[str, Callable[[DeviceSample], float | None]]] = MappingProxyType(
    {
        "memory_used_bytes": ("Memory in use.", lambda each: each.memory_used_bytes),
        "busy_ratio": ("Part of the time in which a kernel ran.", lambda each: each.busy),
        "memory_busy_ratio": (
            "Part of the time in which memory was busy.",
            lambda each: each.memory_busy,
        ),
        "power_watts": ("Power drawn.", lambda each: each.power_watts),
        "sm_clock_hertz": ("Clock of the multiprocessors.", lambda each: each.sm_hz),
        "memory_clock_hertz": ("Clock of the memory.", lambda each: each.memory_hz),
    }
)


class WorkerMetrics:
    """The gauges of one worker, in a registry of their own.

    Attributes:
        registry: what Prometheus is to see.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.registry = CollectorRegistry()
        self._labels = (settings.worker_id, settings.gpu_class)
        self._info = self._gauge("device_info", "Always 1; the labels say what it is.", "device")
        self._memory = self._gauge("device_memory_bytes", "Memory, in all.")
        self._sampled = {
            name: self._gauge(f"device_{name}", text) for name, (text, _) in _DEVICE.items()
        }
        self._sms = self._gauge(
            "instance_sms", "Multiprocessors that an instance really got.", "instance", "mechanism"
        )
        self._error = self._gauge(
            "instance_error",
            "Difference to the model as exported, measured at load: largest or rms, relative.",
            *("instance", "kind"),
        )
        self._shown: dict[str, list[tuple[Gauge, tuple[str, ...]]]] = {}

    def note(self, message: WorkerMessage) -> None:
        """Take what the frontend is told of an instance."""
        match message.WhichOneof("kind"):
            case "ready":
                self._note_ready(message.ready)
            case "gone":
                self._forget(message.gone.instance_id)

    def forget_instances(self) -> None:
        """Take it that there are none any more."""
        for instance in tuple(self._shown):
            self._forget(instance)

    def describe(self, device: NvmlDevice) -> None:
        """Note what does not change about the device."""
        self._info.labels(*self._labels, device.name()).set(1)
        self._memory.labels(*self._labels).set(device.memory_bytes())

    def sample(self, sample: DeviceSample) -> None:
        """Note what the device does now; what it does not tell is left out."""
        for name, (_, value_of) in _DEVICE.items():
            value = value_of(sample)
            if value is not None:
                self._sampled[name].labels(*self._labels).set(value)

    def _note_ready(self, ready: InstanceReady) -> None:
        self._forget(ready.instance_id)
        if ready.share.sms:
            self._show(ready.instance_id, self._sms, ready.share.mechanism, ready.share.sms)
        if ready.computation.compiled:
            self._show(ready.instance_id, self._error, "largest", ready.computation.max_error)
            self._show(ready.instance_id, self._error, "rms", ready.computation.rms_error)

    def _show(self, instance: str, gauge: Gauge, label: str, value: float) -> None:
        labels = (*self._labels, instance, label)
        gauge.labels(*labels).set(value)
        self._shown.setdefault(instance, []).append((gauge, labels))

    def _forget(self, instance: str) -> None:
        for gauge, labels in self._shown.pop(instance, ()):
            gauge.remove(*labels)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        names = ("worker", "gpu_class", *labels)
        return Gauge(f"penstock_worker_{name}", text, names, registry=self.registry)


@asynccontextmanager
async def serve_metrics(
    metrics: WorkerMetrics, settings: WorkerSettings, open_device: OpenDevice = nvml_device
) -> AsyncIterator[int | None]:
    """Offer metrics while the block runs, if a port was asked for; yields the port.

    Raises:
        PenstockError: the port is taken.
    """
    if settings.metrics_port is None:
        yield None
        return
    try:
        server, thread = start_http_server(
            settings.metrics_port, addr=settings.host, registry=metrics.registry
        )
    except OSError as error:
        where = f"{settings.host}:{settings.metrics_port}"
        raise PenstockError(f"cannot offer metrics on {where}: {error.strerror}") from error
    sampling = asyncio.create_task(_sample(metrics, settings, open_device))
    try:
        _log.info("metrics at http://%s:%d/metrics", settings.host, server.server_port)
        yield server.server_port
    finally:
        sampling.cancel()
        await asyncio.wait((sampling,))
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


async def _sample(
    metrics: WorkerMetrics, settings: WorkerSettings, open_device: OpenDevice
) -> None:
    """Ask the device again and again, in a thread: a driver may be slow to answer."""
    if settings.executor not in GPU_EXECUTORS:
        _log.info("no metrics of the device: executor %s uses no GPU", settings.executor)
        return
    try:
        with open_device(settings.device) as device:
            metrics.describe(device)
            while True:
                metrics.sample(await asyncio.to_thread(device.sample))
                await asyncio.sleep(_EVERY_S)
    except PenstockError as error:
        _log.warning("no metrics of the device: %s", error)
