"""Memory of one CUDA device that other processes may read: the few calls that links need.

Pointers, streams and events are the driver's own numbers. Memory comes from the driver itself and
not from torch, whose segments cannot always be exported. Works in the device's primary context, in
any thread. Knows nothing of links.
"""

from __future__ import annotations

import ctypes
import threading
import uuid
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from penstock.cuda.calls import DriverCalls
from penstock.domain.errors import PenstockError
from penstock.domain.units import Bytes

Event: TypeAlias = Any  # the bindings' own type; nobody looks into it

HANDLE_BYTES: Bytes = 64
# Memory is exported by whole blocks of the driver's: a smaller piece would show its neighbours.
BLOCK_BYTES: Bytes = 2 << 20

_NOT_READY = 600


class DeviceRefused(PenstockError):
    """There is no device here, or it does not do what it is asked for; says why."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Memory that another process may open.

    Attributes:
        size: whole blocks.
        handle: by which it is opened, `HANDLE_BYTES` long.
    """

    pointer: int
    size: Bytes
    handle: bytes


class DeviceMemory:
    """The memory of one device.

    Args:
        ordinal: among the devices this process sees.
        bindings: what stands for cuda-bindings' driver module.

    Attributes:
        name: the device's UUID.

    Raises:
        DeviceRefused: there are no bindings, no driver, or no device.
    """

    def __init__(self, ordinal: int = 0, bindings: Any = None) -> None:  # noqa: ANN401 - a module
        self._call = DriverCalls(DeviceRefused, bindings)
        self._call("cuInit", 0)
        device = self._call("cuDeviceGet", ordinal)
        # Kept until the process ends, as torch keeps it.
        self._context = self._call("cuDevicePrimaryCtxRetain", device)
        self._entered = threading.local()
        self.name = f"GPU-{uuid.UUID(bytes=bytes(self._call('cuDeviceGetUuid', device).bytes))}"

    def export(self, size: Bytes) -> Exported:
        """Take memory that others may open.

        Raises:
            DeviceRefused: there is not enough, or it cannot be exported.
        """
        self._enter()
        whole = -(-max(1, size) // BLOCK_BYTES) * BLOCK_BYTES
        pointer = int(self._call("cuMemAlloc", whole))
        try:
            handle = self._call("cuIpcGetMemHandle", pointer)
        except DeviceRefused:
            self.free(pointer)
            raise
        return Exported(pointer, whole, ctypes.string_at(int(handle.getPtr()), HANDLE_BYTES))

    def free(self, pointer: int) -> None:
        """Give exported memory back; nobody may have it open. May wait for the device."""
        self._enter()
        self._call("cuMemFree", pointer)

    def open(self, handle: bytes) -> int:
        """Map another process's memory; may take 100 ms.

        Raises:
            DeviceRefused: it is this process's own, or of a device that ours cannot reach.
        """
        self._enter()
        named = self._call.types.CUipcMemHandle()
        # Its bytes have a name in some versions of the bindings only; its address is in all.
        ctypes.memmove(int(named.getPtr()), handle, HANDLE_BYTES)
        lazily = self._call.types.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS.value
        return int(self._call("cuIpcOpenMemHandle", named, lazily))

    def close(self, pointer: int) -> None:
        """Unmap what was opened; nothing may read it any more."""
        self._enter()
        self._call("cuIpcCloseMemHandle", pointer)

    def copy(self, to: int, source: int, size: Bytes, stream: int) -> None:
        """Queue a copy on a stream."""
        self._enter()
        self._call("cuMemcpyAsync", to, source, size, self._call.types.CUstream(stream))

    def put(self, pointer: int, data: bytes) -> None:
        """Write some bytes from the host, at once."""
        self._enter()
        array = np.frombuffer(data, np.uint8)
        self._call("cuMemcpyHtoD", pointer, array.ctypes.data, len(data))

    def get(self, pointer: int, size: Bytes) -> bytes:
        """Return some bytes."""
        self._enter()
        array = np.empty(size, np.uint8)
        self._call("cuMemcpyDtoH", array.ctypes.data, pointer, size)
        return array.tobytes()

    def new_event(self) -> Event:
        """Return something to record on streams of this process."""
        self._enter()
        flag = self._call.types.CUevent_flags.CU_EVENT_DISABLE_TIMING.value
        return self._call("cuEventCreate", flag)

    def record(self, event: Event, stream: int) -> None:
        """Let an event be done when all that a stream was given so far is done."""
        self._enter()
        self._call("cuEventRecord", event, self._call.types.CUstream(stream))

    def is_done(self, event: Event) -> bool:
        """Return whether an event is done, or never will be because the device has failed."""
        self._enter()
        (status,) = self._call.types.cuEventQuery(event)
        return int(status) != _NOT_READY

    def forget(self, event: Event) -> None:
        """Give an event back."""
        self._enter()
        self._call("cuEventDestroy", event)

    def _enter(self) -> None:
        """Make the context this thread's own."""
        if not getattr(self._entered, "done", False):
            self._call("cuCtxSetCurrent", self._context)
            self._entered.done = True
