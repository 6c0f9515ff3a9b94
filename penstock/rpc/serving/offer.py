"""What a server of either kind is told to answer, in the words of grpc's own server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc


class Offer:
    """Collects handlers until a server looks for one."""

    def __init__(self) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Answer what one of these answers."""
        self._handlers.extend(handlers)

    def add_registered_method_handlers(self, _service: str, _handlers: Mapping[str, Any]) -> None:
        """Do nothing: generated code offers the same handlers by `add_generic_rpc_handlers`."""
