"""LitServe: one FastAPI process and one worker process."""

from __future__ import annotations

from bench.servers.definition import Launch, Server, Site
from bench.servers.wires import HttpWire


def plan(site: Site) -> Launch:
    """Write nothing: all is in the environment."""
    return Launch(
        command=(str(site.python), "-m", "bench.servers.programs.litserve_app"),
        environment={"PEER_MODEL": site.model, "PEER_PORT": str(site.ports[0])},
    )


LITSERVE = Server(
    name="litserve",
    version="0.2.19",
    wire=HttpWire("/predict", packed=True),
    setting="1 web server process + 1 worker process, fast_queue; no batching",
    plan=plan,
)
