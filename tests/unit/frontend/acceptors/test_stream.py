"""Notices between two ends, and how an end is told."""

from __future__ import annotations

import asyncio
import socket

from frontend.acceptors.stream import NoticeStream
from protos import acceptors_pb2 as pb


async def a_pair(heard: list[pb.Notice]) -> tuple[NoticeStream, NoticeStream]:
    ours, theirs = socket.socketpair()
    return await NoticeStream.over(ours, heard.append), await NoticeStream.over(
        theirs, lambda _: None
    )


async def test_notices_arrive_in_order_and_what_was_said_before_the_end_arrives() -> None:
    heard: list[pb.Notice] = []
    one, other = await a_pair(heard)
    sent = [pb.Notice(cancelled=number) for number in range(20_000)]
    for each in sent:
        other.send(each)
    other.close()
    assert await asyncio.wait_for(one.ended, 5) == "closed"
    assert heard == sent
    one.send(sent[0])  # nowhere
    one.close()


async def test_whoever_says_other_things_is_not_heard_any_more() -> None:
    heard: list[pb.Notice] = []
    ours, theirs = socket.socketpair()
    stream = await NoticeStream.over(ours, heard.append)
    with theirs:
        theirs.sendall(b"\xff\xff\xff\xffGET / HTTP/1.1\r\n\r\n")
        assert "found 4294967295 bytes" in await asyncio.wait_for(stream.ended, 5)
    assert heard == []
