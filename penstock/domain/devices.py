"""Tensors that stay on a device between two stages: what an executor sees of them.

Pointers and streams are the device's own numbers. Knows no driver and no array library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from penstock.domain.units import Bytes


class DeviceBytes(Protocol):
    """Bytes in the memory of a device, written by another process, to be read."""

    @property
    def size(self) -> Bytes:
        """How many."""
        ...

    def part(self, start: int, end: int) -> DeviceBytes:
        """Return bytes [start, end) of them."""
        ...

    def copy_to(self, pointer: int, stream: int) -> None:
        """Queue a copy on a stream. They stay until it is done, whatever becomes of this object.

        Raises:
            PenstockError: they are gone.
        """
        ...


class DeviceSlot(Protocol):
    """A place on a device for one tensor, which another process will read."""

    def write(self, source: int, stream: int) -> None:
        """Queue a copy from memory of this process on a stream; fills the slot.

        The source must stay, and the slot must not be sent, until that is done.
        """
        ...


class DeviceRoom(Protocol):
    """Where an executor leaves what the next instance takes on the device."""

    def take(self, size_bytes: Bytes) -> DeviceSlot | None:
        """Return a slot of this size, or nothing if there is none now; any thread may ask.

        A slot that is not sent is free again when it is forgotten.
        """
        ...


@dataclass(frozen=True, slots=True)
class DeviceTensor:
    """A named tensor that lies in a slot, to be sent."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    slot: DeviceSlot
