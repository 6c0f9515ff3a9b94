"""A frontend process whose batches are answered on the spot: `python -m … DIRECTORY [options]`.

Everything but the backend is the product: files, settings, signals, services.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from frontend.backend import Wiring
from frontend.cli import Reporter, run
from penstock.domain.blocks import Block, BlockPartition
from penstock.formats.codec import digest
from penstock.formats.graphs import write_blocks
from penstock.formats.layout import BLOCKS_FILE, model_directory
from penstock.formats.plans import write_plan
from penstock.rpc.oip import ModelSignature
from tests.support.builders import a_plan
from tests.support.frontends import (
    echo_signature,
    pair_signature,
    some_settings,
    two_stage_plan,
)
from tests.support.loopback import LoopbackBackend


def blocks_of(signature: ModelSignature) -> BlockPartition:
    """Return two blocks of one layer each; their files are never opened."""
    blocks = tuple(
        Block(
            index=index,
            first_layer=index,
            end_layer=index + 1,
            inputs=signature.inputs if index == 0 else signature.outputs,
            outputs=signature.outputs,
            flops=1,
            moved_bytes=1,
            launches=1,
            activation_bytes=1,
            weight_bytes=0,
            file=f"block_{index:02d}.pt2",
            sha256=digest(str(index)),
        )
        for index in range(2)
    )
    return BlockPartition(
        model=signature.name,
        version=signature.version,
        inputs=signature.inputs,
        outputs=signature.outputs,
        blocks=blocks,
        cut_bytes=(16,),
        band=(0.5, 1.5),
    )


def write_files(directory: Path, slo_us: int = 2_000_000) -> tuple[Path, Path]:
    """Write a plan and a model repository; return where they are."""
    repository = directory / "models"
    models = []
    for signature in (echo_signature(), pair_signature()):
        text = write_blocks(blocks_of(signature))
        folder = model_directory(repository, signature.name, signature.version)
        folder.mkdir(parents=True)
        (folder / BLOCKS_FILE).write_text(text, encoding="utf-8")
        plan = two_stage_plan(signature.name, slo_us)
        models.append(replace(plan, blocks_digest=digest(text)))
    plan_file = directory / "plan.json"
    plan_file.write_text(write_plan(a_plan(*models)), encoding="utf-8")
    return plan_file, repository


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--drain-limit-s", type=float, default=5.0)
    parser.add_argument("--no-uvloop", dest="uvloop", action="store_false")
    parser.add_argument("--run-log", type=Path)
    given = parser.parse_args()
    plan, repository = write_files(given.directory)
    settings = some_settings(
        plan=plan,
        repository=repository,
        drain_limit_s=given.drain_limit_s,
        uvloop=given.uvloop,
        run_log=given.run_log,
    )

    def connect(wiring: Wiring) -> LoopbackBackend:
        return LoopbackBackend(wiring, delay_s=given.delay_s, hold=given.hold)

    run(settings, connect, Reporter(json=True))


if __name__ == "__main__":
    main()
