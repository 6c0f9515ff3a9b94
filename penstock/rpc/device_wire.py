"""What links through device memory say to each other, beside what `shared_wire.py` has.

A link through device memory is one through shared memory, too: frames travel as they do there, and
a tensor on the device is named in its frame's header (`DeviceRegion`). The socket also carries

    with the segment  handle | token | size   of the sender's device memory, if the hello names any
    to the receiver   E                       the sender goes, and stays until all is read
    to the sender     generation              of a device's region with the highest bit set

The token lies at the beginning of the device memory: whoever reads it there has mapped the right
one. Knows bytes, no driver.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from penstock.domain.errors import InvalidInput
from penstock.domain.units import Bytes
from protos.link_pb2 import TensorHeader

BYE = b"E"
TOKEN_BYTES: Bytes = 16
RESERVED_BYTES: Bytes = 256  # at the beginning, for the token; tensors are aligned to it, too

_OFFER = struct.Struct(f"<64s{TOKEN_BYTES}sQ")
_DEVICE = 1 << 63

OFFER_BYTES: Bytes = _OFFER.size


class DeviceOffer(NamedTuple):
    """A sender's device memory, as its receiver is told of it."""

    handle: bytes
    token: bytes
    size: Bytes

    def pack(self) -> bytes:
        """Return it as `read_offer` takes it."""
        return _OFFER.pack(*self)


def read_offer(data: bytes) -> DeviceOffer:
    """Return what `DeviceOffer.pack` made; of the right length."""
    return DeviceOffer(*_OFFER.unpack(data))


def on_device(generation: int) -> int:
    """Return what gives a region of the device back."""
    return generation | _DEVICE


def device_generation(released: int) -> int:
    """Return the region of the device that is given back; 0: it is another region."""
    return released & ~_DEVICE if released & _DEVICE else 0


def check_region(tensor: TensorHeader, newer_than: int, size: Bytes) -> None:
    """Check where a tensor is said to lie.

    Args:
        newer_than: the last generation that came.
        size: of the sender's device memory.

    Raises:
        InvalidInput: there is no such region.
    """
    region = tensor.device
    if region.generation <= newer_than or region.generation >= _DEVICE:
        expected = f"a generation after {newer_than}"
        raise _invalid("region", expected, f"generation {region.generation}")
    if not tensor.byte_size or not RESERVED_BYTES <= region.start <= size - tensor.byte_size:
        found = f"{tensor.byte_size} bytes at {region.start}"
        raise _invalid("region", f"some bytes within {size}", found)


def _invalid(place: str, expected: str, found: str) -> InvalidInput:
    return InvalidInput("device memory", place, expected, found)
