"""Mosec: a web server in Rust and one worker process, joined by a Unix socket."""

from __future__ import annotations

from bench.servers.definition import Launch, Server, Site
from bench.servers.wires import HttpWire


def plan(site: Site) -> Launch:
    """Write nothing: all is on the command line."""
    return Launch(
        command=(
            str(site.python), "-m", "bench.servers.programs.mosec_app",
            "--address", "127.0.0.1", "--port", str(site.ports[0]),
            "--path", str(site.folder / "sockets"),
            "--namespace", f"peer_{site.model}", "--log-level", "warning",
        ),
        environment={"PEER_MODEL": site.model},
    )  # fmt: skip


MOSEC = Server(
    name="mosec",
    version="0.9.8",
    wire=HttpWire("/inference", packed=False),
    setting="Rust front + 1 worker process; no batching",
    plan=plan,
)
