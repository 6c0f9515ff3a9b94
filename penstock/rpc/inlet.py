"""The receiving end of one link: messages in, frames out, and how much of them is still in use.

Knows nothing of how messages come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

from penstock.domain.errors import InvalidInput
from penstock.domain.units import Bytes
from penstock.rpc.carriers import LinkKind
from penstock.rpc.frames import Assembly, on_devices, unpack
from penstock.rpc.holdings import Holdings
from protos.link_pb2 import FrameHeader

OnFrame: TypeAlias = Callable[[str, FrameHeader, Sequence[memoryview]], None]

# What the consumer of one link may look at before no more is read. A link that has so much is far
# behind; what it waits for may be on another link, never behind that on this one.
HELD_LIMIT_BYTES: Bytes = 256 << 20


class Inlet:
    """Takes the messages of one link.

    Attributes:
        ended: done when the receiver takes no more from this link; says why.
        holdings: the frames that somebody still looks at; messages to `take` are leased there.
        on_device: takes frames with tensors on a device; None: there are none on this link.
    """

    def __init__(
        self, sender: str, kind: LinkKind, on_frame: OnFrame, limit_bytes: Bytes = HELD_LIMIT_BYTES
    ) -> None:
        self.sender = sender
        self.kind = kind
        self.holdings = Holdings(limit_bytes)
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.on_device: OnFrame | None = None
        self._on_frame = on_frame
        self._assembly = Assembly()

    def end(self, reason: str) -> None:
        """Take no more."""
        if not self.ended.done():
            self.ended.set_result(reason)

    def take(self, message: memoryview) -> None:
        """Take a leased message; hand out the frame that it completes, unless the link has ended.

        Raises:
            InvalidInput: it contradicts itself.
        """
        frame = self._assembly.add(message)
        if frame is None:
            return
        if frame is not message:
            frame = self.holdings.lease(frame)
        header, tensors = unpack(frame)
        if self.ended.done():
            return
        on_frame: OnFrame | None = self._on_frame
        # One on a device has no bytes here: frames without such tensors are spared the question.
        if not all(tensors) and on_devices(header):
            on_frame = self.on_device
        if on_frame is None:
            expected = "tensors with their bytes"
            raise InvalidInput("link frame", "tensors", expected, "one on a device")
        on_frame(self.sender, header, tensors)
