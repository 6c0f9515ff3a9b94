"""What a connection and whoever uses it agree upon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from penstock.domain.units import Bytes
from penstock.rpc.http2.streams import Call, Stream

Told_contra = TypeVar("Told_contra", contravariant=True)


class Sink(Protocol[Told_contra, Call]):
    """Who uses a connection. Each method is called while bytes are received, and must not block."""

    def opened(self, stream: Stream[Call], head: Told_contra, *, ended: bool) -> None:
        """A request has begun; `ended`: and has no body."""
        ...

    def received(self, stream: Stream[Call], data: bytes | memoryview, *, ended: bool) -> None:
        """A part of the body has come. The sink grants it again: `Connection.grant`."""
        ...

    def reset(self, stream: Stream[Call]) -> None:
        """The peer gave the stream up; it is forgotten already."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a peer may do.

    Attributes:
        streams: open at a time.
        stream_window_bytes, connection_window_bytes: data under way to us.
        frame_bytes: largest frame.
        header_bytes: of one request, names and values, with 32 for each.
    """

    streams: int = 20_000
    stream_window_bytes: Bytes = 4 << 20
    connection_window_bytes: Bytes = 16 << 20
    frame_bytes: Bytes = 1 << 20
    header_bytes: Bytes = 16 << 10
