"""Processes of acceptors: those that cannot start say why, the next one comes after a pause."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from frontend.acceptors.keeper import Callbacks, Keeper, next_pause_s
from frontend.acceptors.peers import Peer
from penstock.aio.loops import ASYNCIO
from penstock.domain.errors import PenstockError
from protos import acceptors_pb2 as pb


def test_pauses_grow_until_a_process_has_settled() -> None:
    pauses = list(itertools.accumulate([1.0] * 9, next_pause_s, initial=0.0))
    assert pauses[1:] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert next_pause_s(5.0, lived_s=60.0) == 0.1


async def test_an_acceptor_that_cannot_start_says_why() -> None:
    left: list[Peer] = []

    def welcome(peer: Peer) -> None:
        peer.say(pb.Notice(settings=pb.AcceptorSettings(host="127.0.0.1", plan="no plan")))

    def hear(peer: Peer, notice: pb.Notice) -> None:
        peer.broken = notice.broken.reason

    callbacks = Callbacks(welcome=welcome, hear=hear, leave=left.append)
    keeper = Keeper(itertools.count().__next__, ASYNCIO, callbacks)
    with pytest.raises(PenstockError, match="an acceptor did not start: the dispatcher's plan"):
        await asyncio.wait_for(keeper.started, 30)
    await keeper.ended()
    assert [peer.number for peer in left] == [0]


async def test_a_keeper_that_is_killed_leaves_nobody_waiting() -> None:
    callbacks = Callbacks(
        welcome=lambda _: None, hear=lambda _peer, _notice: None, leave=lambda _: None
    )
    keeper = Keeper(itertools.count().__next__, ASYNCIO, callbacks)
    await asyncio.sleep(0.05)
    await keeper.kill()
    assert keeper.started.cancelled()
