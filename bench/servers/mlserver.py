"""MLServer: model and gRPC server in one asyncio process."""

from __future__ import annotations

import json

from bench.servers.definition import Launch, Server, Site
from bench.servers.wires import OipWire


def plan(site: Site) -> Launch:
    """Write the settings of server and model."""
    grpc_port, http_port, metrics_port = site.ports
    settings = {
        "host": "127.0.0.1",
        "grpc_port": grpc_port,
        "http_port": http_port,
        "metrics_port": metrics_port,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": site.model,
        "implementation": "bench.servers.programs.mlserver_model.PeerModel",
    }
    (site.folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (site.folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    # Its children, and what looks for uvloop, are found beside its interpreter.
    return Launch(command=(str(site.python.parent / "mlserver"), "start", str(site.folder)))


MLSERVER = Server(
    name="mlserver",
    version="1.7.1",
    wire=OipWire(),
    setting="1 process: model in the server's uvloop (parallel_workers 0); no batching",
    plan=plan,
)
