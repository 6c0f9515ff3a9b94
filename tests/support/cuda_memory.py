"""Stands in for cuda-bindings' driver module where memory is shared: device memory is host memory.

Pointers are addresses of this process. What one process exports another really maps, so real
processes can be tested, and killed. A stream of a handle other than 0 is a thread that takes its
time: what is queued there is not yet done. Reading what its owner has given back is found out.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import queue
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_PAGE = mmap.PAGESIZE
_HANDLE = struct.Struct("<QQQQ")
_numbers = itertools.count(1)


class Status(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_MAP_FAILED = 205
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_NOT_READY = 600
    CUDA_ERROR_ILLEGAL_ADDRESS = 700


class Handle:
    """64 bytes at an address, as the bindings have it."""

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(64)

    def getPtr(self) -> int:
        return ctypes.addressof(self._bytes)


class Block:
    """Memory, and behind it one page that says whether its owner has given it back."""

    def __init__(self, file: int, size: int) -> None:
        self.file, self.size = file, size
        self._map = mmap.mmap(file, size + _PAGE)
        self._anchor = ctypes.c_char.from_buffer(self._map)
        self.pointer = ctypes.addressof(self._anchor)

    @property
    def given_back(self) -> bool:
        return bool(self._map[self.size])

    def give_back(self) -> None:
        self._map[self.size] = 1

    def holds(self, pointer: int) -> bool:
        return self.pointer <= pointer < self.pointer + self.size

    def close(self) -> None:
        del self._anchor
        self._map.close()
        os.close(self.file)


class Event:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.done.set()


class Stream:
    """Does what it is given in order, each thing after a while."""

    def __init__(self, delay_s: Callable[[], float]) -> None:
        self._delay_s = delay_s
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._go, daemon=True).start()

    def put(self, work: Callable[[], None]) -> None:
        self._work.put(work)

    def _go(self) -> None:
        while True:
            work = self._work.get()
            time.sleep(self._delay_s())
            work()


@dataclass
class FakeCudaMemory:
    """One process with one device.

    Attributes:
        device: number of the device; equal ones are the same device.
        peers: devices whose memory can be mapped, beside our own.
        limit: device memory in bytes.
        delay_s: how long streams take for each thing they are given.
        fails: calls that do not succeed.
        owned, opened: blocks, by their pointers.
        faults: what should never happen.
    """

    device: int = 1
    peers: frozenset[int] = frozenset()
    limit: int = 1 << 40
    delay_s: float = 0.0
    open_s: float = 0.0
    fails: set[str] = field(default_factory=set)
    owned: dict[int, Block] = field(default_factory=dict)
    opened: dict[int, Block] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    number: int = field(default_factory=lambda: os.getpid() << 20 | next(_numbers))
    _streams: dict[int, Stream] = field(default_factory=dict)

    CUipcMemHandle = Handle
    CUipcMem_flags = SimpleNamespace(CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS=SimpleNamespace(value=1))
    CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=SimpleNamespace(value=2))
    CUstream = int

    def cuInit(self, flags: int) -> tuple[Any, ...]:
        return self._answer("cuInit")

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:
        return self._answer("cuDeviceGet", ordinal)

    def cuDeviceGetUuid(self, device: int) -> tuple[Any, ...]:
        name = uuid.UUID(int=self.device).bytes
        return self._answer("cuDeviceGetUuid", SimpleNamespace(bytes=name))

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:
        return self._answer("cuDevicePrimaryCtxRetain", "primary")

    def cuCtxSetCurrent(self, context: str) -> tuple[Any, ...]:
        assert context == "primary"
        return self._answer("cuCtxSetCurrent")

    def cuMemAlloc(self, size: int) -> tuple[Any, ...]:
        if sum(each.size for each in self.owned.values()) + size > self.limit:
            return (Status.CUDA_ERROR_OUT_OF_MEMORY, None)
        file = os.memfd_create("penstock-fake-device", os.MFD_CLOEXEC)
        os.ftruncate(file, size + _PAGE)
        block = Block(file, size)
        self.owned[block.pointer] = block
        return self._answer("cuMemAlloc", block.pointer)

    def cuMemFree(self, pointer: int) -> tuple[Any, ...]:
        block = self.owned.pop(pointer)
        block.give_back()
        block.close()
        return self._answer("cuMemFree")

    def cuIpcGetMemHandle(self, pointer: int) -> tuple[Any, ...]:
        block = self.owned[pointer]  # of the base of an allocation only
        handle = Handle()
        packed = _HANDLE.pack(self.number, self.device, block.file, block.size)
        ctypes.memmove(handle.getPtr(), packed, len(packed))
        return self._answer("cuIpcGetMemHandle", handle)

    def cuIpcOpenMemHandle(self, handle: Handle, flags: int) -> tuple[Any, ...]:
        assert flags == 1
        time.sleep(self.open_s)
        if "cuIpcOpenMemHandle" in self.fails:
            return self._answer("cuIpcOpenMemHandle", None)
        number, device, file, size = _HANDLE.unpack(ctypes.string_at(handle.getPtr(), _HANDLE.size))
        if number == self.number:  # a process cannot open its own
            return (Status.CUDA_ERROR_INVALID_CONTEXT, None)
        if device not in {self.device, *self.peers}:
            return (Status.CUDA_ERROR_MAP_FAILED, None)
        try:
            ours = os.open(f"/proc/{number >> 20}/fd/{file}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return (Status.CUDA_ERROR_INVALID_HANDLE, None)
        block = Block(ours, size)
        self.opened[block.pointer] = block
        return self._answer("cuIpcOpenMemHandle", block.pointer)

    def cuIpcCloseMemHandle(self, pointer: int) -> tuple[Any, ...]:
        block = self.opened.pop(pointer)
        if block.given_back:
            self.faults.append("memory was given back while it was mapped")
        block.close()
        return self._answer("cuIpcCloseMemHandle")

    def cuMemcpyAsync(self, to: int, source: int, size: int, stream: int) -> tuple[Any, ...]:
        self._queue(stream, lambda: self._copy(to, source, size))
        return self._answer("cuMemcpyAsync")

    def cuMemcpyHtoD(self, to: int, source: int, size: int) -> tuple[Any, ...]:
        self._copy(to, source, size)
        return self._answer("cuMemcpyHtoD")

    def cuMemcpyDtoH(self, to: int, source: int, size: int) -> tuple[Any, ...]:
        self._copy(to, source, size)
        return self._answer("cuMemcpyDtoH")

    def cuEventCreate(self, flags: int) -> tuple[Any, ...]:
        assert flags == 2
        return self._answer("cuEventCreate", Event())

    def cuEventRecord(self, event: Event, stream: int) -> tuple[Any, ...]:
        event.done = threading.Event()
        self._queue(stream, event.done.set)
        return self._answer("cuEventRecord")

    def cuEventQuery(self, event: Event) -> tuple[Any, ...]:
        return (Status.CUDA_SUCCESS if event.done.is_set() else Status.CUDA_ERROR_NOT_READY,)

    def cuEventDestroy(self, event: Event) -> tuple[Any, ...]:
        assert event.done.is_set()
        return self._answer("cuEventDestroy")

    def close(self) -> None:
        """Close what was left open; return to the state of a new process."""
        for block in (*self.owned.values(), *self.opened.values()):
            block.close()
        self.owned.clear()
        self.opened.clear()

    def _queue(self, stream: int, work: Callable[[], None]) -> None:
        if not stream:
            work()
            return
        if stream not in self._streams:
            self._streams[stream] = Stream(lambda: self.delay_s)
        self._streams[stream].put(work)

    def _copy(self, to: int, source: int, size: int) -> None:
        for block in self._blocks(to, source):
            if block.given_back:
                self.faults.append("memory was used that its owner has given back")
        ctypes.memmove(to, source, size)

    def _blocks(self, *pointers: int) -> Iterator[Block]:
        for block in (*self.owned.values(), *self.opened.values()):
            if any(block.holds(each) for each in pointers):
                yield block

    def _answer(self, name: str, *values: object) -> tuple[Any, ...]:
        if name in self.fails:
            return (Status.CUDA_ERROR_INVALID_VALUE, *[None for _ in values])
        return (Status.CUDA_SUCCESS, *values)


_BINDINGS = """
from tests.support.cuda_memory import FakeCudaMemory

_device = FakeCudaMemory()


def __getattr__(name):
    return getattr(_device, name)
"""


def write_bindings(directory: Path) -> Path:
    """Write a stand-in of cuda-bindings for other processes; return what their path must have."""
    package = directory / "cuda" / "bindings"
    package.mkdir(parents=True)
    for each in (package.parent, package):
        (each / "__init__.py").touch()
    (package / "driver.py").write_text(_BINDINGS)
    return directory
