"""What processes cost: processor time and resident memory, as the kernel counts them (Linux).

Knows nothing of what the processes do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from penstock.domain.units import US_PER_SECOND, Bytes, Micros

_TICK_US = US_PER_SECOND // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def family(roots: Mapping[str, int]) -> dict[str, int]:
    """Return processes with their children: id by name; a child is named after what it runs.

    Args:
        roots: ids by name.
    """
    found: dict[str, int] = {}
    for name, process in roots.items():
        found[name] = process
        for number, child in enumerate(_children(process)):
            found[f"{name}.{number}"] = child
    return found


def processor_us(process: int) -> Micros:
    """Return what a process has used of all cores, user and system, in steps of some 10 ms."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    user, system = 11, 12  # proc(5): utime and stime are fields 14 and 15, two stand before ")"
    return (int(fields[user]) + int(fields[system])) * _TICK_US


def host_us() -> Micros:
    """Return what all processes of this host have used of all cores since it started."""
    ticks = Path("/proc/stat").read_text(encoding="utf-8").partition("\n")[0].split()[1:]
    user, nice, system, _idle, _waiting, *interrupts = map(int, ticks[:7])
    return (user + nice + system + sum(interrupts)) * _TICK_US


def resident_bytes(process: int) -> Bytes:
    """Return the memory of a process that is in RAM now."""
    pages = Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * _PAGE_BYTES


def _children(process: int) -> list[int]:
    """Return the children of all threads of a process, and theirs."""
    children: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text(encoding="utf-8").split():
            children += [int(child), *_children(int(child))]
    return children
