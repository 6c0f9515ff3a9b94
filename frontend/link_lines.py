"""How bytes travel between frontend and instances, and from instance to instance.

Knows what links say of themselves, for the status page; opens none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from penstock.rpc.links import FRONTEND, LinkKind
from protos.link_pb2 import LinkOpened


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLine:
    """A link, for the status page.

    Attributes:
        kind: in words; empty while it opens.
    """

    sender: str
    receiver: str
    kind: str


class OnwardLinks:
    """The links that instances have told of: to other instances, and to acceptors by address."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], str] = {}

    def take(self, sender: str, opened: LinkOpened) -> None:
        """Take a new link, in place of an earlier one."""
        self._kinds[sender, opened.receiver] = opened.kind

    def forget(self, instance: str) -> None:
        """Take the loss of an instance, and of all its links."""
        self._kinds = {ends: kind for ends, kind in self._kinds.items() if instance not in ends}

    def lines(self) -> Iterator[LinkLine]:
        """Return them in order."""
        for (sender, receiver), kind in sorted(self._kinds.items()):
            yield LinkLine(sender=sender, receiver=receiver, kind=kind)


def frontend_lines(
    to_instances: Mapping[str, LinkKind | None], from_instances: Mapping[str, LinkKind]
) -> Iterator[LinkLine]:
    """Return the frontend's own links, both ways, in order."""
    for instance, kind in sorted(to_instances.items()):
        yield LinkLine(sender=FRONTEND, receiver=instance, kind=kind.value if kind else "")
    for instance, known in sorted(from_instances.items()):
        yield LinkLine(sender=instance, receiver=FRONTEND, kind=known.value)
