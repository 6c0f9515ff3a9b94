"""From a solution to a plan: pools and pipelines with readable ids, in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.domain.ids import ModelName, PipelineId, PoolId
from penstock.domain.plan import (
    Digest,
    ModelPlan,
    Pipeline,
    Plan,
    PlannedClass,
    Pool,
    SolveReport,
    Transfer,
)
from planner.candidates import CandidatePath, CandidatePool
from planner.inputs import ModelInputs, PlannerInputs
from planner.solution import Solution
from planner.sought import task_of


def extract_plan(
    inputs: PlannerInputs,
    solution: Solution,
    report: SolveReport,
    *,
    blocks_digests: Mapping[ModelName, str],
    digests: Sequence[Digest],
) -> Plan:
    """Return the plan that a solution stands for.

    Args:
        inputs: what was planned with.
        solution: instances and flows.
        report: how the solution was found.
        blocks_digests: digest of ``blocks.json`` by model; else that of the profile.
        digests: of the inputs.
    """
    return Plan(
        gpu_classes=tuple(
            PlannedClass(
                name=each.name,
                count=each.count,
                memory_bytes=each.memory_bytes,
                gpus_per_server=each.gpus_per_server,
                network_gbps=each.network_gbps,
                price_per_hour=each.price_per_hour,
            )
            for each in inputs.gpu_classes
        ),
        models=tuple(_model_plan(model, solution, blocks_digests) for model in inputs.models),
        hop_overhead_us=inputs.options.hop_overhead_us,
        packing=task_of(inputs).packing,
        solve=report,
        inputs=tuple(digests),
    )


def pool_id(pool: CandidatePool) -> PoolId:
    """Return a readable id: model, position, class, share, blocks (both ends included), batch.

    A pool that belongs to one pipeline alone also names that pipeline's classes, joined by hyphens;
    a hyphen within a name is doubled, so that no two routes read alike: no name begins with one.
    """
    blocks = f"{pool.first_block}-{pool.end_block - 1}"
    gpu_class = f"{pool.gpu_class.name}.1of{pool.m}"
    route = "-".join(name.replace("-", "--") for name in pool.route)
    of_route = f".of-{route}" if route else ""
    return PoolId(f"{pool.model}.{pool.position}.{gpu_class}.{blocks}.b{pool.batch}{of_route}")


def _model_plan(
    model: ModelInputs,
    solution: Solution,
    blocks_digests: Mapping[ModelName, str],
) -> ModelPlan:
    name = model.served.name
    flows = {path: flow for path, flow in solution.flows.items() if path.model == name}
    ordered = sorted(flows, key=lambda path: (-flows[path], [pool_id(each) for each in path.pools]))
    used = {pool_id(pool): pool for path in ordered for pool in path.pools}
    pools = sorted(used.values(), key=lambda pool: (pool.position, pool_id(pool)))
    return ModelPlan(
        model=name,
        blocks=model.blocks,
        slo_us=model.served.slo_us,
        weight=model.served.weight,
        margin_us=model.margin_us,
        throughput_rps=sum(flows[path] for path in ordered),
        pools=tuple(_pool(pool, model, solution.instances[pool]) for pool in pools),
        pipelines=tuple(
            _pipeline(path, number, flows[path]) for number, path in enumerate(ordered)
        ),
        blocks_digest=blocks_digests.get(name, model.blocks_digest),
        execution=model.served.execution,
    )


def _pool(pool: CandidatePool, model: ModelInputs, instances: int) -> Pool:
    table = model.latencies[pool.gpu_class.name]
    return Pool(
        id=pool_id(pool),
        position=pool.position,
        first_block=pool.first_block,
        end_block=pool.end_block,
        gpu_class=pool.gpu_class.name,
        share=pool.share,
        batch=pool.batch,
        instances=instances,
        latency_us_by_batch=table.latencies_us(
            pool.first_block, pool.end_block, pool.batch, pool.share
        ),
        memory_bytes=pool.memory_bytes,
    )


def _pipeline(path: CandidatePath, number: int, flow: float) -> Pipeline:
    return Pipeline(
        id=PipelineId(f"{path.model}.p{number}"),
        pools=tuple(pool_id(pool) for pool in path.pools),
        transfers=tuple(
            Transfer(bytes_per_sample=size, us_per_sample=us)
            for size, us in zip(path.cut_bytes, path.transfers_us, strict=True)
        ),
        throughput_rps=flow,
        batch_build_us=path.batch_build_us,
        latency_us=path.latency_us,
    )
