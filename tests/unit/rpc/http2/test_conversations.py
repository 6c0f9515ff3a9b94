"""Whole conversations with another implementation's client, in any order and cut anywhere.

That client raises if we break a rule; we end the connection if it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import h2.connection
import h2.errors
import h2.events
import h2.settings
from h2.config import H2Configuration
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.rpc.http2 import frames
from penstock.rpc.http2.connection import Limits
from penstock.rpc.http2.hpack import write_headers
from tests.support.http2_ends import REQUEST, Recorder, split

Codes = h2.settings.SettingCodes
BEGIN = write_headers(((b":status", b"200"), (b"content-type", b"application/grpc")))
LAST = write_headers(((b"grpc-status", b"0"), (b"grpc-message", b"fine")))
SMALL = Limits(
    streams=6,
    stream_window_bytes=70_000,
    connection_window_bytes=200_000,
    frame_bytes=150_000,
    header_bytes=8 << 10,
)
sizes = st.sampled_from([0, 1, 2, 100, 16_383, 16_384, 16_385, 40_000, 69_999, 70_000])
names = st.sampled_from([b"x-a", b"x-b", b"x-c-bin", b"grpc-timeout"])
some_headers = st.lists(st.tuples(names, st.binary(max_size=60).map(bytes.hex)), max_size=6)


@dataclass
class Talk:
    """One stream as both sides want it."""

    sent: bytearray = field(default_factory=bytearray)
    sent_end: bool = False
    said: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)
    begun: bool = False
    finished: bool = False
    over: bool = False


def a_client() -> h2.connection.H2Connection:
    return h2.connection.H2Connection(
        config=H2Configuration(client_side=True, header_encoding=None)
    )


class Conversation(RuleBasedStateMachine):
    """A client of another making, our end, and a wire between them that cuts as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.end = Recorder(SMALL)
        self.end.granting = False
        self.client = a_client()
        self.client.initiate_connection()
        self.talks: dict[int, Talk] = {}
        self.granted: dict[int, int] = {}
        self.settling = False
        self.deliver([])
        self.fetch()
        self.deliver([])

    def open_talks(self) -> list[int]:
        return [number for number, talk in self.talks.items() if not talk.over]

    def chosen(self, data: st.DataObject, numbers: list[int]) -> int | None:
        return data.draw(st.sampled_from(numbers)) if numbers else None

    # The wire

    def deliver(self, cuts: list[int]) -> None:
        sent = self.client.data_to_send()
        for piece in pieces(sent, cuts):
            self.end.connection.receive(piece)

    def fetch(self) -> None:
        # Frame by frame: h2 heeds its own new frame size only from the next call on.
        for each in split(self.end.sent()):
            sent = frames.frame(each.kind, each.flags, each.stream, each.payload)
            for event in self.client.receive_data(sent):
                self.hear(event)

    def hear(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            talk = self.talks[event.stream_id or 0]
            talk.heard += event.data or b""
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            self.talks[event.stream_id or 0].over = True
        elif isinstance(event, h2.events.ConnectionTerminated):
            raise AssertionError(event)

    # What a client does

    @precondition(lambda self: len(self.open_talks()) < SMALL.streams)
    @rule(more=some_headers, ended=st.booleans(), first=st.booleans())
    def ask(self, more: list[tuple[bytes, str]], ended: bool, first: bool) -> None:
        if self.client.open_outbound_streams >= SMALL.streams:
            return
        number = self.client.get_next_available_stream_id()
        headers = [*REQUEST, *((name, value.encode()) for name, value in more)]
        weight = 7 if first else None
        self.client.send_headers(number, headers, end_stream=ended, priority_weight=weight)
        self.talks[number] = Talk(sent_end=ended)

    @rule(data=st.data(), size=sizes, padding=st.none() | st.integers(0, 255), ended=st.booleans())
    def send(self, data: st.DataObject, size: int, padding: int | None, ended: bool) -> None:
        number = self.chosen(data, [n for n in self.open_talks() if not self.talks[n].sent_end])
        if number is None:
            return
        room = self.client.local_flow_control_window(number) - 256
        size = max(0, min(size, room, self.client.max_outbound_frame_size - 256))
        if room < 0:
            return
        talk = self.talks[number]
        sent = bytes([len(talk.sent) % 251]) * size
        self.client.send_data(number, sent, end_stream=ended, pad_length=padding)
        talk.sent += sent
        talk.sent_end = ended

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        number = self.chosen(data, self.open_talks())
        if number is not None:
            self.client.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            self.talks[number].over = True

    @rule(
        window=st.none() | st.sampled_from([0, 1, 100, 65_535, 300_000]),
        frame=st.none() | st.sampled_from([16_384, 20_000, 100_000]),
        table=st.none() | st.sampled_from([0, 100, 4096, 65_536]),
    )
    def change_settings(self, window: int | None, frame: int | None, table: int | None) -> None:
        if self.settling:
            return  # h2 takes the first acknowledgement for one of all its settings
        self.settling = True
        wanted = {
            Codes.INITIAL_WINDOW_SIZE: window,
            Codes.MAX_FRAME_SIZE: frame,
            Codes.HEADER_TABLE_SIZE: table,
        }
        self.client.update_settings({code: n for code, n in wanted.items() if n is not None})

    @rule(data=st.data(), more=st.integers(1, 100_000), all_of_it=st.booleans())
    def make_room(self, data: st.DataObject, more: int, all_of_it: bool) -> None:
        number = None if all_of_it else self.chosen(data, self.open_talks())
        self.client.increment_flow_control_window(more, number)

    @rule()
    def ping(self) -> None:
        self.client.ping(b"12345678")

    @rule(cuts=st.lists(st.integers(0, 200_000), max_size=4))
    def turn(self, cuts: list[int]) -> None:
        """Let all that was said be heard."""
        self.deliver(cuts)
        self.fetch()
        self.settling = False

    @rule(step=st.integers(1, 7))
    def trickle(self, step: int) -> None:
        """Let the first bytes be heard in tiny pieces."""
        sent = self.client.data_to_send()
        for at in range(0, min(len(sent), 200), step):
            self.end.connection.receive(sent[at : min(at + step, 200)])
        self.end.connection.receive(sent[200:])

    # What a server does

    def answerable(self) -> list[int]:
        return [
            each.number
            for each in self.end.connection.open_streams
            if not self.talks[each.number].finished
        ]

    @rule(data=st.data(), size=sizes)
    def answer(self, data: st.DataObject, size: int) -> None:
        number = self.chosen(data, self.answerable())
        if number is None:
            return
        talk, stream = self.talks[number], self.end.got[number].stream
        if not talk.begun:
            talk.begun = True
            self.end.connection.send_headers(stream, BEGIN)
        part = bytes([len(talk.said) % 251]) * (size + 1)
        talk.said += part
        self.end.connection.send(stream, part)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        number = self.chosen(data, self.answerable())
        if number is None:
            return
        talk = self.talks[number]
        talk.finished = True
        self.end.connection.finish(self.end.got[number].stream, LAST if talk.begun else BEGIN)

    @rule(data=st.data())
    def grant(self, data: st.DataObject) -> None:
        number = self.chosen(data, [each.number for each in self.end.connection.open_streams])
        if number is not None:
            owed = len(self.end.got[number].body) - self.granted.get(number, 0)
            self.granted[number] = len(self.end.got[number].body)
            self.end.connection.grant(self.end.got[number].stream, owed)

    # What always holds

    @invariant()
    def nobody_broke_a_rule(self) -> None:
        assert not self.end.connection.ended

    @invariant()
    def bodies_come_in_order(self) -> None:
        for number, got in self.end.got.items():
            assert self.talks[number].sent.startswith(got.body)
        for talk in self.talks.values():
            assert talk.said.startswith(talk.heard)

    @invariant()
    def what_waits_is_counted(self) -> None:
        streams = self.end.connection.open_streams
        assert self.end.connection.queued_bytes == sum(each.unsent_bytes for each in streams)

    def teardown(self) -> None:
        """With room for everybody, everything arrives, once."""
        self.turn([])
        self.client.update_settings({Codes.INITIAL_WINDOW_SIZE: 0x3FFFFFFF})
        self.client.increment_flow_control_window(0x3FFFFFFF)
        for _ in range(3):
            self.turn([])
        assert self.end.connection.queued_bytes == 0
        for number, talk in self.talks.items():
            self.check_complete(number, talk)

    def check_complete(self, number: int, talk: Talk) -> None:
        got = self.end.got[number]
        if talk.finished or talk.over:
            assert talk.over
        else:
            assert (got.body, got.ends) == (talk.sent, int(talk.sent_end))
            assert talk.heard == talk.said


def pieces(sent: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Yield bytes cut at some places."""
    at = 0
    for cut in [*sorted(each % (len(sent) + 1) for each in cuts), len(sent)]:
        yield sent[at:cut]
        at = cut


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=100, stateful_step_count=40, phases=[Phase.generate]
)


def test_all_that_was_said_before_the_end_is_heard() -> None:
    end, client = Recorder(SMALL), a_client()
    client.initiate_connection()
    client.send_headers(1, list(REQUEST), end_stream=True)
    end.connection.receive(client.data_to_send())
    end.connection.send_headers(end.got[1].stream, BEGIN)
    end.connection.send(end.got[1].stream, b"x" * 100_000)
    end.connection.finish(end.got[1].stream, LAST)
    heard, ended = bytearray(), False
    while not ended:
        events = client.receive_data(end.sent())
        assert events
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                heard += event.data or b""
                client.acknowledge_received_data(event.flow_controlled_length or 0, 1)
            ended = ended or isinstance(event, h2.events.StreamEnded)
        end.connection.receive(client.data_to_send())
    assert heard == b"x" * 100_000
    assert not end.connection.ended
