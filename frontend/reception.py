"""Where requests come in: here, or in acceptors of their own.

Knows doors and admission; nothing of dispatching.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from frontend.admission import Admission
from frontend.door import Door


class Reception(Protocol):
    """All that stands between clients and the dispatcher."""

    @property
    def pending(self) -> int:
        """Requests accepted and not answered yet."""
        ...

    @property
    def closed(self) -> bool:
        """Whether new requests are refused."""
        ...

    async def listen(self) -> int:
        """Take the inference port and return it.

        Raises:
            PenstockError: it is taken.
        """
        ...

    async def start(self) -> None:
        """Let clients in.

        Raises:
            PenstockError: that cannot be done.
        """
        ...

    async def show(self, *, serving: bool) -> None:
        """Tell clients whether every model can be served."""
        ...

    async def retire(self) -> None:
        """Tell clients to go elsewhere from now on."""
        ...

    def close(self) -> None:
        """Refuse every new request; those accepted go on."""
        ...

    async def idle(self) -> None:
        """Return when every accepted request has its outcome; after `close`."""
        ...

    async def stop(self, insisted: asyncio.Event) -> None:
        """Send the last answers and close the port; at once if somebody insists."""
        ...


@dataclass(frozen=True, slots=True)
class OwnReception:
    """Requests come in right here."""

    admission: Admission
    door: Door

    @property
    def pending(self) -> int:
        """Requests accepted and not answered yet."""
        return self.admission.pending

    @property
    def closed(self) -> bool:
        """Whether new requests are refused."""
        return self.admission.closed

    async def listen(self) -> int:
        """Take the inference port and return it."""
        return await self.door.listen()

    async def start(self) -> None:
        """Let clients in."""
        await self.door.start()

    async def show(self, *, serving: bool) -> None:
        """Set what health says."""
        await self.door.show(serving=serving)

    async def retire(self) -> None:
        """Let health say no, for good."""
        await self.door.retire()

    def close(self) -> None:
        """Refuse every new request; those accepted go on."""
        self.admission.close()

    async def idle(self) -> None:
        """Return when every accepted request has its outcome."""
        await self.admission.idle()

    async def stop(self, insisted: asyncio.Event) -> None:
        """Send the last answers and close the port."""
        await self.door.stop(insisted)
