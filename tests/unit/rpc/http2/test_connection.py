"""The rules of RFC 9113, one by one, against frames made by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rpc.http2 import frames
from penstock.rpc.http2.connection import Limits
from penstock.rpc.http2.frames import ErrorCode
from penstock.rpc.http2.hpack import write_headers
from tests.support.http2_ends import (
    BLOCK,
    EMPTY_SETTINGS,
    GREETING,
    OPEN,
    REQUEST,
    WHOLE,
    Recorder,
    a_greeted,
    a_request,
    only,
    settings,
    some_data,
    split,
    window_update,
)

MIB = 1 << 20
SMALL = Limits(
    streams=4,
    stream_window_bytes=1 << 16,
    connection_window_bytes=1 << 17,
    frame_bytes=1 << 14,
    header_bytes=1 << 10,
)
ANSWER = write_headers(((b":status", b"200"),))
LAST = write_headers(((b"grpc-status", b"0"),))
TRAILERS = write_headers(((b"x-late", b"1"),))


def ends_with(end: Recorder, code: ErrorCode, *sent: bytes) -> None:
    """Check that a connection does not survive some bytes, and says why."""
    answers = end.answers(*sent)
    assert end.connection.ended
    assert end.connection.over
    assert [each.kind for each in answers[-1:]] == [frames.GOAWAY]
    assert answers[-1].code == code
    assert end.answers(a_request(99)) == []


def frame(kind: int, number: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return frames.frame(kind, flags, number, payload)


# ---------------------------------------------------------------------------------- the beginning


def test_it_greets_first() -> None:
    answers = list(split(Recorder().sent()))
    assert [(each.kind, each.flags) for each in answers] == [
        (frames.SETTINGS, 0),
        (frames.WINDOW_UPDATE, 0),
    ]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"X",
        frames.PREFACE + frame(frames.PING, 0, bytes(8)),
    ],
)
def test_what_is_not_http2(sent: bytes) -> None:
    ends_with(Recorder(), ErrorCode.PROTOCOL_ERROR, sent)


def test_the_preface_may_come_byte_by_byte() -> None:
    end = Recorder()
    for each in GREETING + a_request(flags=WHOLE):
        end.connection.receive(bytes((each,)))
    assert not end.connection.ended
    assert end.got[1].headers == REQUEST
    assert end.got[1].ends == 1


def test_settings_are_acknowledged() -> None:
    assert [(each.kind, each.flags) for each in a_greeted().answers(EMPTY_SETTINGS)] == [
        (frames.SETTINGS, frames.ACK)
    ]


def test_what_is_unknown_is_ignored() -> None:
    end = a_greeted()
    sent = (settings((0x99, 7), (8, 1)), frame(0x42, 0, b"?"), frame(0xFF, 5, b"?" * 100, 0xFF))
    assert [each.kind for each in end.answers(*sent)] == [frames.SETTINGS]
    assert not end.connection.ended


def test_priority_says_nothing_to_us() -> None:
    end = a_greeted()
    sent = frame(frames.PRIORITY, 7, bytes(5)), frame(frames.PRIORITY, 1, bytes(5))
    assert end.answers(*sent, a_request()) == []
    assert not end.connection.ended


def test_a_ping_comes_back() -> None:
    (pong,) = a_greeted().answers(frame(frames.PING, 0, b"12345678"))
    assert (pong.kind, pong.flags, pong.payload) == (frames.PING, frames.ACK, b"12345678")


def test_our_ping_is_answered() -> None:
    end = a_greeted()
    end.connection.ping()
    (ping,) = end.answers()
    assert not end.connection.heard_pong
    end.answers(frame(frames.PING, 0, ping.payload, frames.ACK))
    assert end.connection.heard_pong


# --------------------------------------------------------------------------- what nobody may send


@pytest.mark.parametrize(
    ("code", "sent"),
    [
        (ErrorCode.FRAME_SIZE_ERROR, frames.frame_header((1 << 14) + 1, frames.DATA, 0, 1)),
        (ErrorCode.FRAME_SIZE_ERROR, frames.frame_header(0xFFFFFF, 0x42, 0, 0)),
        # on the wrong stream
        (ErrorCode.PROTOCOL_ERROR, frame(frames.DATA, 0, b"x")),
        (ErrorCode.PROTOCOL_ERROR, frame(frames.HEADERS, 0, BLOCK, WHOLE)),
        (ErrorCode.PROTOCOL_ERROR, frame(frames.RST_STREAM, 0, bytes(4))),
        (ErrorCode.PROTOCOL_ERROR, frame(frames.PRIORITY, 0, bytes(5))),
        (ErrorCode.PROTOCOL_ERROR, frame(frames.CONTINUATION, 0, b"")),
        (ErrorCode.PROTOCOL_ERROR, frame(frames.SETTINGS, 1)),
        (ErrorCode.PROTOCOL_ERROR, frame(frames.PING, 1, bytes(8))),
        (ErrorCode.PROTOCOL_ERROR, frame(frames.GOAWAY, 1, bytes(8))),
        # on an idle stream
        (ErrorCode.PROTOCOL_ERROR, some_data(1, b"x")),
        (ErrorCode.PROTOCOL_ERROR, frame(frames.RST_STREAM, 1, bytes(4))),
        (ErrorCode.PROTOCOL_ERROR, window_update(1, 1)),
        # of another size
        (ErrorCode.FRAME_SIZE_ERROR, frame(frames.SETTINGS, 0, b"12345")),
        (ErrorCode.FRAME_SIZE_ERROR, frame(frames.SETTINGS, 0, b"123456", frames.ACK)),
        (ErrorCode.FRAME_SIZE_ERROR, frame(frames.PING, 0, b"1234567")),
        (ErrorCode.FRAME_SIZE_ERROR, frame(frames.WINDOW_UPDATE, 0, b"123")),
        (ErrorCode.FRAME_SIZE_ERROR, frame(frames.PRIORITY, 1, b"1234")),
        (ErrorCode.FRAME_SIZE_ERROR, a_request() + frame(frames.RST_STREAM, 1, b"123")),
        # values
        (ErrorCode.FLOW_CONTROL_ERROR, settings((frames.INITIAL_WINDOW_SIZE, 1 << 31))),
        (ErrorCode.PROTOCOL_ERROR, settings((frames.MAX_FRAME_SIZE, (1 << 14) - 1))),
        (ErrorCode.PROTOCOL_ERROR, settings((frames.MAX_FRAME_SIZE, 1 << 24))),
        (ErrorCode.PROTOCOL_ERROR, settings((frames.ENABLE_PUSH, 2))),
        (ErrorCode.PROTOCOL_ERROR, window_update(0, 0)),
        (ErrorCode.FLOW_CONTROL_ERROR, window_update(0, 0x7FFFFFFF)),
        # order
        (ErrorCode.PROTOCOL_ERROR, frame(frames.PUSH_PROMISE, 1, bytes(4))),
        (ErrorCode.PROTOCOL_ERROR, frame(frames.CONTINUATION, 1, BLOCK, OPEN)),
        (ErrorCode.PROTOCOL_ERROR, a_request(2)),
        (ErrorCode.PROTOCOL_ERROR, a_request(1, 0) + frame(frames.PING, 0, bytes(8))),
        (ErrorCode.PROTOCOL_ERROR, a_request(1, 0) + frame(frames.CONTINUATION, 3, b"x")),
        (ErrorCode.PROTOCOL_ERROR, a_request(1, 0) + frame(0x42, 1)),
        (ErrorCode.PROTOCOL_ERROR, a_request() + a_request()),
        (ErrorCode.STREAM_CLOSED, a_request(flags=WHOLE) + some_data(1, b"x")),
        (ErrorCode.STREAM_CLOSED, a_request(flags=WHOLE) + a_request(flags=WHOLE)),
        (ErrorCode.STREAM_CLOSED, a_request() + some_data(1, b"x", 1) + some_data(1, b"x", 1)),
        # padding
        (ErrorCode.PROTOCOL_ERROR, a_request() + some_data(1, b"\x05abcd", frames.PADDED)),
        (ErrorCode.PROTOCOL_ERROR, a_request() + some_data(1, b"", frames.PADDED)),
        (ErrorCode.PROTOCOL_ERROR, a_request(1, OPEN | frames.PADDED, b"\xff" + BLOCK)),
        (ErrorCode.PROTOCOL_ERROR, a_request(1, OPEN | frames.HAS_PRIORITY, b"1234")),
        # headers
        (ErrorCode.COMPRESSION_ERROR, a_request(block=b"\x80")),
        (ErrorCode.COMPRESSION_ERROR, a_request() + a_request(flags=WHOLE, block=b"\xff")),
    ],
)
def test_what_a_connection_does_not_survive(code: ErrorCode, sent: bytes) -> None:
    ends_with(a_greeted(SMALL), code, sent)


def test_headers_after_a_fault_are_not_handed_on() -> None:
    end = a_greeted()
    end.connection.receive(frame(frames.PUSH_PROMISE, 1, bytes(4)) + a_request(3))
    assert end.got == {}


def test_a_large_data_frame_amid_headers() -> None:
    end = a_greeted()
    sent = a_request(1, 0) + frames.frame_header(1 << 17, frames.DATA, 0, 1) + b"x"
    ends_with(end, ErrorCode.PROTOCOL_ERROR, sent)


def test_a_large_data_frame_on_no_stream() -> None:
    for number in (0, 1):
        sent = frames.frame_header(1 << 17, frames.DATA, 0, number) + b"x"
        ends_with(a_greeted(), ErrorCode.PROTOCOL_ERROR, sent)


# -------------------------------------------------------------------------------- header blocks


def test_headers_in_parts_with_padding_and_priority() -> None:
    end = a_greeted()
    padded = b"\x03" + bytes(5) + BLOCK[:7] + bytes(3)
    first = a_request(1, frames.PADDED | frames.HAS_PRIORITY | frames.END_STREAM, padded)
    middle = frame(frames.CONTINUATION, 1, BLOCK[7:20])
    end.answers(first, middle, frame(frames.CONTINUATION, 1, BLOCK[20:], frames.END_HEADERS))
    assert end.got[1].headers == REQUEST
    assert end.got[1].ends == 1


def test_the_last_part_of_headers_may_be_empty() -> None:
    end = a_greeted()
    end.answers(a_request(1, 0), frame(frames.CONTINUATION, 1, b"", frames.END_HEADERS))
    assert end.got[1].headers == REQUEST


@pytest.mark.parametrize("part", [b"", b"\x00\x01a\x01b" * 100])
def test_parts_of_headers_without_end(part: bytes) -> None:
    sent = a_request(1, 0) + frame(frames.CONTINUATION, 1, part) * 100
    ends_with(a_greeted(SMALL), ErrorCode.ENHANCE_YOUR_CALM, sent)


def test_headers_that_are_too_long_end_their_stream() -> None:
    end = a_greeted(SMALL)
    end.answers(a_request(1))
    block = write_headers((*REQUEST, (b"x", b"y" * 1024)))
    (reset,) = end.answers(a_request(3, block=block), some_data(3, b"late", 1))
    assert (reset.stream, reset.code) == (3, ErrorCode.ENHANCE_YOUR_CALM)
    end.answers(a_request(5), a_request(1, WHOLE, block))
    assert list(end.got) == [1, 5]
    assert end.got[1].ends == 1


def test_headers_that_are_far_too_long() -> None:
    for flags in (0, OPEN):
        sent = a_request(1, flags, b"\x20" * 4097)
        ends_with(a_greeted(SMALL), ErrorCode.ENHANCE_YOUR_CALM, sent)


def test_headers_of_refused_streams_still_count_for_the_table() -> None:
    end = a_greeted(SMALL)
    for number in (1, 3, 5, 7):
        end.answers(a_request(number))
    into_table = BLOCK + b"\x40\x01x\x01y"
    (refusal,) = end.answers(a_request(9, block=into_table))
    assert (refusal.kind, refusal.code) == (frames.RST_STREAM, ErrorCode.REFUSED_STREAM)
    end.answers(frames.reset_frame(1, ErrorCode.CANCEL), a_request(11, block=BLOCK + b"\xbe"))
    assert end.got[11].headers == (*REQUEST, (b"x", b"y"))


def test_trailers_end_a_request() -> None:
    end = a_greeted()
    end.answers(a_request(), some_data(1, b"abc"), a_request(1, WHOLE, TRAILERS))
    assert (bytes(end.got[1].body), end.got[1].ends) == (b"abc", 1)


# --------------------------------------------------------------------------------------- streams


def test_numbers_go_up_and_streams_that_were_left_out_are_closed() -> None:
    end = a_greeted()
    end.answers(a_request(5))
    answers = end.answers(a_request(3), some_data(3, b"x"), frames.reset_frame(3, ErrorCode.CANCEL))
    assert answers == []
    assert list(end.got) == [5]


def test_streams_beyond_the_limit_are_refused_and_their_data_let_fall() -> None:
    end = a_greeted(SMALL)
    end.answers(*(a_request(number) for number in (1, 3, 5, 7)))
    (refusal,) = end.answers(a_request(9), some_data(9, b"x"), some_data(9, b"y", 1))
    assert (refusal.stream, refusal.code) == (9, ErrorCode.REFUSED_STREAM)
    end.answers(frames.reset_frame(3, ErrorCode.CANCEL), a_request(11, WHOLE))
    assert list(end.got) == [1, 3, 5, 7, 11]


def test_a_peer_gives_a_stream_up() -> None:
    end = a_greeted()
    stopped = frames.reset_frame(1, ErrorCode.CANCEL)
    end.answers(a_request(), stopped, stopped, some_data(1, b"late"), window_update(1, 5))
    assert end.got[1].was_reset
    assert end.got[1].body == b""
    assert end.connection.open_streams == []


def test_leaving_says_which_stream_was_the_last() -> None:
    end = a_greeted()
    end.answers(a_request(1), a_request(3))
    end.connection.leave()
    end.connection.leave()
    (goaway,) = end.answers()
    assert (goaway.kind, goaway.payload[:4], goaway.code) == (frames.GOAWAY, b"\0\0\0\3", 0)
    (refusal,) = end.answers(a_request(5), some_data(5, b"x"), window_update(5, 1))
    assert (refusal.stream, refusal.code) == (5, ErrorCode.REFUSED_STREAM)
    for number in (1, 3):
        assert not end.connection.over
        end.connection.finish(end.got[number].stream, ANSWER)
    assert end.connection.over
    assert not end.connection.ended


def test_an_answer_before_the_end_of_a_request_tells_the_peer_to_stop() -> None:
    end = a_greeted()
    end.answers(a_request())
    end.connection.finish(end.got[1].stream, ANSWER)
    headers, reset = end.answers()
    assert headers.flags == WHOLE
    assert (reset.kind, reset.code) == (frames.RST_STREAM, ErrorCode.NO_ERROR)
    assert end.answers(some_data(1, b"late", frames.END_STREAM)) == []
    assert end.got[1].body == b""


# ------------------------------------------------------------------------------- what we may send


def test_answers_wait_for_room_and_go_in_order() -> None:
    end = a_greeted()
    end.answers(settings((frames.INITIAL_WINDOW_SIZE, 5)), a_request(flags=WHOLE))
    stream = end.got[1].stream
    end.connection.send_headers(stream, ANSWER)
    for part in (b"abc", b"defg", b"hij"):
        end.connection.send(stream, part)
    end.connection.finish(stream, LAST)
    assert [each.payload for each in only(end.answers(), frames.DATA)] == [b"abc", b"de"]
    assert end.connection.queued_bytes == 5
    assert [each.payload for each in end.answers(window_update(1, 4))] == [b"fg", b"hi"]
    last = end.answers(window_update(1, 4))
    assert [each.payload for each in last] == [b"j", LAST]
    assert last[-1].flags == WHOLE
    assert end.connection.queued_bytes == 0


def test_a_window_may_become_negative() -> None:
    end = a_greeted()
    end.answers(settings((frames.INITIAL_WINDOW_SIZE, 10)), a_request(flags=WHOLE))
    end.connection.send(end.got[1].stream, b"x" * 20)
    assert [len(each.payload) for each in end.answers()] == [10]
    resized = end.answers(settings((frames.INITIAL_WINDOW_SIZE, 3)))
    assert only(resized, frames.DATA) == []
    assert end.answers(window_update(1, 7)) == []
    assert [each.payload for each in end.answers(window_update(1, 2))] == [b"xx"]


def test_settings_that_widen_windows_let_answers_go_after_the_acknowledgement() -> None:
    end = a_greeted()
    end.answers(settings((frames.INITIAL_WINDOW_SIZE, 0)), a_request(flags=WHOLE))
    end.connection.send(end.got[1].stream, b"abc")
    answers = end.answers(settings((frames.INITIAL_WINDOW_SIZE, 9)))
    assert [each.kind for each in answers] == [frames.SETTINGS, frames.DATA]


def test_a_connection_without_room_takes_turns() -> None:
    end = a_greeted()
    end.answers(settings((frames.INITIAL_WINDOW_SIZE, 1 << 20)))
    for number in (1, 3, 5):
        end.connection.receive(a_request(number, WHOLE))
        end.connection.send(end.got[number].stream, bytes(40_000))
    sent = only(end.answers(), frames.DATA)
    assert sum(len(each.payload) for each in sent) == frames.USUAL_WINDOW
    turns = [end.answers(window_update(0, 100))[0].stream for _ in range(4)]
    assert turns == [3, 5, 3, 5]


def test_frames_are_as_large_as_the_peer_takes_them() -> None:
    end = a_greeted()
    end.answers(a_request(flags=WHOLE))
    end.connection.send(end.got[1].stream, bytes(40_000))
    sizes = [len(each.payload) for each in end.answers()]
    assert sizes == [16_384, 16_384, 40_000 - 2 * 16_384]
    end.answers(settings((frames.MAX_FRAME_SIZE, 20_000)))
    end.connection.send(end.got[1].stream, bytes(20_000))
    assert [len(each.payload) for each in end.answers()] == [20_000]


def test_no_frame_is_so_large_that_others_would_wait_for_it() -> None:
    end = a_greeted()
    room = (frames.INITIAL_WINDOW_SIZE, MIB), (frames.MAX_FRAME_SIZE, MIB)
    end.answers(settings(*room), window_update(0, MIB), a_request(flags=WHOLE))
    end.connection.send(end.got[1].stream, bytes(300_000))
    assert [len(each.payload) for each in end.answers()] == [131_072, 131_072, 300_000 - 262_144]


@given(st.integers(1, 200_000))
def test_output_may_be_taken_in_parts(enough_bytes: int) -> None:
    end = a_greeted()
    end.answers(settings((frames.INITIAL_WINDOW_SIZE, MIB)), window_update(0, MIB))
    end.answers(a_request(flags=WHOLE))
    end.connection.send(end.got[1].stream, bytes(100_000))
    end.connection.finish(end.got[1].stream, LAST)
    parts = []
    while end.connection.has_output:
        before = end.connection.output_bytes
        parts.append(b"".join(end.connection.take_output(enough_bytes)))
        assert len(parts[-1]) == before - end.connection.output_bytes
        assert 0 < len(parts[-1]) < enough_bytes + frames.USUAL_FRAME
    assert end.connection.output_bytes == 0
    sent = list(split(b"".join(parts)))
    assert sum(len(each.payload) for each in only(sent, frames.DATA)) == 100_000
    assert sent[-1].flags == WHOLE


@pytest.mark.parametrize(("more", "code"), [(0, 1), (0x7FFFFFFF, 3)])
def test_a_stream_whose_window_is_wrong_ends_alone(more: int, code: int) -> None:
    end = a_greeted()
    end.answers(a_request(1), a_request(3))
    (reset,) = end.answers(window_update(1, more))
    assert (reset.stream, reset.code) == (1, code)
    assert end.got[1].was_reset
    assert not end.connection.ended
    assert [each.number for each in end.connection.open_streams] == [3]


def test_a_setting_that_makes_a_window_too_large() -> None:
    end = a_greeted()
    end.answers(a_request(), window_update(1, 0x7FFFFFFF - frames.USUAL_WINDOW))
    sent = settings((frames.INITIAL_WINDOW_SIZE, frames.USUAL_WINDOW + 1))
    ends_with(end, ErrorCode.FLOW_CONTROL_ERROR, sent)


def test_a_peer_hears_that_we_know_its_table() -> None:
    end = a_greeted()
    end.answers(settings((frames.HEADER_TABLE_SIZE, 0)), a_request(flags=WHOLE))
    end.connection.finish(end.got[1].stream, ANSWER)
    assert end.answers()[0].payload == b"\x20" + ANSWER


# ---------------------------------------------------------------------------- what we let others


def test_more_data_than_a_stream_was_allowed() -> None:
    end = a_greeted(SMALL)
    end.granting = False
    whole = some_data(1, bytes(1 << 14)) * 4
    end.answers(a_request(), whole)
    assert not end.connection.ended
    ends_with(end, ErrorCode.FLOW_CONTROL_ERROR, some_data(1, b"x"))


def test_padding_is_granted_again_by_itself() -> None:
    end = a_greeted(SMALL)
    end.answers(a_request())
    padded = some_data(1, b"\xff" + bytes(255), frames.PADDED)
    answers = end.answers(padded * 600)
    assert not end.connection.ended
    assert {each.stream for each in only(answers, frames.WINDOW_UPDATE)} == {0, 1}


def test_data_of_streams_that_are_over_is_granted_on_the_connection() -> None:
    end = a_greeted(SMALL)
    end.answers(a_request(), frames.reset_frame(1, ErrorCode.CANCEL))
    room = SMALL.connection_window_bytes
    for _ in range(100):
        assert not end.connection.ended
        for each in end.answers(some_data(1, bytes(1 << 14))):
            assert (each.kind, each.stream) == (frames.WINDOW_UPDATE, 0)
            room += int.from_bytes(each.payload)
        room -= 1 << 14
        assert room > 0


def test_no_stream_is_granted_more_once_its_end_has_come() -> None:
    end = a_greeted(SMALL)
    end.granting = False
    end.answers(a_request(), some_data(1, bytes(1 << 14)) * 3, some_data(1, b"x", 1))
    end.connection.grant(end.got[1].stream, 3 << 14)
    assert end.answers() == []


# ----------------------------------------------------------------------------------- cheap attacks


def test_windows_resized_again_and_again() -> None:
    """Each such frame visits every stream: a few kilobytes would keep us busy for minutes."""
    end = a_greeted()
    end.answers(*(a_request(number) for number in range(1, 20_001, 2)))
    change = settings(*((frames.INITIAL_WINDOW_SIZE, size) for size in range(1000)))
    ends_with(end, ErrorCode.ENHANCE_YOUR_CALM, change * 2)


def test_a_client_with_few_streams_may_resize_windows_often() -> None:
    end = a_greeted()
    end.answers(a_request())
    for size in range(10_000):
        end.answers(settings((frames.INITIAL_WINDOW_SIZE, size)))
    assert not end.connection.ended


@pytest.mark.timeout(20)  # it would take minutes
def test_room_on_a_connection_is_not_offered_to_streams_without_their_own() -> None:
    end = a_greeted()
    end.answers(settings((frames.INITIAL_WINDOW_SIZE, 0)))
    for number in range(1, 10_001, 2):
        end.answers(a_request(number, WHOLE))
        end.connection.send(end.got[number].stream, b"x")
    assert end.answers(window_update(0, 1) * 10_000) == []


@pytest.mark.timeout(20)
def test_a_large_frame_in_tiny_pieces_is_not_copied_each_time() -> None:
    end = a_greeted()
    end.connection.receive(frames.frame_header(1 << 20, 0x42, 0, 0))
    for _ in range(1 << 17):
        end.connection.receive(b"12345678")
    assert end.answers(frame(frames.PING, 0, bytes(8)))[0].kind == frames.PING


def test_nothing_is_kept_of_streams_that_are_over() -> None:
    end = a_greeted()
    end.answers(settings((frames.INITIAL_WINDOW_SIZE, 1)))
    for number in range(1, 2001, 2):
        end.answers(a_request(number))
        end.connection.send(end.got[number].stream, b"12345")
        end.answers(frames.reset_frame(number, ErrorCode.CANCEL))
    assert end.connection.queued_bytes == 0
    kept = [value for value in vars(end.connection).values() if isinstance(value, dict)]
    assert kept
    assert all(len(each) == 0 for each in kept)
