"""An acceptor's stream that keeps what it is told."""

from __future__ import annotations

from frontend.acceptors.stream import NoticeStream
from protos import acceptors_pb2 as pb


class Wire(NoticeStream):
    """An acceptor's stream, with nobody at the other end."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.sent: list[pb.Notice] = []

    def send(self, notice: pb.Notice) -> None:
        self.sent.append(notice)

    def last(self, kind: str) -> object:
        return [getattr(each, kind) for each in self.sent if each.WhichOneof("kind") == kind][-1]

    def kinds(self) -> list[str | None]:
        return [each.WhichOneof("kind") for each in self.sent]
