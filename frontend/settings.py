"""Settings of the frontend: built once at the start, never changed.

A flag wins over its environment variable ``PENSTOCK_…``, that over the default here. Knows
nothing of how a setting is used.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock.domain.errors import InvalidSettings
from penstock.scheduling.dispatcher import DispatcherLimits

LOOPBACK = "127.0.0.1"
_LARGEST_PORT = 65535
_EVERYWHERE = ("0.0.0.0", "::", "[::]")  # compared with, never bound to
_MOST_ACCEPTORS = 64
_LOOPBACKS = (LOOPBACK, "::1", "[::1]", "localhost")
_USUAL_REGIONS = 64
_MOST_REGIONS = 1024
_MIB = 1 << 20
OWN_WIRE, LIBRARY_WIRE = WIRES = ("own", "grpcio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one frontend runs with.

    Attributes:
        plan: the plan file.
        repository: the model repository; holds the blocks that were planned.
        host: address to listen on. There is no authentication: leave loopback knowingly.
        port, metrics_port, control_port: 0 lets the system choose.
        acceptors: processes of their own that take requests and hold their tensors; 0: the
            frontend's only process does.
        advertise: host name under which workers reach this frontend; empty: `host`.
        policy, routing: batching and routing policy, by name.
        queue_samples: samples per model that may wait; more are shed.
        stream_requests: requests of one client stream that may be under way at once.
        shared_memory_regions: of clients on this host, at most; 0: none; None: some on loopback
            and none elsewhere, for whoever reaches this frontend may name any object of its user.
        metrics: count for Prometheus.
        max_message_mib: largest request or answer.
        drain_pause_s: time between "not serving" and refusing, for balancers to notice.
        drain_limit_s: how long accepted requests may take to finish at shutdown.
        reflection: let clients list the services.
        wire: who speaks HTTP/2 to clients: this program, ``own``, or ``grpcio``, which is slower.
        uvloop: use the faster event loop where it is installed.
        run_log: file for the log of events and effects, if wanted.
    """

    plan: Path
    repository: Path
    host: str = LOOPBACK
    port: int = 8001
    metrics_port: int = 8002
    control_port: int = 8003
    acceptors: int = 0
    advertise: str = ""
    policy: str = "reservation"
    routing: str = "least-queueing"
    queue_samples: int = 4096
    stream_requests: int = 64
    shared_memory_regions: int | None = None
    metrics: bool = True
    max_message_mib: int = 64
    drain_pause_s: float = 0.5
    drain_limit_s: float = 20.0
    reflection: bool = True
    wire: str = OWN_WIRE
    uvloop: bool = True
    run_log: Path | None = None

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InvalidSettings: one is out of its range.
        """
        for name in ("port", "metrics_port", "control_port"):
            _check(name, getattr(self, name), 0, _LARGEST_PORT)
        for name in ("queue_samples", "stream_requests"):
            _check(name, getattr(self, name), 1, 1 << 31)
        _check("acceptors", self.acceptors, 0, _MOST_ACCEPTORS)
        _check("shared_memory_regions", self.regions, 0, _MOST_REGIONS)
        if self.wire not in WIRES:
            raise InvalidSettings("settings", "wire", " or ".join(WIRES), self.wire)
        _check("max_message_mib", self.max_message_mib, 1, 2047)
        for name in ("drain_pause_s", "drain_limit_s"):
            _check(name, getattr(self, name), 0, 3600)

    @property
    def regions(self) -> int:
        """How many shared memory regions clients may register; 0: shared memory is refused."""
        if self.shared_memory_regions is not None:
            return self.shared_memory_regions
        return _USUAL_REGIONS if self.host in _LOOPBACKS else 0

    @property
    def max_message_bytes(self) -> int:
        """Largest request or answer in bytes."""
        return self.max_message_mib * _MIB

    @property
    def limits(self) -> DispatcherLimits:
        """Bounds of the dispatcher."""
        return DispatcherLimits(queue_samples=self.queue_samples)

    @property
    def reachable_host(self) -> str:
        """Return the host that workers are told."""
        if self.advertise:
            return self.advertise
        return LOOPBACK if self.host in _EVERYWHERE else self.host

    def facts(self) -> dict[str, str]:
        """Return every setting as text, for the log at the start."""
        return {name: "" if value is None else str(value) for name, value in asdict(self).items()}


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidSettings("settings", name, f"{low}..{high}", str(value))
