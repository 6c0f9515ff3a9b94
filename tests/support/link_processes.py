"""Ends of links in processes of their own, and what such processes leave behind."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def a_process(module: str, *arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_of(process: Process, limit_s: float = 20) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), limit_s)).decode().strip()


def traces(process_id: int | str = "self") -> list[str]:
    """Return what a process has of links: segments and local sockets; and what lies about."""
    process = Path(f"/proc/{process_id}")
    mapped = process.joinpath("maps").read_text().splitlines()
    files = [os.readlink(each) for each in process.joinpath("fd").iterdir() if each.is_symlink()]
    sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    ours = [words[-1] for words in sockets if f"socket:[{words[6]}]" in files]
    everything = [*mapped, *files, *ours, *os.listdir("/dev/shm")]
    return [each for each in everything if "penstock-" in each]
