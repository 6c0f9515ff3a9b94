"""Plans for one GPU, written by hand: a chain of stages, or copies of one, on equal shares of it.

Each stage's latencies come from a measured profile; nothing is chosen but where the blocks are
split, so that the slowest stage is as quick as it can be. Knows no device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise

from bench.identity import report_by_hand
from penstock.domain.execution import ExecutionOptions
from penstock.domain.ids import PipelineId, PoolId
from penstock.domain.plan import (
    ModelPlan,
    Pipeline,
    Plan,
    PlannedClass,
    Pool,
    Transfer,
)
from penstock.domain.profiles import LatencyProfile
from penstock.domain.units import US_PER_SECOND, Bytes, Micros

_SLO_FACTOR = 10  # times the time a batch takes: what is measured is throughput


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a model lies on one GPU.

    Attributes:
        stages: of its pipeline, on a share each.
        copies: of each stage, on a share each.
    """

    stages: int = 1
    copies: int = 1

    @property
    def share(self) -> Fraction:
        """Of every instance; together they hold the GPU."""
        return Fraction(1, self.stages * self.copies)

    @property
    def words(self) -> str:
        """Say it to a person."""
        return f"{self.stages} stages x {self.copies} on {self.share} each"


def plan_layout(
    profile: LatencyProfile,
    layout: Layout,
    batch: int,
    memory_bytes: Bytes,
    execution: ExecutionOptions,
) -> Plan:
    """Return the plan of a layout.

    Raises:
        KeyError: the profile lacks the share or a batch size.
    """
    blocks = _latencies(profile, layout.share, batch)
    at_full = [each[-1] for each in blocks]
    ends = split_evenly(at_full, layout.stages)
    pools = tuple(
        _pool(profile, layout, position, first, end, blocks)
        for position, (first, end) in enumerate(pairwise(ends))
    )
    slowest_us = max(pool.latency_us for pool in pools)
    throughput_rps = layout.copies * batch * US_PER_SECOND / slowest_us
    model = _model_plan(profile, pools, ends, throughput_rps, execution)
    gpu = PlannedClass(
        name=profile.gpu_class,
        count=1,
        memory_bytes=memory_bytes,
        gpus_per_server=1,
        network_gbps=100.0,
    )
    return Plan(
        gpu_classes=(gpu,),
        models=(model,),
        hop_overhead_us=0,
        packing="whole-gpu",
        solve=report_by_hand(throughput_rps),
    )


def split_evenly(latencies_us: Sequence[Micros], stages: int) -> tuple[int, ...]:
    """Return the ends of stages, first 0, with which the slowest of them is quickest.

    Raises:
        ValueError: there are fewer blocks than stages.
    """
    count = len(latencies_us)
    choices = [(0, *inner, count) for inner in combinations(range(1, count), stages - 1)]
    return min(choices, key=lambda ends: max(sum(latencies_us[a:b]) for a, b in pairwise(ends)))


def _latencies(profile: LatencyProfile, share: Fraction, batch: int) -> list[tuple[Micros, ...]]:
    """Return of each block the latency at batch 1, 2, … `batch`."""
    table = {
        (row.block, row.batch): row.latency_mean_us for row in profile.rows if row.share == share
    }
    return [
        tuple(max(1, table[block, size]) for size in range(1, batch + 1))
        for block in range(profile.blocks)
    ]


def _pool(
    profile: LatencyProfile,
    layout: Layout,
    position: int,
    first: int,
    end: int,
    blocks: Sequence[Sequence[Micros]],
) -> Pool:
    batch = len(blocks[0])
    return Pool(
        id=PoolId(f"{profile.model}.{position}"),
        position=position,
        first_block=first,
        end_block=end,
        gpu_class=profile.gpu_class,
        share=layout.share,
        batch=batch,
        instances=layout.copies,
        latency_us_by_batch=tuple(map(sum, zip(*blocks[first:end], strict=True))),
        memory_bytes=sum(profile.weight_bytes[first:end]),
    )


def _model_plan(
    profile: LatencyProfile,
    pools: tuple[Pool, ...],
    ends: Sequence[int],
    throughput_rps: float,
    execution: ExecutionOptions,
) -> ModelPlan:
    latency_us = sum(pool.latency_us for pool in pools)
    pipeline = Pipeline(
        id=PipelineId(f"{profile.model}.0"),
        pools=tuple(pool.id for pool in pools),
        transfers=tuple(
            Transfer(bytes_per_sample=profile.cut_bytes[end - 1], us_per_sample=0)
            for end in ends[1:-1]
        ),
        throughput_rps=throughput_rps,
        batch_build_us=0,
        latency_us=latency_us,
    )
    return ModelPlan(
        model=profile.model,
        blocks=profile.blocks,
        slo_us=_SLO_FACTOR * latency_us,
        weight=1.0,
        margin_us=0,
        throughput_rps=throughput_rps,
        pools=pools,
        pipelines=(pipeline,),
        blocks_digest=profile.blocks_digest,
        execution=execution,
    )
