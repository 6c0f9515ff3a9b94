"""Penstock: a frontend and one worker with one instance process, on the CPU executor."""

from __future__ import annotations

import sys

from bench.identity import write_identity, write_plan_by_hand
from bench.servers.definition import Launch, Server, Site
from bench.servers.programs.models import IDENTITY, SHAPES, make_cnn, sample
from bench.servers.wires import OipWire
from penstock import __version__
from penstock.domain.ids import ModelName
from penstock.formats.codec import digest
from penstock.formats.layout import BLOCKS_FILE, model_directory

_BATCH = 32
_VERSION = "1"


def plan(site: Site) -> Launch:
    """Write a model repository and a plan for one device."""
    row_bytes = sample(site.model).nbytes
    if site.model == IDENTITY:
        plan_file = write_identity(site.folder, ((site.model, row_bytes),), _BATCH, real=True)
    else:
        blocks_digest = _write_cnn(site)
        plan_file = write_plan_by_hand(
            site.folder, {(site.model, row_bytes): blocks_digest}, _BATCH
        )
    port, metrics_port, control_port = site.ports
    return Launch(
        command=(
            sys.executable, "-m", "penstock", "serve", str(plan_file),
            "--repository", str(site.folder / "models"), "--executor", "cpu",
            "--port", str(port), "--metrics-port", str(metrics_port),
            "--control-port", str(control_port), "--logs", str(site.folder / "logs"),
        )
    )  # fmt: skip


def _write_cnn(site: Site) -> str:
    """Write the CNN as one block; return the digest of its description."""
    import torch

    from profiler.cut import cut_model

    shape, repository = SHAPES[site.model], site.folder / "models"
    two_rows = torch.from_numpy(sample(site.model)).repeat(2, 1, 1, 1)
    cut_model(
        make_cnn(),
        {shape.input: two_rows},
        model=site.model,
        version=_VERSION,
        repository=repository,
        max_blocks=1,
        output_names=[shape.output],
    )
    directory = model_directory(repository, ModelName(site.model), _VERSION)
    return digest((directory / BLOCKS_FILE).read_bytes())


PENSTOCK = Server(
    name="penstock",
    version=__version__,
    wire=OipWire(),
    setting="frontend + 1 worker with 1 instance process, executor cpu; batches to 32, no delay",
    plan=plan,
    streams=True,
    pinned=False,
)
