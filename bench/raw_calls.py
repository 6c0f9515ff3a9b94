"""A client of gRPC that misbehaves on purpose: halves of messages, answers that nobody reads.

One connection, blocking, as bad as it is asked to be. Speaks HTTP/2 by `h2`, another implementation
than the server's, and keeps its rules: the server has no reason to hang up. Knows no disturbance.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self

import h2.connection
import h2.events
import h2.settings
from h2.config import H2Configuration

from penstock.domain.units import Bytes

INFER = "/inference.GRPCInferenceService/ModelInfer"
WIDE_WINDOW: Bytes = (1 << 31) - 1

_PREFIX = struct.Struct(">BI")  # gRPC: not compressed, bytes of the message
_READ_BYTES = 1 << 16
_PATIENCE_S = 5.0
_PAUSE_S = 0.05
_TAIL_BYTES = 100
_USUAL_WINDOW = 65_535


def framed(message: bytes) -> bytes:
    """Return a message as gRPC puts it on a stream."""
    return _PREFIX.pack(0, len(message)) + message


class RawConnection:
    """A connection that stands; closed with the block.

    Args:
        address: ``host:port``.
        window_bytes: of answers that the server may send on each stream before it has to wait. The
            connection's own window is never less than that.
        receive_bytes: of the socket's buffer for what is not read; 0: as the system thinks best.

    Raises:
        OSError: nobody listens there, or says anything.
    """

    def __init__(
        self, address: str, window_bytes: Bytes = _USUAL_WINDOW, receive_bytes: Bytes = 0
    ) -> None:
        host, _, port = address.rpartition(":")
        self._authority = address
        self._socket = socket.socket()
        if receive_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.settimeout(_PATIENCE_S)
        self._connection = h2.connection.H2Connection(
            config=H2Configuration(client_side=True, header_encoding=None)
        )
        try:
            self._socket.connect((host, int(port)))
            self._greet(window_bytes)
        except OSError:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Go without a word."""
        self._socket.close()

    def ask(self, message: bytes) -> int:
        """Send a request and return its stream; the answer is not waited for."""
        body = framed(message)
        number = self._begin()
        self._send_data(number, body, ended=True)
        self._flush()
        return number

    def ask_half(self, message: bytes, *, amid_frame: bool = False) -> Bytes:
        """Send half a request, or as much of that as the server has room for; the rest never comes.

        Args:
            message: whose half.
            amid_frame: stop within a frame. Nothing can be sent on this connection after that.

        Returns:
            How many bytes of it were sent.
        """
        number = self._begin()
        body = framed(message)
        half = body[: min(len(body) // 2, self._room(number))]
        self._send_data(number, half, ended=False)
        self._flush(_TAIL_BYTES if amid_frame else 0)
        return len(half)

    def hear(self) -> Bytes:
        """Read what comes until there is a pause, and return how many bytes of answers came.

        No window is opened for more.

        Raises:
            OSError: the server hung up.
        """
        heard = 0
        self._socket.settimeout(_PAUSE_S)
        try:
            while True:
                heard += sum(
                    len(each.data)
                    for each in self._read()
                    if isinstance(each, h2.events.DataReceived)
                )
        except TimeoutError:
            return heard
        finally:
            self._socket.settimeout(_PATIENCE_S)

    def _greet(self, window_bytes: Bytes) -> None:
        codes = h2.settings.SettingCodes
        self._connection.initiate_connection()
        self._connection.update_settings({codes.INITIAL_WINDOW_SIZE: window_bytes})
        if window_bytes > _USUAL_WINDOW:
            self._connection.increment_flow_control_window(window_bytes - _USUAL_WINDOW)
        self._flush()
        while not any(isinstance(each, h2.events.SettingsAcknowledged) for each in self._read()):
            pass

    def _begin(self) -> int:
        number = self._connection.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", INFER),
            (":authority", self._authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        self._connection.send_headers(number, headers)
        return number

    def _room(self, number: int) -> Bytes:
        return self._connection.local_flow_control_window(number)

    def _send_data(self, number: int, data: bytes, *, ended: bool) -> None:
        step = self._connection.max_outbound_frame_size
        for start in range(0, len(data), step):
            part = data[start : start + step]
            last = start + len(part) == len(data)
            self._connection.send_data(number, part, end_stream=ended and last)

    def _flush(self, tail_bytes: Bytes = 0) -> None:
        output = self._connection.data_to_send()
        self._socket.sendall(output[: len(output) - tail_bytes])

    def _read(self) -> list[h2.events.Event]:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError("the server hung up")
        events: list[h2.events.Event] = self._connection.receive_data(data)
        self._flush()
        return events
