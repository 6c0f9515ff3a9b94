"""A port that is reserved can be listened on by us and by nobody else."""

from __future__ import annotations

import socket

import pytest

from frontend.acceptors.port import reserve
from penstock.domain.errors import PenstockError


def listening(port: int, *options: int) -> socket.socket:
    made = socket.socket()
    for option in options:
        made.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        made.bind(("127.0.0.1", port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def test_several_may_listen_on_a_reserved_port_and_share_its_connections() -> None:
    with reserve("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        with listening(port, socket.SO_REUSEPORT), listening(port, socket.SO_REUSEPORT):
            socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(OSError, match="in use"):
            listening(port, socket.SO_REUSEADDR)


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEPORT,), (socket.SO_REUSEADDR,)])
def test_a_port_that_somebody_listens_on_is_taken(options: tuple[int, ...]) -> None:
    with listening(0, *options) as foreign:
        port = foreign.getsockname()[1]
        with pytest.raises(PenstockError, match=f"cannot listen on 127.0.0.1:{port}: is it taken"):
            reserve("127.0.0.1", port)


def test_the_port_of_a_server_that_just_ended_is_free() -> None:
    with listening(0, socket.SO_REUSEADDR) as server:  # as gRPC's do
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()  # the server's end closes first: the kernel remembers it
    reserve("127.0.0.1", port).close()


def test_a_host_that_is_not_ours_is_an_error() -> None:
    with pytest.raises(PenstockError, match=r"cannot listen on 192\.0\.2\.1:0"):
        reserve("192.0.2.1", 0)
    with pytest.raises(PenstockError, match=r"cannot listen on no\.such\.host\.invalid:0"):
        reserve("no.such.host.invalid", 0)


def test_addresses_of_every_family_are_taken() -> None:
    for host in ("localhost", "0.0.0.0"):
        reserve(host, 0).close()
    if socket.has_ipv6:
        reserve("[::1]", 0).close()
