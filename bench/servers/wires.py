"""How a client speaks with a server: its requests and answers as bytes, and its connections.

What is sent again and again is encoded once, and answers are decoded only to be checked. Knows no
particular server.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from bench.closed_loop import EncodedClient
from bench.servers.programs.models import SHAPES, Rows, answered_rows, sample
from client.infer import InferenceClient, RequestFailed
from client.messages import decode_answer, infer_message
from penstock.domain.units import US_PER_SECOND, Micros

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")
_OK = b" 200 "


class PeerClient(EncodedClient, Protocol):
    """Connections to one server, open inside an ``async with`` block."""

    async def __aenter__(self) -> Self:
        """Open them, or leave that to `wait_connected`."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close them."""
        ...

    async def wait_connected(self, timeout_us: Micros) -> None:
        """Wait until all of them stand.

        Raises:
            RequestFailed: some did not in time.
        """
        ...


class Wire(Protocol):
    """A protocol that some servers speak."""

    @property
    def name(self) -> str:
        """What a table calls it."""
        ...

    def request(self, model: str) -> bytes:
        """Return the encoded request for the model's sample."""
        ...

    def answer(self, model: str, encoded: bytes) -> Rows:
        """Return the rows of an encoded answer.

        Raises:
            ValueError: it holds none.
        """
        ...

    def client(self, address: str, callers: int) -> PeerClient:
        """Return a client for so many requests at once."""
        ...


@dataclass(frozen=True, slots=True)
class OipWire:
    """Open Inference Protocol over gRPC: one connection carries all requests."""

    name: str = "OIP gRPC"

    def request(self, model: str) -> bytes:
        """Return an encoded ``ModelInferRequest``."""
        return infer_message(model, {SHAPES[model].input: sample(model)}).SerializeToString()

    def answer(self, model: str, encoded: bytes) -> Rows:
        """Return the rows of an encoded ``ModelInferResponse``."""
        return answered_rows(model, decode_answer(encoded).array().tobytes())

    def client(self, address: str, callers: int) -> PeerClient:  # noqa: ARG002  # one connection
        """Return a client with one connection."""
        return InferenceClient(address)


@dataclass(frozen=True, slots=True)
class HttpWire:
    """HTTP/1.1: a connection carries one request at a time, so each caller has one.

    Attributes:
        path: of the server's route.
        packed: the rows' bytes as base64 in JSON; else as they are.
    """

    path: str
    packed: bool

    @property
    def name(self) -> str:
        """HTTP, and what its bodies are."""
        return "HTTP JSON" if self.packed else "HTTP bytes"

    def request(self, model: str) -> bytes:
        """Return a whole ``POST``, head and body."""
        body = sample(model).tobytes()
        if self.packed:
            body = json.dumps({"rows": base64.b64encode(body).decode()}).encode()
        kind = "application/json" if self.packed else "application/octet-stream"
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def answer(self, model: str, encoded: bytes) -> Rows:
        """Return the rows in a body."""
        if self.packed:
            encoded = base64.b64decode(json.loads(encoded)["rows"])
        return answered_rows(model, encoded)

    def client(self, address: str, callers: int) -> PeerClient:
        """Return a client with a connection for each caller."""
        return HttpClient(address, callers)


class HttpClient:
    """Kept-alive HTTP/1.1 connections that carry prepared requests.

    Args:
        address: ``host:port``.
        connections: how many; each carries one request at a time, which the caller sees to.
    """

    def __init__(self, address: str, connections: int) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._connections = connections
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> Self:
        """Open nothing yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        for _, writer in self._streams:
            writer.close()

    async def wait_connected(self, timeout_us: Micros) -> None:
        """Open all connections.

        Raises:
            RequestFailed: some could not be opened in time.
        """
        try:
            async with asyncio.timeout(timeout_us / US_PER_SECOND):
                for _ in range(self._connections):
                    self._streams.append(await asyncio.open_connection(self._host, self._port))
        except OSError as error:  # a timeout is one too
            raise RequestFailed("UNAVAILABLE", str(error)) from error

    async def infer_encoded(self, request: bytes, *, deadline_us: Micros, turn: int) -> bytes:
        """Send one request and return the body of its answer.

        Raises:
            RequestFailed: the connection broke, the status is not 200 or there is no answer in
                time.
        """
        reader, writer = self._streams[turn]
        try:
            async with asyncio.timeout(deadline_us / US_PER_SECOND):
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            raise RequestFailed("UNAVAILABLE", repr(error)) from error
        status = head.partition(b"\r\n")[0]
        if _OK not in status or length is None:
            raise RequestFailed("UNKNOWN", f"{status!r} {body[:200]!r}")
        return body
