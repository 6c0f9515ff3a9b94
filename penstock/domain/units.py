"""Units: time is integer microseconds, size is integer bytes. Conversions happen here only."""

from __future__ import annotations

import math
from typing import TypeAlias

Micros: TypeAlias = int
Bytes: TypeAlias = int

US_PER_SECOND = 1_000_000
US_PER_MS = 1_000
BYTES_PER_MIB = 1 << 20
BYTES_PER_GIB = 1 << 30
BITS_PER_BYTE = 8


def micros_from_ms(ms: float) -> Micros:
    """Return milliseconds as whole microseconds, rounded to the nearest."""
    return round(ms * US_PER_MS)


def micros_from_seconds(seconds: float) -> Micros:
    """Return seconds as whole microseconds, rounded to the nearest."""
    return round(seconds * US_PER_SECOND)


def ms_from_micros(us: Micros) -> float:
    """Return microseconds as milliseconds."""
    return us / US_PER_MS


def seconds_from_micros(us: Micros) -> float:
    """Return microseconds as seconds."""
    return us / US_PER_SECOND


def bytes_from_mib(mib: float) -> Bytes:
    """Return mebibytes as whole bytes, rounded to the nearest."""
    return round(mib * BYTES_PER_MIB)


def bytes_from_gib(gib: float) -> Bytes:
    """Return gibibytes as whole bytes, rounded to the nearest."""
    return round(gib * BYTES_PER_GIB)


def transfer_us(size_bytes: Bytes, gbps: float) -> Micros:
    """Return how long a link of `gbps` gigabits per second takes for `size_bytes`, rounded up."""
    return math.ceil(exact_transfer_us(size_bytes, gbps))


def exact_transfer_us(size_bytes: Bytes, gbps: float) -> float:
    """Return that time with its fraction of a microsecond."""
    return size_bytes * BITS_PER_BYTE / (gbps * 1e3)
