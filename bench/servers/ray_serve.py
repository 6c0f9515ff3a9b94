"""Ray Serve: one replica, asked through the gRPC proxy with the protocol's own service."""

from __future__ import annotations

from bench.servers.definition import Launch, Server, Site
from bench.servers.wires import OipWire


def plan(site: Site) -> Launch:
    """Write nothing: all is in the environment."""
    grpc_port, http_port, _ = site.ports
    return Launch(
        command=(str(site.python), "-m", "bench.servers.programs.ray_app"),
        environment={
            "PEER_MODEL": site.model,
            "PEER_PORT": str(grpc_port),
            "PEER_HTTP_PORT": str(http_port),
            "PEER_FOLDER": str(site.folder),
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            # Without a proxy it was no faster here, and did not end when asked to.
            "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        },
    )


RAY_SERVE = Server(
    name="ray-serve",
    version="2.60.0",
    wire=OipWire(),
    setting="gRPC proxy + 1 replica, RAY_SERVE_THROUGHPUT_OPTIMIZED; no batching",
    plan=plan,
)
