"""How a request's end is told over gRPC: one table, both for outcomes and for errors.

Knows nothing of why a request ended that way, nor of any particular service.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import grpc

from penstock.domain.errors import InvalidInput, PenstockError, UnknownName
from penstock.domain.requests import DropReason
from penstock.domain.units import Bytes

DROP_STATUS: Mapping[DropReason, grpc.StatusCode] = MappingProxyType(
    {
        DropReason.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
        DropReason.SHED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        DropReason.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        DropReason.FAILED: grpc.StatusCode.INTERNAL,
        DropReason.CANCELLED: grpc.StatusCode.CANCELLED,
    }
)

_DROP_WORDS: Mapping[DropReason, str] = MappingProxyType(
    {
        DropReason.DEADLINE: "the request could not be answered before its deadline",
        DropReason.SHED: "the server is overloaded",
        DropReason.UNAVAILABLE: "no instance can serve the request now",
        DropReason.FAILED: "the computation failed",
        DropReason.CANCELLED: "the request was cancelled",
    }
)

# Status details travel as HTTP/2 metadata, which peers limit to 8 KiB altogether; percent
# encoding may triple their bytes.
_LONGEST_DETAILS: Bytes = 1000
_CUT = "…"


class Refused(PenstockError):
    """What another process of the server did not do, with the status it gave.

    Args:
        status: by gRPC's name.
    """

    def __init__(self, status: str, details: str) -> None:
        super().__init__(details)
        self.status = status


def error_status(error: PenstockError) -> grpc.StatusCode:
    """Return the status that tells an error to the client that caused it."""
    if isinstance(error, Refused):
        return grpc.StatusCode[error.status]
    if isinstance(error, UnknownName):
        return grpc.StatusCode.NOT_FOUND
    if isinstance(error, InvalidInput):
        return grpc.StatusCode.INVALID_ARGUMENT
    return grpc.StatusCode.INTERNAL


def drop_details(reason: DropReason, detail: str) -> str:
    """Return a drop in words for a client."""
    words = _DROP_WORDS[reason]
    return clipped(f"{words}: {detail}" if detail else words)


def clipped(details: str, limit_bytes: Bytes = _LONGEST_DETAILS) -> str:
    """Return the text, cut to what fits a status message; what is no text in it is replaced."""
    encoded = details.encode("utf-8", "replace")
    if len(encoded) > limit_bytes:
        encoded = encoded[: limit_bytes - len(_CUT.encode())]
        return encoded.decode("utf-8", "ignore") + _CUT
    return encoded.decode()
