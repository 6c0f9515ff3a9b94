"""One link to every instance that is ready: opened, written to, ended, lost.

Knows nothing of what the frames say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TypeAlias

from penstock.domain.ids import InstanceId
from penstock.domain.tensors import Buffer
from penstock.rpc.links import LinkFull, LinkKind, LinkLost, LinkSender
from protos.link_pb2 import FrameHeader

OnLost: TypeAlias = Callable[[InstanceId, str], None]

_log = logging.getLogger(__name__)


class InstanceLinks:
    """The links that one process has to instances.

    Args:
        name: what this process calls itself; no other that is there now has the same.
        on_lost: told instance and address when a link ends that nobody here has ended.
    """

    def __init__(self, name: str, on_lost: OnLost) -> None:
        self._name = name
        self._on_lost = on_lost
        self._links: dict[InstanceId, LinkSender] = {}

    def __contains__(self, instance: object) -> bool:
        """Return whether there is a link."""
        return instance in self._links

    def address(self, instance: InstanceId) -> str:
        """Return the host:port of an instance; empty if there is no link to it."""
        link = self._links.get(instance)
        return link.address if link else ""

    def kinds(self) -> Mapping[str, LinkKind | None]:
        """Return how bytes travel to each instance."""
        return {instance: link.kind for instance, link in self._links.items()}

    def send(self, instance: InstanceId, header: FrameHeader, parts: Iterable[Buffer] = ()) -> None:
        """Send a frame later, in order.

        Raises:
            LinkLost: there is no link, or it is open no more.
            LinkFull: too many bytes wait already.
        """
        link = self._links.get(instance)
        if link is None:
            raise LinkLost(f"no link to {instance}")
        link.send_nowait(header, parts)

    def tell(self, instances: Iterable[InstanceId], header: FrameHeader) -> None:
        """Send a frame to those that can be reached."""
        for instance in instances:
            with suppress(LinkLost, LinkFull):
                self.send(instance, header)

    async def connect(self, instance: InstanceId, address: str) -> None:
        """Open the link to an instance, in place of any earlier one.

        Raises:
            LinkLost: it cannot be reached.
        """
        self.disconnect(instance)
        link = LinkSender(address, self._name)
        try:
            await link.opened()
        except BaseException:
            link.end()
            raise
        self._keep(instance, link)

    def open(self, instance: InstanceId, address: str) -> None:
        """Open the link without waiting: frames are sent once it is open, or lost with it."""
        self.disconnect(instance)
        self._keep(instance, LinkSender(address, self._name))

    def disconnect(self, instance: InstanceId) -> None:
        """End the link to an instance, if there is one; tells nobody."""
        link = self._links.pop(instance, None)
        if link is not None:
            link.end()

    async def close(self) -> None:
        """End all links; tells nobody."""
        links = list(self._links.values())
        self._links.clear()
        await asyncio.gather(*(link.close() for link in links))

    def on_peer_lost(self, sender: str) -> None:
        """Take the loss of the link from an instance: without it there are no results."""
        link = self._links.get(InstanceId(sender))
        if link is not None:
            link.end("the instance's link to us is lost")

    def _keep(self, instance: InstanceId, link: LinkSender) -> None:
        self._links[instance] = link
        link.closed.add_done_callback(lambda _: self._lose(instance, link))

    def _lose(self, instance: InstanceId, link: LinkSender) -> None:
        if self._links.get(instance) is not link:
            return
        del self._links[instance]
        _log.warning("link to %s at %s: %s", instance, link.address, link.closed.result())
        self._on_lost(instance, link.address)
