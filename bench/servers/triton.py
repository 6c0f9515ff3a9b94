"""Triton's Python backend: the server's own binary, as the package nvidia-pytriton ships it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

from bench.servers.definition import PROGRAMS, Launch, NotAvailable, Server, Site
from bench.servers.programs.models import SHAPES
from bench.servers.wires import OipWire

_CONFIG = """\
name: "{model}"
backend: "python"
max_batch_size: {batch}
input [{{ name: "{input}" data_type: TYPE_FP32 dims: {input_row} }}]
output [{{ name: "{output}" data_type: TYPE_FP32 dims: {output_row} }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
"""
_BATCH = 32
_STUB = "triton_python_backend_stub"


def plan(site: Site) -> Launch:
    """Write a model repository.

    Raises:
        NotAvailable: there is no binary for this platform or Python.
    """
    home = _triton_home(site.python)
    repository = site.folder / "models"
    version = repository / site.model / "1"
    version.mkdir(parents=True)
    shutil.copyfile(PROGRAMS / "triton_model.py", version / "model.py")
    (version.parent / "config.pbtxt").write_text(_config(site.model), encoding="utf-8")
    grpc_port, http_port, metrics_port = site.ports
    libraries = (sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH"))
    return Launch(
        command=(
            str(home / "bin" / "tritonserver"), "--model-repository", str(repository),
            "--backend-directory", str(home / "backends"),
            "--grpc-address", "127.0.0.1", "--grpc-port", str(grpc_port),
            "--http-address", "127.0.0.1", "--http-port", str(http_port),
            "--metrics-address", "127.0.0.1", "--metrics-port", str(metrics_port),
        ),
        environment={
            "PEER_MODEL": site.model,
            # Its stub embeds Python and finds the environment by the first `python3` on the path.
            "PATH": f"{site.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "LD_LIBRARY_PATH": os.pathsep.join(each for each in libraries if each),
        },
    )  # fmt: skip


def _triton_home(python: Path) -> Path:
    """Return the server's folder, with the stub for this Python where it is looked for."""
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    packages = python.parents[1] / "lib" / f"python{minor}" / "site-packages"
    home = packages / "pytriton" / "tritonserver"
    stub = home / "python_backend_stubs" / minor / _STUB
    if not stub.exists():
        raise NotAvailable(f"nvidia-pytriton ships none for {platform.machine()}, Python {minor}")
    shutil.copy2(stub, home / "backends" / "python" / _STUB)
    return home


def _config(model: str) -> str:
    shape = SHAPES[model]
    return _CONFIG.format(
        model=model,
        batch=_BATCH,
        input=shape.input,
        input_row=list(shape.input_row),
        output=shape.output,
        output_row=list(shape.output_row),
    )


TRITON = Server(
    name="triton",
    version="2.51.0 (nvidia-pytriton 0.7.0)",
    wire=OipWire(),
    setting="server + 1 Python backend process; dynamic batching to 32, no delay",
    plan=plan,
    streams=True,
)
