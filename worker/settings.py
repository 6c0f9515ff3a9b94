"""Settings of a worker and of its instances. Read once, never changed.

Precedence: flag, then environment (`PENSTOCK_…`), then default; the command line does both.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock.domain.errors import InvalidSettings
from worker.executors import EXECUTORS, new_executor
from worker.stages import StageOrder


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
    restart: RestartSettings = RestartSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSettings:
    """What one stage instance has to know; travels to its process as one line of JSON.

    Attributes:
        frontend_link: host:port that reports and results go to.
        parent: process id of the supervisor; the instance ends with it.
    """

    instance: str
    executor: str
    repository: str
    host: str
    frontend_link: str
    parent: int
    threads: int
    order: StageOrder

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> InstanceSettings:
        """Read what `to_json` wrote.

        Raises:
            InvalidSettings: it is something else.
        """
        try:
            fields = json.loads(line)
            order = fields.pop("order")
            latencies = tuple(order.pop("latency_us_by_batch"))
            return cls(order=StageOrder(latency_us_by_batch=latencies, **order), **fields)
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
) -> WorkerSettings:
    """Check what a person gave and fill in what they left out.

    Raises:
        InvalidSettings: a value cannot work.
        UnknownName: there is no such executor.
    """
    _check_address(frontend)
    if not gpu_class:
        raise InvalidSettings("worker", "--gpu-class", "the name of a GPU class", "nothing")
    if executor not in EXECUTORS:
        new_executor(executor)
    if not repository.is_dir():
        raise InvalidSettings("worker", "--repository", "a directory", str(repository))
    if threads < 1:
        raise InvalidSettings("worker", "--threads", "at least 1", str(threads))
    hostname = socket.gethostname()
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
    )


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidSettings("worker", "--frontend", "host:port", repr(address))
