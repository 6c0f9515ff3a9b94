"""The far end of `bench/links.py`: a process that takes frames and tells how they came.

Says `{"address": …}` on standard output when it can be reached. A cancel frame ends a run and is
answered by a line: how many frames and bytes came, over which time, and how long each was on its
way. Both ends are on one host, so they read the same monotonic clock.

    python -m bench.link_receiver [--device]
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from penstock.aio.loops import new_loop, usual_loop
from penstock.console import show_text
from penstock.cuda.memory import DeviceRefused
from penstock.rpc.device_reader import DeviceDoor
from penstock.rpc.links import LinkReceiver, LinkServer
from protos.link_pb2 import FrameHeader

STAMP_BYTES = 8  # the first of each tensor: when the frame was sent, in nanoseconds
_NS_PER_US = 1_000


@dataclass(slots=True)
class Run:
    """What came since the last cancel frame."""

    first_sent_ns: int = 0
    last_ns: int = 0
    bytes: int = 0
    delays_us: list[float] = field(default_factory=list)

    def take(self, view: memoryview, size: int) -> None:
        """Count a tensor; it is let go at once.

        Args:
            view: begins with when it was sent.
            size: of the tensor.
        """
        self.last_ns = time.monotonic_ns()
        sent_ns = int.from_bytes(view[:STAMP_BYTES], "little")
        self.first_sent_ns = self.first_sent_ns or sent_ns
        self.bytes += size
        self.delays_us.append((self.last_ns - sent_ns) / _NS_PER_US)

    def told(self) -> dict[str, object]:
        """Return the run as plain values."""
        return {
            "frames": len(self.delays_us),
            "bytes": self.bytes,
            "seconds": (self.last_ns - self.first_sent_ns) / 1e9,
            "delays_us": self.delays_us,
        }


class Taker:
    """Counts what comes.

    Args:
        tell: gets a line at the end of each run.

    Attributes:
        run: what is being counted.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.run = Run()

    def on_frame(self, _: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        """Take one frame."""
        if views:
            self.run.take(views[0], len(views[0]))
        elif header.HasField("cancel"):
            self._tell(json.dumps(self.run.told()))
            self.run = Run()


async def receive(*, on_device: bool) -> None:
    """Take frames until standard input ends.

    Args:
        on_device: also such whose tensors lie on a device.
    """
    server, taker = LinkServer("127.0.0.1"), Taker(show_text)
    door = _device_door(taker) if on_device else None
    receiver = LinkReceiver(taker.on_frame, lambda _: None, device=door)
    await server.start(receiver)
    show_text(json.dumps({"address": server.address}))
    await asyncio.to_thread(sys.stdin.read)
    receiver.close()
    await server.stop()


def _device_door(taker: Taker) -> DeviceDoor | None:
    """Return what takes tensors on a device; without one the link will be of another kind."""
    from bench.device_links import DeviceTaker

    try:
        return DeviceTaker(taker).door
    except DeviceRefused:
        return None


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=lambda: new_loop(usual_loop())) as runner:
        runner.run(receive(on_device="--device" in sys.argv))
