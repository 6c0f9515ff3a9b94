"""What is measured of servers, and what came of it. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.servers.definition import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many requests under way at once, each a call of its own or all over one stream."""

    name: str
    callers: int
    stream: bool = False


LOADS = (
    Load(name="unary_c1", callers=1),
    Load(name="unary_c32", callers=32),
    Load(name="stream_c32", callers=32, stream=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One load on one server, once.

    Attributes:
        client_cores, server_cores: processors kept busy by the client and by the server's
            processes, warm-up included.
        other_cores: by whatever else ran on this host.
    """

    rate_rps: float
    p50_ms: float
    p99_ms: float
    client_cores: float
    server_cores: float
    other_cores: float


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of one server with one model.

    Attributes:
        rounds: by the name of the load; empty where there are no figures.
        idle_cores: what it used with nothing to do.
        why_not: why there are no figures; None if there are.
    """

    server: Server
    model: str
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    idle_cores: float | None = None
    why_not: str | None = None

    def fail(self, reason: str) -> None:
        """Give up all figures."""
        self.rounds.clear()
        self.why_not = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured: seconds that count and seconds before them, in each of the rounds."""

    seconds: float
    rounds: int
    warm_up_s: float
