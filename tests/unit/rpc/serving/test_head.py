"""What headers say in gRPC's words."""

from __future__ import annotations

import base64
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rpc.http2.hpack import Headers
from penstock.rpc.serving.head import CallHead, read_head

POST: Headers = ((b":method", b"POST"), (b":path", b"/a.B/C"), (b"te", b"trailers"))
GRPC: Headers = (*POST, (b"content-type", b"application/grpc"))


def head_with(*more: tuple[bytes, bytes]) -> CallHead:
    return read_head((*GRPC, *more))


@pytest.mark.parametrize(
    ("text", "timeout_us"),
    [
        (b"1H", 3_600_000_000),
        (b"2M", 120_000_000),
        (b"3S", 3_000_000),
        (b"4m", 4_000),
        (b"5u", 5),
        (b"6000n", 6),
        (b"6001n", 7),
        (b"0n", 0),
        (b"99999999H", 99_999_999 * 3_600_000_000),
    ],
)
def test_timeouts(text: bytes, timeout_us: int) -> None:
    head = head_with((b"grpc-timeout", text))
    assert (head.timeout_us, head.timeout_fault) == (timeout_us, "")


@pytest.mark.parametrize(
    "text", [b"", b"S", b"1", b"1s", b"-1S", b"1.5S", b"123456789S", b"1S ", b"\xff", "٣S".encode()]
)
def test_malformed_timeouts(text: bytes) -> None:
    head = head_with((b"grpc-timeout", text))
    assert head.timeout_us is None
    assert head.timeout_fault


def test_no_timeout() -> None:
    assert (head_with().timeout_us, head_with().timeout_fault) == (None, "")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (b"application/grpc", HTTPStatus.OK),
        (b"application/grpc+proto", HTTPStatus.OK),
        (b"application/grpc;charset=utf-8", HTTPStatus.OK),
        (b"APPLICATION/GRPC", HTTPStatus.OK),
        (b"application/grpc-web", HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
        (b"application/json", HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
        (b"", HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    ],
)
def test_content_types(kind: bytes, status: HTTPStatus) -> None:
    assert read_head((*POST, (b"content-type", kind))).http_status == status


def test_what_is_no_call() -> None:
    assert read_head(POST).http_status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    assert read_head(GRPC[1:]).http_status == HTTPStatus.METHOD_NOT_ALLOWED
    assert read_head(()).path == ""


def test_metadata_is_what_a_client_says_of_its_own() -> None:
    agent, timeout = (b"user-agent", b"me"), (b"grpc-timeout", b"1S")
    head = head_with(agent, (b"x", b"1"), timeout, (b"x", b"2"), (b"y", b"\xff"))
    assert head.metadata == (("user-agent", "me"), ("x", "1"), ("x", "2"), ("y", "\ufffd"))


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.booleans())
def test_binary_metadata(values: list[bytes], padded: bool) -> None:
    coded = [base64.b64encode(each) for each in values]
    sent = b",".join(each if padded else each.rstrip(b"=") for each in coded)
    assert head_with((b"x-bin", sent)).metadata == tuple(("x-bin", each) for each in values)


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=8))
def test_any_headers_make_a_head(headers: list[tuple[bytes, bytes]]) -> None:
    head = read_head((*headers, (b"x-bin", b"!"), (b"grpc-encoding", b"\xff")))
    assert head.metadata[-1] == ("x-bin", b"!") or head.metadata[-1] == ("x-bin", b"")
    assert head.encoding == "\ufffd"
