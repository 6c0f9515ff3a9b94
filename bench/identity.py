"""A model that answers what it is asked, on disk, with a plan for one emulated GPU class.

What the benches of the serving layer serve: all that a request then costs is serving. Knows nothing
of load.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

from penstock.domain.blocks import DYNAMIC, Block, BlockPartition, TensorSpec
from penstock.domain.ids import GpuClassName, ModelName, PipelineId, PoolId
from penstock.domain.plan import ModelPlan, Pipeline, Plan, PlannedClass, Pool, SolveReport
from penstock.formats.graphs import write_blocks
from penstock.formats.layout import BLOCKS_FILE, model_directory
from penstock.formats.plans import write_plan

Model: TypeAlias = tuple[str, int]  # name, and bytes of a row

GPU_CLASS = GpuClassName("here")
DATATYPE = "FP32"
_ELEMENT_BYTES = 4
_SLO_US = 30_000_000  # nothing is dropped: what is measured is work, not decisions about lateness
_STAGE_US = 100  # the first guess; the dispatcher learns what a stage takes
_RATE_RPS = 1_000.0


def write_identity(
    directory: Path,
    models: tuple[Model, ...],
    batch: int,
    *,
    real: bool,
    share: Fraction | None = None,
) -> Path:
    """Write repository and plan of identity models.

    Args:
        directory: gets `models/` and `plan.json`.
        models: each is served by one instance.
        batch: the largest batch of each.
        real: export blocks that compute the identity; without, executors that compute can not
            load them, those of shapes only can.
        share: of a GPU, for each model; None: they share one.

    Returns:
        The plan file.
    """
    digests = {model: _write_model(directory / "models", model, real=real) for model in models}
    return write_plan_by_hand(directory, digests, batch, share)


def write_plan_by_hand(
    directory: Path, digests: Mapping[Model, str], batch: int, share: Fraction | None = None
) -> Path:
    """Write ``plan.json``: each model one block, on one instance.

    Args:
        directory: gets it.
        digests: of each model's ``blocks.json``.
        batch: the largest batch of each.
        share: of a GPU, for each model; None: they share one.

    Returns:
        The plan file.
    """
    share = share or Fraction(1, len(digests))
    plan = Plan(
        gpu_classes=(
            PlannedClass(
                name=GPU_CLASS,
                count=math.ceil(share * len(digests)),
                memory_bytes=1 << 34,
                gpus_per_server=1,
                network_gbps=100.0,
            ),
        ),
        models=tuple(_model_plan(model, batch, share, digest) for model, digest in digests.items()),
        hop_overhead_us=0,
        packing="whole-gpu",
        solve=report_by_hand(_RATE_RPS),
    )
    path = directory / "plan.json"
    path.write_text(write_plan(plan), encoding="utf-8")
    return path


def _write_model(repository: Path, model: Model, *, real: bool) -> str:
    name, row_bytes = model
    width = row_bytes // _ELEMENT_BYTES
    directory = model_directory(repository, ModelName(name), "1")
    directory.mkdir(parents=True)
    block_file = directory / "block_00.pt2"
    if real:
        _export_identity(block_file, width)
    block_digest = hashlib.sha256(block_file.read_bytes()).hexdigest() if real else "0" * 64
    x, y = (TensorSpec(name=each, datatype=DATATYPE, shape=(DYNAMIC, width)) for each in "xy")
    block = Block(
        index=0,
        first_layer=0,
        end_layer=1,
        inputs=(x,),
        outputs=(y,),
        flops=0,
        moved_bytes=2 * row_bytes,
        launches=1,
        activation_bytes=row_bytes,
        weight_bytes=0,
        file=block_file.name,
        sha256=block_digest,
    )
    partition = BlockPartition(
        model=ModelName(name),
        version="1",
        inputs=(x,),
        outputs=(y,),
        blocks=(block,),
        cut_bytes=(),
        band=(0.0, 2.0),
    )
    text = write_blocks(partition)
    (directory / BLOCKS_FILE).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _export_identity(path: Path, width: int) -> None:
    import torch

    class Identity(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

    rows = {0: torch.export.Dim("batch", min=1, max=1024)}
    example = (torch.zeros(2, width),)
    torch.export.save(torch.export.export(Identity(), example, dynamic_shapes=(rows,)), path)


def _model_plan(model: Model, batch: int, share: Fraction, digest: str) -> ModelPlan:
    name, row_bytes = model
    pool = Pool(
        id=PoolId(f"{name}.0"),
        position=0,
        first_block=0,
        end_block=1,
        gpu_class=GPU_CLASS,
        share=share,
        batch=batch,
        instances=1,
        latency_us_by_batch=(_STAGE_US,) * batch,
        memory_bytes=row_bytes * batch,
    )
    pipeline = Pipeline(
        id=PipelineId(f"{name}.0"),
        pools=(pool.id,),
        transfers=(),
        throughput_rps=_RATE_RPS,
        batch_build_us=0,
        latency_us=_STAGE_US,
    )
    return ModelPlan(
        model=ModelName(name),
        blocks=1,
        slo_us=_SLO_US,
        weight=1.0,
        margin_us=0,
        throughput_rps=_RATE_RPS,
        pools=(pool,),
        pipelines=(pipeline,),
        blocks_digest=digest,
    )


def report_by_hand(throughput_rps: float) -> SolveReport:
    """Return what a plan that nobody solved for reports: its throughput, and no search."""
    return SolveReport(
        solver="none",
        formulation="general",
        status="feasible",
        objective_rps=throughput_rps,
        value=throughput_rps,
        bound=throughput_rps,
        gap=0.0,
        seconds=0.0,
        seed=0,
    )
