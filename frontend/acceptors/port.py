"""Holds the port that several acceptors listen on, so that nobody else takes it.

Knows sockets only.
"""

from __future__ import annotations

import socket

from penstock.domain.errors import PenstockError


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that holds a port which our own processes may listen on.

    It takes the port for itself first and shares it then: whoever listens there already makes
    this fail, even if they would share.

    Args:
        host: as in ``host:port``; an IPv6 address may stand in brackets.
        port: 0 for any free one.

    Raises:
        PenstockError: it is taken, or this system cannot share ports.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise PenstockError("this system cannot share a port among acceptors: use --acceptors 0")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise PenstockError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    holder = socket.socket(family, kind, protocol)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(address)
        # Connections that have ended are no hindrance above; from now on others are to us.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        holder.close()
        raise PenstockError(f"cannot listen on {host}:{port}: is it taken?") from error
    return holder
