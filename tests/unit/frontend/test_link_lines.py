"""What the status page says of links."""

from __future__ import annotations

from frontend.link_lines import LinkLine, OnwardLinks, frontend_lines
from penstock.rpc.links import LinkKind
from protos.link_pb2 import LinkOpened


def test_links_are_told_until_an_end_is_lost() -> None:
    links = OnwardLinks()
    links.take("b", LinkOpened(receiver="c", kind="gRPC"))
    links.take("a", LinkOpened(receiver="b", kind="gRPC"))
    links.take("a", LinkOpened(receiver="b", kind="shared memory"))
    assert [*links.lines()] == [
        LinkLine(sender="a", receiver="b", kind="shared memory"),
        LinkLine(sender="b", receiver="c", kind="gRPC"),
    ]
    links.forget("c")
    links.forget("a")
    assert [*links.lines()] == []


def test_the_frontend_tells_its_own_both_ways() -> None:
    lines = frontend_lines({"b": None, "a": LinkKind.STREAM}, {"a": LinkKind.SHARED_MEMORY})
    assert [(each.sender, each.receiver, each.kind) for each in lines] == [
        ("frontend", "a", "gRPC"),
        ("frontend", "b", ""),
        ("a", "frontend", "shared memory"),
    ]
