"""Short ways to make domain values in tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from penstock.domain.cluster import Packing
from penstock.domain.ids import (
    GpuClassName,
    InstanceId,
    ModelName,
    PipelineId,
    PoolId,
    RequestId,
    ServerId,
)
from penstock.domain.plan import (
    ModelPlan,
    Pipeline,
    Plan,
    PlannedClass,
    Pool,
    SolveReport,
    Transfer,
)
from penstock.domain.requests import Request
from penstock.scheduling.events import InstanceJoined

MODEL = ModelName("m")


def a_pool(
    name: str = "p0",
    *,
    position: int = 0,
    blocks: tuple[int, int] = (0, 1),
    gpu_class: str = "fast",
    latencies_us: Sequence[int] = (10_000, 12_000, 14_000, 16_000),
    instances: int = 1,
    share: Fraction = Fraction(1),
) -> Pool:
    return Pool(
        id=PoolId(name),
        position=position,
        first_block=blocks[0],
        end_block=blocks[1],
        gpu_class=GpuClassName(gpu_class),
        share=share,
        batch=len(latencies_us),
        instances=instances,
        latency_us_by_batch=tuple(latencies_us),
        memory_bytes=1,
    )


def a_model_plan(
    *pipelines: Sequence[Pool],
    model: ModelName = MODEL,
    slo_us: int = 100_000,
    transfer_us: int = 0,
    batch_build_us: int = 0,
    throughput_rps: float = 100.0,
) -> ModelPlan:
    pools = {pool.id: pool for pipeline in pipelines for pool in pipeline}
    return ModelPlan(
        model=model,
        blocks=max(pool.end_block for pool in pools.values()),
        slo_us=slo_us,
        weight=1.0,
        margin_us=0,
        throughput_rps=throughput_rps,
        pools=tuple(pools.values()),
        pipelines=tuple(
            Pipeline(
                id=PipelineId(f"{model}.{number}"),
                pools=tuple(pool.id for pool in pipeline),
                transfers=tuple(
                    Transfer(bytes_per_sample=transfer_us, us_per_sample=transfer_us)
                    for _ in pipeline[1:]
                ),
                throughput_rps=throughput_rps / len(pipelines),
                batch_build_us=batch_build_us,
                latency_us=sum(pool.latency_us for pool in pipeline),
            )
            for number, pipeline in enumerate(pipelines)
        ),
    )


def a_plan(*models: ModelPlan, hop_us: int = 0, packing: Packing = "per-stage") -> Plan:
    names = sorted({pool.gpu_class for model in models for pool in model.pools})
    return Plan(
        gpu_classes=tuple(
            PlannedClass(
                name=name, count=8, memory_bytes=1 << 30, gpus_per_server=1, network_gbps=10.0
            )
            for name in names
        ),
        models=models,
        hop_overhead_us=hop_us,
        packing=packing,
        solve=SolveReport(
            solver="none",
            formulation="by hand",
            status="feasible",
            objective_rps=1.0,
            value=1.0,
            bound=1.0,
            gap=0.0,
            seconds=0.0,
            seed=0,
        ),
    )


def a_request(
    number: int = 0,
    *,
    arrival_us: int = 0,
    slo_us: int = 100_000,
    samples: int = 1,
    model: ModelName = MODEL,
    priority: int = 0,
) -> Request:
    return Request(
        id=RequestId(number),
        model=model,
        samples=samples,
        arrival_us=arrival_us,
        deadline_us=arrival_us + slo_us,
        priority=priority,
    )


def all_joined(plan: Plan, *, servers: int = 0) -> list[InstanceJoined]:
    """Every planned instance joins; each on a server of its own unless `servers` is given."""
    joined: list[InstanceJoined] = []
    for model in plan.models:
        for pool in model.pools:
            for number in range(pool.instances):
                server = len(joined) % servers if servers else len(joined)
                joined.append(
                    InstanceJoined(
                        instance=InstanceId(f"{pool.id}/{number}"),
                        model=model.model,
                        pool=pool.id,
                        server=ServerId(f"s{server}"),
                    )
                )
    return joined
