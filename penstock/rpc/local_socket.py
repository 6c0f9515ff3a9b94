"""Unix sockets between processes of one user, under names that only those know who are told.

The names are abstract: they are in no directory and gone with the socket. Whoever can reach one is
on the same host, in the same network namespace. Messages keep their boundaries. Knows nothing of
what is said.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import struct

from penstock.domain.errors import InvalidInput

_NAME = re.compile(r"penstock-[0-9a-f]{32}")
_CREDENTIALS = struct.Struct("3i")  # process, user, group
_MOST_FILES = 4


def listen() -> tuple[str, socket.socket]:
    """Return a new name and the socket that listens there.

    Raises:
        OSError: there can be no more sockets.
    """
    name = f"penstock-{secrets.token_hex(16)}"
    listener = _new_socket()
    try:
        listener.bind(f"\0{name}")
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return name, listener


def connect(name: str) -> socket.socket:
    """Return a socket connected to whoever listens under a name.

    Raises:
        InvalidInput: it is no such name, or another user listens.
        OSError: nobody listens there on this host.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput("link", "hello", "the name of a socket of ours", repr(name[:64]))
    connection = _new_socket()
    try:
        connection.connect(f"\0{name}")
        check_user(connection)
    except (OSError, InvalidInput):
        connection.close()
        raise
    return connection


def check_user(connection: socket.socket) -> None:
    """Check that the other end is a process of our own user.

    Raises:
        InvalidInput: it is somebody else's.
    """
    options = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(options)
    if user != os.getuid():
        raise InvalidInput("link", "local socket", f"user {os.getuid()}", f"user {user}")


async def readable(connection: socket.socket) -> None:
    """Return when there is something to receive."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


def receive_file(connection: socket.socket, size: int) -> tuple[bytes, int]:
    """Receive a message of a known size with one open file; the caller closes that.

    Raises:
        InvalidInput: it is something else; files that came with it are closed.
        OSError: nothing is there.
    """
    data, files, _, _ = socket.recv_fds(connection, size + 1, _MOST_FILES)
    if len(data) == size and len(files) == 1:
        os.set_inheritable(files[0], False)
        return data, files[0]
    for file in files:
        os.close(file)
    found = f"{len(data)} bytes and {len(files)} files"
    raise InvalidInput("link", "local socket", f"{size} bytes and a file", found)


def _new_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.setblocking(False)
    return made
