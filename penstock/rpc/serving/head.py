"""What the headers of a call say, in gRPC's words (gRPC over HTTP/2, "Requests").

Knows header names; nothing of who serves a call.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import TypeAlias

from penstock.domain.units import Micros
from penstock.rpc.http2.hpack import Headers

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

_CONTENT_TYPE = re.compile(rb"application/grpc(?:[+;].*)?", re.IGNORECASE)
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_NS: Mapping[bytes, int] = MappingProxyType(
    {
        b"H": 3_600_000_000_000,
        b"M": 60_000_000_000,
        b"S": 1_000_000_000,
        b"m": 1_000_000,
        b"u": 1_000,
        b"n": 1,
    }
)
_BINARY = b"-bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallHead:
    """What a client says before its first message.

    Attributes:
        path: ``/package.Service/Method``.
        http_status: 200, or what is wrong with it as a request of HTTP.
        timeout_us: how long the client waits; None: it did not say.
        timeout_fault: what it said instead of a time; empty if that was one, or nothing.
        encoding: how its messages may be compressed.
        metadata: all headers of its own, in their order.
    """

    path: str
    http_status: HTTPStatus
    timeout_us: Micros | None
    timeout_fault: str
    encoding: str
    metadata: Metadata


def read_head(headers: Headers) -> CallHead:
    """Return what headers say, whatever they are."""
    fields = dict(headers)
    timeout = fields.get(b"grpc-timeout")
    timeout_us = None if timeout is None else _read_timeout(timeout)
    faulty = timeout is not None and timeout_us is None
    return CallHead(
        path=_text(fields.get(b":path", b"")),
        http_status=_http_status(fields),
        timeout_us=timeout_us,
        timeout_fault=_text(timeout or b"") or "nothing" if faulty else "",
        encoding=_text(fields.get(b"grpc-encoding", b"identity")),
        metadata=tuple(_read_metadata(headers)),
    )


def _http_status(fields: Mapping[bytes, bytes]) -> HTTPStatus:
    if fields.get(b":method") != b"POST":
        return HTTPStatus.METHOD_NOT_ALLOWED
    if not _CONTENT_TYPE.fullmatch(fields.get(b"content-type", b"")):
        return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return HTTPStatus.OK


def _read_timeout(text: bytes) -> Micros | None:
    """Return a time, rounded up; None if it is none."""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        return None
    return -(-int(match[1]) * _UNIT_NS[match[2]] // 1_000)


def _is_own(name: bytes) -> bool:
    """Whether a header is the client's own, rather than the protocol's."""
    return not name.startswith((b":", b"grpc-")) and name not in {b"te", b"content-type"}


def _read_metadata(headers: Headers) -> Iterator[tuple[str, str | bytes]]:
    for name, value in headers:
        if not _is_own(name):
            continue
        if name.endswith(_BINARY):
            yield from ((_text(name), _from_base64(each)) for each in value.split(b","))
        else:
            yield _text(name), _text(value)


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return text


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
