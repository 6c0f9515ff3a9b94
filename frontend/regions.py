"""Shared memory that clients on this host register: POSIX objects, files directly in /dev/shm.

Nothing is mapped. Tensors are copied with `pread` and `pwrite`: whoever cuts an object off after it
was registered gets an error; a mapping would get this process a SIGBUS. A region is a file that
is held open, so it stays what it was when its name is taken away or given to another object.
Knows nothing of requests beyond the places they name.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from penstock.domain.errors import InvalidRequest, PenstockError, UnknownName
from penstock.domain.tensors import Buffer
from penstock.domain.units import Bytes
from penstock.rpc.oip_descriptions import Region
from penstock.rpc.oip_parameters import Place, cut, quoted

SHARED_MEMORY = Path("/dev/shm")  # it is where POSIX objects are, nothing temporary

_SOURCE = "SystemSharedMemoryRegister"
_KEY = re.compile(r"/?([A-Za-z0-9_.\-]{1,254})")
_LONGEST_NAME = 256
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class SharedRegions:
    """The regions that one process knows.

    Args:
        most: regions that may be registered at once.
        largest_bytes: one tensor may have.
        directory: where the objects are.
    """

    def __init__(self, most: int, largest_bytes: Bytes, directory: Path = SHARED_MEMORY) -> None:
        self._most = most
        self._largest_bytes = largest_bytes
        self._directory = directory
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: Bytes, size: Bytes) -> Region:
        """Open part of an object under a name.

        Raises:
            InvalidRequest: the name is taken, there is no such object, or it is too short.
        """
        if not 0 < len(name) <= _LONGEST_NAME:
            raise InvalidRequest(_SOURCE, "name", f"1 to {_LONGEST_NAME} characters", quoted(name))
        if name in self._regions:
            raise InvalidRequest(_SOURCE, "name", "one that is not registered", quoted(name))
        if len(self._regions) >= self._most:
            raise InvalidRequest(_SOURCE, "name", f"at most {self._most} regions", "one more")
        file = self._open(key)
        try:
            _check_size(file, offset, size)
        except InvalidRequest:
            os.close(file)
            raise
        region = Region(name=name, key=key, offset=offset, size=size, file=file)
        self._regions[name] = region
        return region

    def adopt(self, path: str, name: str, key: str, offset: Bytes, size: Bytes) -> None:
        """Know a region that another process of the server has registered.

        Args:
            path: of that process's descriptor of the object.

        Raises:
            PenstockError: it cannot be opened.
        """
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise PenstockError(f"{_named(name)}: {error.strerror}") from error
        self._regions[name] = Region(name=name, key=key, offset=offset, size=size, file=file)

    def unregister(self, name: str) -> None:
        """Forget a region, or all if no name is given; what is not there is no error."""
        for each in self.withdraw(name):
            os.close(each.file)

    def withdraw(self, name: str) -> list[Region]:
        """Forget a region, or all, but leave the files open: they are the caller's now."""
        names = [name] if name else list(self._regions)
        return [self._regions.pop(each) for each in names if each in self._regions]

    def listed(self, name: str) -> Iterable[Region]:
        """Return a region, or all if no name is given.

        Raises:
            UnknownName: it is not registered.
        """
        return [self._found(name)] if name else list(self._regions.values())

    def read(self, place: Place) -> bytes:
        """Return a copy of what lies there.

        Raises:
            InvalidRequest: nothing does.
            UnknownName: the region is not registered.
        """
        region = self._checked(place, place.size)
        data = os.pread(region.file, place.size, region.offset + place.offset)
        if len(data) != place.size:
            raise _cut_off(place, place.size, len(data))
        return data

    def write(self, place: Place, data: Buffer) -> None:
        """Copy data there.

        Raises:
            InvalidRequest: there is no such place, or it is too small.
            UnknownName: the region is not registered.
            PenstockError: the host has no memory for it.
        """
        region = self._checked(place, len(data))
        start = region.offset + place.offset
        # Writing must not make an object longer that was cut off.
        there = os.fstat(region.file).st_size - start
        if there < len(data):
            raise _cut_off(place, len(data), max(0, there))
        try:
            written = os.pwrite(region.file, data, start)
        except OSError as error:
            raise PenstockError(f"{_where(place)}: {error.strerror}") from error
        if written != len(data):
            raise PenstockError(f"{_where(place)}: {written} of {len(data)} bytes were written")

    def _open(self, key: str) -> int:
        """Return a descriptor of an object; never of anything else."""
        known = _KEY.fullmatch(key)
        if known is None or known[1] in (".", ".."):
            expected = "the name of a shared memory object, without directories"
            raise InvalidRequest(_SOURCE, "key", expected, quoted(key))
        try:
            file = os.open(self._directory / known[1], _FLAGS)
        except OSError as error:
            expected = "a shared memory object that can be opened"
            found = f"{quoted(key)}: {error.strerror}"
            raise InvalidRequest(_SOURCE, "key", expected, found) from error
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise InvalidRequest(_SOURCE, "key", "a shared memory object", quoted(key))
        return file

    def _found(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise UnknownName("shared memory region", cut(name), self._regions)
        return region

    def _checked(self, place: Place, size: Bytes) -> Region:
        region = self._found(place.region)
        if size > self._largest_bytes:
            expected = f"a tensor of at most {self._largest_bytes} bytes"
            raise InvalidRequest(_where(place), "", expected, f"{size} bytes")
        room = min(place.size, region.size - place.offset)
        if size > room:
            expected = f"{size} bytes from offset {place.offset}"
            raise InvalidRequest(_where(place), "", expected, f"room for {max(0, room)}")
        return region


class OwnRegistrar:
    """Registers in the only process there is."""

    def __init__(self, regions: SharedRegions) -> None:
        self._regions = regions

    async def register(self, name: str, key: str, offset: Bytes, size: Bytes) -> None:
        """Take a region in."""
        self._regions.register(name, key, offset, size)

    async def unregister(self, name: str) -> None:
        """Let go of a region, or of all if no name is given."""
        self._regions.unregister(name)


def _check_size(file: int, offset: Bytes, size: Bytes) -> None:
    found = os.fstat(file).st_size
    if size < 1 or offset + size > found:
        expected = f"1 byte or more of an object of {found} bytes"
        raise InvalidRequest(_SOURCE, "byte_size", expected, f"{size} from offset {offset}")


def _cut_off(place: Place, expected: Bytes, found: Bytes) -> InvalidRequest:
    return InvalidRequest(
        _where(place), "", f"{expected} bytes from offset {place.offset}", f"{found}: it was cut"
    )


def _where(place: Place) -> str:
    return _named(place.region)


def _named(region: str) -> str:
    return f"shared memory region {quoted(region)}"
