"""One end of a link through device memory in a process of its own, for tests that kill it.

    python -m tests.support.device_process receive          says its address, then counts frames
    python -m tests.support.device_process hold             the same, but keeps the first
    python -m tests.support.device_process send ADDRESS     sends checked frames until it ends

Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from penstock.cuda.memory import DeviceMemory
from penstock.domain.devices import DeviceBytes
from penstock.rpc.device_reader import DeviceDoor
from penstock.rpc.links import LinkReceiver, LinkSender, LinkServer
from protos.link_pb2 import FrameHeader
from tests.support.cuda_memory import FakeCudaMemory
from tests.support.device_ends import send_data, source
from tests.support.link_process import checked, ended, is_whole, say

_PACE_S = 0.0005


async def receive(*, hold: bool) -> None:
    fake = FakeCudaMemory()
    held: list[DeviceBytes] = []

    def tell(header: FrameHeader, data: bytes, way: str) -> None:
        number = header.result.batch_id
        say(f"{number} {way}" if is_whole(data, number) else f"{number} is broken")

    def on_frame(_: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        tell(header, bytes(views[0]), "host")

    def on_device_frame(
        _: str,
        header: FrameHeader,
        views: Sequence[memoryview],
        places: Mapping[int, DeviceBytes],
    ) -> None:
        data = np.zeros(places[0].size, np.uint8)
        places[0].copy_to(data.ctypes.data, 0)
        if hold and not held:
            held.append(places[0])
        tell(header, data.tobytes(), "device")

    server = LinkServer("127.0.0.1")
    door = DeviceDoor(DeviceMemory(bindings=fake), on_device_frame)
    await server.start(LinkReceiver(on_frame, lambda sender: say(f"lost {sender}"), device=door))
    say(server.address)
    await ended()
    say(f"faults {len(fake.faults)}")


async def send(address: str) -> None:
    link = LinkSender(address, "sender", device=source(FakeCudaMemory()), limit_bytes=16 << 20)
    await link.opened()
    say(link.kind)
    number = 0
    while not link.closed.done():
        number += 1
        await send_data(link, number, checked(number))
        await asyncio.sleep(_PACE_S)


if __name__ == "__main__":
    what = sys.argv[1]
    asyncio.run(send(sys.argv[2]) if what == "send" else receive(hold=what == "hold"))
    os._exit(0)
