"""One end of a link in a process of its own, for tests that kill it.

    python -m tests.support.link_process receive           says its address, then counts frames
    python -m tests.support.link_process send ADDRESS      sends checked frames until it ends

Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import os
import sys
import zlib
from collections.abc import Sequence

from penstock.rpc.links import LinkReceiver, LinkSender, LinkServer
from protos.link_pb2 import FrameHeader
from tests.support.link_ends import a_result

_SIZES = (10, 100_000, 3_000, 700_000, 20_000, 2_000_000)


def checked(number: int) -> bytes:
    """Return bytes that differ from number to number and tell whether they are whole."""
    data = number.to_bytes(8, "little") * (_SIZES[number % len(_SIZES)] // 8)
    return zlib.crc32(data).to_bytes(4, "little") + data


def is_whole(data: bytes, number: int) -> bool:
    return data == checked(number)


def say(words: object) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


async def receive() -> None:
    def take(_: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        number = header.result.batch_id
        say(number if is_whole(bytes(views[0]), number) else f"{number} is broken")

    server = LinkServer("127.0.0.1")
    await server.start(LinkReceiver(take, lambda sender: say(f"lost {sender}")))
    say(server.address)
    await ended()


async def send(address: str) -> None:
    link = LinkSender(address, "sender", limit_bytes=16 << 20, shared_bytes=8 << 20)
    await link.opened()
    say(link.kind)
    sending = asyncio.create_task(_send_all(link))
    await asyncio.wait((asyncio.create_task(ended()), link.closed), return_when="FIRST_COMPLETED")
    sending.cancel()
    say(link.closed.result() if link.closed.done() else "ended")


async def _send_all(link: LinkSender) -> None:
    number = 0
    while True:
        number += 1
        await link.send(*a_result(number, checked(number)))
        await asyncio.sleep(0)


async def ended() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(send(sys.argv[2]) if sys.argv[1] == "send" else receive())
    os._exit(0)
