"""Settings of a worker and of its instances. Read once, never changed.

Precedence: flag, then environment (`PENSTOCK_…`), then default; the command line does both.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from penstock.domain.datasheet import DATASHEET
from penstock.domain.errors import InvalidSettings
from penstock.domain.execution import ExecutionOptions
from penstock.shares.base import ShareOrder
from penstock.shares.choice import AUTO, check_share_name
from penstock.shares.mechanisms import NO_SHARES
from worker.devices import cuda_facts, recognised_class
from worker.executors import EXECUTORS, new_executor
from worker.stages import StageOrder

ProcessPer: TypeAlias = Literal["instance", "device"]

GPU_EXECUTORS = frozenset({"cuda"})
_PORTS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartSettings:
    """How often a crashed instance is started again.

    Attributes:
        attempts: crashes in a row after which it is given up.
        first_pause_s: before the first restart; doubles with each crash in a row.
        longest_pause_s: no pause is longer.
        settled_s: an instance that was ready this long has no crashes in a row.
    """

    attempts: int = 5
    first_pause_s: float = 0.1
    longest_pause_s: float = 5.0
    settled_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a supervisor has to know.

    Attributes:
        frontend: host:port of the frontend's control service.
        gpu_class: which slots of the plan it may take.
        device: which device of the host: a CUDA index; names the device otherwise.
        server: host identity; workers of one server share its network card.
        host: name or address under which instances listen and are reached.
        threads: of the host's processor, per instance.
        share: how instances share the device; ``auto``: the first way that works.
        process_per: ``instance``: a crash ends one; ``device``: one process has all of them.
        metrics_port: on which the worker offers metrics; 0: any free one, None: on none.
    """

    frontend: str
    gpu_class: str
    executor: str
    repository: Path
    worker_id: str
    device: str
    server: str
    host: str
    threads: int = 1
    share: str = AUTO
    process_per: ProcessPer = "instance"
    metrics_port: int | None = None
    restart: RestartSettings = RestartSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSettings:
    """What one stage instance has to know; travels to its process as JSON.

    Attributes:
        frontend_link: host:port that reports and results go to.
        order: what it is to load.
        share: part of the device that it is to hold.
    """

    instance: str
    executor: str
    repository: str
    host: str
    frontend_link: str
    threads: int
    order: StageOrder
    share: ShareOrder = field(default_factory=ShareOrder)

    def to_fields(self) -> dict[str, object]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> InstanceSettings:
        """Read what `to_fields` made, after a way through JSON.

        Raises:
            InvalidSettings: it is something else.
        """
        try:
            given = dict(fields)
            order = dict(given.pop("order"))
            latencies = tuple(order.pop("latency_us_by_batch"))
            execution = ExecutionOptions(**order.pop("execution"))
            return cls(
                order=StageOrder(latency_us_by_batch=latencies, execution=execution, **order),
                share=ShareOrder.from_fields(given.pop("share")),
                **given,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            expected = "the settings a supervisor writes"
            raise InvalidSettings("instance settings", "", expected, repr(error)) from None


def worker_settings(
    *,
    frontend: str,
    gpu_class: str,
    executor: str,
    repository: Path,
    worker_id: str = "",
    device: str = "0",
    server: str = "",
    host: str = "127.0.0.1",
    threads: int = 1,
    share: str = AUTO,
    process_per: str = "instance",
    metrics_port: int | None = None,
) -> WorkerSettings:
    """Check what a person gave and fill in what they left out.

    Args:
        gpu_class: empty: that of the device, recognised by its name.

    Raises:
        InvalidSettings: a value cannot work.
        UnknownName: there is no such executor or way to share a GPU.
        PenstockError: the device cannot be asked for its name.
    """
    _check_address(frontend)
    if executor not in EXECUTORS:
        new_executor(executor)
    _check_share(share, executor)
    _check_metrics_port(metrics_port)
    if not repository.is_dir():
        raise InvalidSettings("worker", "--repository", "a directory", str(repository))
    if threads < 1:
        raise InvalidSettings("worker", "--threads", "at least 1", str(threads))
    hostname = socket.gethostname()
    gpu_class = gpu_class or _gpu_class(executor, device)
    return WorkerSettings(
        frontend=frontend,
        gpu_class=gpu_class,
        executor=executor,
        repository=repository.resolve(),
        worker_id=worker_id or f"{hostname}-{gpu_class}-{device}-{os.getpid()}",
        device=device,
        server=server or hostname,
        host=host,
        threads=threads,
        share=share,
        process_per=_process_per(process_per),
        metrics_port=metrics_port,
    )


def _gpu_class(executor: str, device: str) -> str:
    if executor not in GPU_EXECUTORS:
        raise InvalidSettings("worker", "--gpu-class", "the name of a GPU class", "nothing")
    name = cuda_facts(device).name
    recognised = recognised_class(name)
    if recognised is None:
        expected = f"the name of a GPU class, because {name!r} is none of {', '.join(DATASHEET)}"
        raise InvalidSettings("worker", "--gpu-class", expected, "nothing")
    return recognised


def _check_share(share: str, executor: str) -> None:
    check_share_name(share)
    if executor not in GPU_EXECUTORS and share not in {AUTO, NO_SHARES}:
        expected = f"{AUTO} or {NO_SHARES} with executor {executor}, which uses no GPU"
        raise InvalidSettings("worker", "--share", expected, share)


def _check_metrics_port(port: int | None) -> None:
    if port is not None and not 0 <= port < _PORTS:
        raise InvalidSettings("worker", "--metrics-port", "a port, or 0 for any", str(port))


def _process_per(given: str) -> ProcessPer:
    for each in get_args(ProcessPer):
        if given == each:
            return cast("ProcessPer", each)
    raise InvalidSettings("worker", "--process-per", "instance or device", repr(given))


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidSettings("worker", "--frontend", "host:port", repr(address))
