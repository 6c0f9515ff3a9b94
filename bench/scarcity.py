"""Makes memory scarce for other processes, without filling this host's (Linux).

Shared memory is full for a process when the kernel refuses to give a file more of it. Here the
kernel refuses early: a seccomp filter answers ENOSPC where a segment would grow beyond a limit, and
a limit on the size of files refuses writes into regions of clients. What the processes meet is the
kernel's answer, not a stand-in of ours; all other memory stays as it is. Knows no bench.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from penstock.domain.errors import PenstockError
from penstock.domain.units import Bytes

Result = TypeVar("Result")

# linux/audit.h, and the number of fallocate(2)
_MACHINES = {"x86_64": (0xC000003E, 285), "aarch64": (0xC00000B7, 47)}

# linux/prctl.h, linux/seccomp.h, linux/bpf_common.h
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _STORE, _ADD, _RETURN = 0x20, 0x07, 0x0C, 0x06
_IF_EQUAL, _IF_ABOVE = 0x15, 0x25
_REFUSE, _ALLOW = 0x00050000, 0x7FFF0000

# struct seccomp_data; the lower half of an argument comes first on these machines
_CALL_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_OFFSET_AT, _LENGTH_AT = _ARGUMENTS_AT + 2 * 8, _ARGUMENTS_AT + 3 * 8


class _Step(ctypes.Structure):
    """struct sock_filter."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_uint16), ("steps", ctypes.POINTER(_Step)))


@contextmanager
def children_without_growth(limit_bytes: Bytes) -> Iterator[ThreadPoolExecutor]:
    """Yield a thread whose child processes, and theirs, get no file beyond a limit.

    `fallocate` beyond that is answered with ENOSPC; so a segment of shared memory, which a link
    grows in steps, ends there. This process's other threads are not concerned. The thread lives
    as long as the block, as its children may end with it.

    Args:
        limit_bytes: below 4 GiB.

    Raises:
        PenstockError: this kernel, or machine, has no such filter.
    """
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_refuse_growth, limit_bytes).result()
        yield thread


@contextmanager
def short_files(process: int, limit_bytes: Bytes) -> Iterator[None]:
    """Let a process write no file beyond a limit until the block ends."""
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)


def _refuse_growth(limit_bytes: Bytes) -> None:
    known = _MACHINES.get(platform.machine())
    if known is None:
        raise PenstockError(f"memory cannot be made scarce on {platform.machine()}")
    steps = _steps(*known, limit_bytes)
    program = _Program(len(steps), steps)
    control = ctypes.CDLL(None, use_errno=True).prctl
    _checked(lambda: control(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _checked(lambda: control(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0))


def _steps(machine: int, fallocate: int, limit_bytes: Bytes) -> ctypes.Array[_Step]:
    """Return the filter; a jump tells how many steps it passes over.

    Looks at the lower halves of offset and length only: segments are smaller than that.
    """
    program = (
        _Step(_LOAD, 0, 0, _MACHINE_AT),
        _Step(_IF_EQUAL, 0, 8, machine),
        _Step(_LOAD, 0, 0, _CALL_AT),
        _Step(_IF_EQUAL, 0, 6, fallocate),
        _Step(_LOAD, 0, 0, _LENGTH_AT),
        _Step(_STORE, 0, 0, 0),
        _Step(_LOAD, 0, 0, _OFFSET_AT),
        _Step(_ADD, 0, 0, 0),
        _Step(_IF_ABOVE, 0, 1, limit_bytes),
        _Step(_RETURN, 0, 0, _REFUSE | errno.ENOSPC),
        _Step(_RETURN, 0, 0, _ALLOW),
    )
    return (_Step * len(program))(*program)


def _checked(call: Callable[[], int]) -> None:
    if call() != 0:
        raise PenstockError(f"memory cannot be made scarce: {os.strerror(ctypes.get_errno())}")
