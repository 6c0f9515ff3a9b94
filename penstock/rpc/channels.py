"""How penstock's processes open channels and servers among themselves.

Knows gRPC's options, nothing of what is said. The public server has options of its own.
"""

from __future__ import annotations

import grpc.aio

_KEEPALIVE_MS = 10_000
_KEEPALIVE_TIMEOUT_MS = 5_000
_LARGEST_MESSAGE_BYTES = 16 << 20  # frames on links go in chunks of a sixteenth of it

# A silent peer is noticed although nothing is sent; one that sends too much is refused.
_BOTH_ENDS = (
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _LARGEST_MESSAGE_BYTES),
)

CHANNEL_OPTIONS = (
    *_BOTH_ENDS,
    # Each link has a connection of its own: a large batch on one delays no other.
    ("grpc.use_local_subchannel_pool", 1),
    # The peer may come back; whoever holds the channel decides how often to try.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Workers and frontends reach each other directly, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
)

SERVER_OPTIONS = (
    *_BOTH_ENDS,
    ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
    # Two servers on one port would share its connections in silence.
    ("grpc.so_reuseport", 0),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """Return a channel between processes of one deployment; connects when first used."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


def new_server() -> grpc.aio.Server:
    """Return a server for processes of one deployment, without handlers or ports."""
    return grpc.aio.server(options=SERVER_OPTIONS)
