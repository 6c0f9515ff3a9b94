"""All servers by name."""

from __future__ import annotations

from bench.servers.litserve import LITSERVE
from bench.servers.mlserver import MLSERVER
from bench.servers.mosec import MOSEC
from bench.servers.penstock import PENSTOCK
from bench.servers.ray_serve import RAY_SERVE
from bench.servers.triton import TRITON

SERVERS = {
    server.name: server for server in (PENSTOCK, MLSERVER, TRITON, RAY_SERVE, LITSERVE, MOSEC)
}
