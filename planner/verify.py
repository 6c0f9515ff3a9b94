"""Verifier: does a plan keep what it promises? Everything is computed again from its inputs.

Shares no code with the enumeration or the formulation, and looks at no solver: only at the plan,
the cluster and the profiles. Symbols as in PPipe: share 1/m, g GPUs per server.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from penstock.domain.cluster import Cluster, GpuClass, ServedModel
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.placement import gpu_slots
from penstock.domain.plan import Digest, ModelPlan, Pipeline, Plan, Pool
from penstock.domain.profiles import LatencyProfile

_TOLERANCE = 1e-6  # relative, for numbers that passed through a solver
_ROUNDING_US = 1


def told(faults: Sequence[str]) -> str:
    """Return the first fault and how many more there are, for one line."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{faults[0]}{more}"


def find_faults(
    plan: Plan,
    cluster: Cluster,
    profiles: Mapping[tuple[ModelName, GpuClassName], LatencyProfile],
    digests: Sequence[Digest] | None = None,
) -> Iterator[str]:
    """Yield every fault of a plan, one line each.

    Args:
        plan: what is checked.
        cluster: the fleet and the models it claims to be for.
        profiles: by model and GPU class.
        digests: of those inputs; None if they are not to be compared.
    """
    if digests is not None:
        yield from _digest_faults(plan, digests)
    header = (*_class_faults(plan, cluster), *_served_faults(plan, cluster))
    yield from header
    if header:
        return  # the rest would only repeat it
    classes = {each.name: each for each in cluster.gpu_classes}
    for model, served in zip(plan.models, cluster.models, strict=True):
        own = {name: each for (owner, name), each in profiles.items() if owner == served.name}
        broken = tuple(_shape_faults(model, classes, own))
        yield from broken
        if not broken:
            yield from _model_faults(model, served, cluster, classes, own)
    yield from _inventory_faults(plan)
    yield from _objective_faults(plan)


def _digest_faults(plan: Plan, digests: Sequence[Digest]) -> Iterator[str]:
    planned = {each.name: each.sha256 for each in plan.inputs}
    for each in digests:
        if planned.get(each.name) != each.sha256:
            yield f"input {each.name}: has changed since the plan was made"


def _class_faults(plan: Plan, cluster: Cluster) -> Iterator[str]:
    planned = {
        each.name: (each.count, each.memory_bytes, each.gpus_per_server, each.network_gbps)
        for each in plan.gpu_classes
    }
    actual = {
        each.name: (each.count, each.memory_bytes, each.gpus_per_server, each.network_gbps)
        for each in cluster.gpu_classes
    }
    for name in {**planned, **actual}:
        if planned.get(name) != actual.get(name):
            yield f"GPU class {name}: planned as {planned.get(name)}, is {actual.get(name)}"
    if plan.hop_overhead_us != cluster.options.hop_overhead_us:
        expected = cluster.options.hop_overhead_us
        yield f"hop_overhead_us: planned with {plan.hop_overhead_us}, is {expected}"


def _served_faults(plan: Plan, cluster: Cluster) -> Iterator[str]:
    planned = [each.model for each in plan.models]
    asked = [each.name for each in cluster.models]
    if planned != asked:
        yield f"models: planned {planned}, asked {asked}"
        return
    for model, served in zip(plan.models, cluster.models, strict=True):
        if (model.slo_us, model.weight) != (served.slo_us, served.weight):
            yield f"model {model.model}: its SLO or weight is not that of the cluster"


def _shape_faults(
    model: ModelPlan,
    classes: Mapping[GpuClassName, GpuClass],
    profiles: Mapping[GpuClassName, LatencyProfile],
) -> Iterator[str]:
    """Yield what would make further arithmetic meaningless: names, ranges, coverage."""
    name = model.model
    pools = {pool.id: pool for pool in model.pools}
    if len(pools) != len(model.pools):
        yield f"model {name}: two pools have the same id"
    if len({each.id for each in model.pipelines}) != len(model.pipelines):
        yield f"model {name}: two pipelines have the same id"
    for pool in model.pools:
        if pool.gpu_class not in classes or pool.gpu_class not in profiles:
            yield f"pool {pool.id}: GPU class {pool.gpu_class} is not in the cluster and profiles"
        elif model.blocks != profiles[pool.gpu_class].blocks:
            yield f"model {name}: planned with {model.blocks} blocks, profiled with another number"
        if pool.instances < 1 or pool.batch < 1 or len(pool.latency_us_by_batch) != pool.batch:
            yield f"pool {pool.id}: needs an instance, a batch and a latency for each batch size"
        if pool.share.numerator != 1:
            yield f"pool {pool.id}: share {pool.share} is not one over a whole number"
    for pipeline in model.pipelines:
        if not pipeline.pools or any(each not in pools for each in pipeline.pools):
            yield f"pipeline {pipeline.id}: leads through a pool that is not in the plan"
        else:
            yield from _coverage_faults(model, pipeline, [pools[each] for each in pipeline.pools])


def _coverage_faults(model: ModelPlan, pipeline: Pipeline, pools: list[Pool]) -> Iterator[str]:
    ends = [0, *(pool.end_block for pool in pools)]
    starts = [*(pool.first_block for pool in pools), model.blocks]
    rising = all(pool.first_block < pool.end_block for pool in pools)
    if ends != starts or not rising:
        yield f"pipeline {pipeline.id}: does not cover blocks 0-{model.blocks - 1} once, in order"
    if [pool.position for pool in pools] != list(range(len(pools))):
        yield f"pipeline {pipeline.id}: its pools' positions are not 0, 1, …"
    if len({pool.batch for pool in pools}) != 1:
        yield f"pipeline {pipeline.id}: its stages differ in batch"
    if len(pipeline.transfers) != len(pools) - 1:
        yield f"pipeline {pipeline.id}: needs a transfer for each cut"


def _model_faults(
    model: ModelPlan,
    served: ServedModel,
    cluster: Cluster,
    classes: Mapping[GpuClassName, GpuClass],
    profiles: Mapping[GpuClassName, LatencyProfile],
) -> Iterator[str]:
    for pool in model.pools:
        yield from _pool_faults(pool, classes[pool.gpu_class], profiles[pool.gpu_class], cluster)
        yield from _capacity_faults(pool, model, classes)
    for pipeline in model.pipelines:
        yield from _pipeline_faults(pipeline, model, cluster, classes, profiles)
    expected = round(served.slo_us * cluster.options.slo_margin)
    if model.margin_us != expected:
        yield f"model {model.model}: margin is {model.margin_us} µs, asked {expected} µs"
    total = math.fsum(each.throughput_rps for each in model.pipelines)
    if not math.isclose(total, model.throughput_rps, rel_tol=_TOLERANCE):
        yield f"model {model.model}: throughput is not the sum of its pipelines' ({total:.3f})"
    if served.rate_rps is not None and total < served.rate_rps * (1 - _TOLERANCE):
        yield f"model {model.model}: sustains {total:.3f} rps of the {served.rate_rps:g} asked"
    for profile in profiles.values():
        if profile.blocks_digest and profile.blocks_digest != model.blocks_digest:
            yield f"model {model.model}: its profile on {profile.gpu_class} is of other blocks"


def _pool_faults(
    pool: Pool, gpu_class: GpuClass, profile: LatencyProfile, cluster: Cluster
) -> Iterator[str]:
    cells: dict[int, dict[int, int]] = {}
    for row in profile.rows:
        if row.share == pool.share and pool.first_block <= row.block < pool.end_block:
            cells.setdefault(row.batch, {})[row.block] = row.latency_mean_us
    width = pool.end_block - pool.first_block
    sums = {batch: sum(each.values()) for batch, each in cells.items() if len(each) == width}
    if pool.batch not in sums:
        yield f"pool {pool.id}: batch {pool.batch} at share {pool.share} was not profiled"
        return
    expected = [
        sums[min(batch for batch in sums if batch >= size)] for size in range(1, pool.batch + 1)
    ]
    if list(pool.latency_us_by_batch) != expected:
        yield f"pool {pool.id}: latencies {list(pool.latency_us_by_batch)}, profiled {expected}"
    weights = sum(profile.weight_bytes[pool.first_block : pool.end_block])
    activations = max(profile.activation_bytes[pool.first_block : pool.end_block])
    memory_bytes = weights + pool.batch * activations
    if pool.memory_bytes != memory_bytes:
        yield f"pool {pool.id}: memory_bytes is {pool.memory_bytes}, needs {memory_bytes}"
    if memory_bytes * pool.share.denominator > gpu_class.memory_bytes:
        yield f"pool {pool.id}: an instance does not fit into its share of the GPU's memory"
    if pool.share.denominator > gpu_class.max_share_denominator:
        yield f"pool {pool.id}: share {pool.share} is smaller than the class allows"
    if pool.batch > cluster.options.max_batch:
        yield f"pool {pool.id}: batch {pool.batch} is larger than max_batch"


def _pipeline_faults(
    pipeline: Pipeline,
    model: ModelPlan,
    cluster: Cluster,
    classes: Mapping[GpuClassName, GpuClass],
    profiles: Mapping[GpuClassName, LatencyProfile],
) -> Iterator[str]:
    pools = [model.pool(each) for each in pipeline.pools]
    batch = pools[0].batch
    latency_us = cluster.options.hop_overhead_us * (len(pools) + 1) + pipeline.batch_build_us
    latency_us += sum(pool.latency_us_by_batch[batch - 1] for pool in pools)
    for left, right, transfer in zip(pools, pools[1:], pipeline.transfers, strict=False):
        size = profiles[left.gpu_class].cut_bytes[left.end_block - 1]
        sender, receiver = classes[left.gpu_class], classes[right.gpu_class]
        rate = Fraction(min(sender.network_gbps, receiver.network_gbps)) * 1000 / 8
        expected = math.ceil(size / rate)
        if transfer.bytes_per_sample != size:
            yield f"pipeline {pipeline.id}: transfers {transfer.bytes_per_sample} B, cut is {size}"
        if abs(transfer.us_per_sample - expected) > _ROUNDING_US:
            yield f"pipeline {pipeline.id}: transfer of {transfer.us_per_sample} µs, is {expected}"
        latency_us += batch * transfer.us_per_sample
    if pipeline.latency_us != latency_us:
        yield f"pipeline {pipeline.id}: latency is {pipeline.latency_us} µs, sums to {latency_us}"
    if latency_us + model.margin_us > model.slo_us:
        over = latency_us + model.margin_us - model.slo_us
        yield f"pipeline {pipeline.id}: misses the SLO by {over} µs"
    if len(pools) > cluster.options.max_stages:
        yield f"pipeline {pipeline.id}: has {len(pools)} stages, more than max_stages"
    yield from _build_faults(pipeline, model, batch, cluster.options.batch_build_factor)


def _build_faults(pipeline: Pipeline, model: ModelPlan, batch: int, factor: float) -> Iterator[str]:
    """Yield if a batch is given less time to fill than the planned load takes."""
    if not pipeline.throughput_rps > 0:
        yield f"pipeline {pipeline.id}: has no throughput"
    elif not model.throughput_rps > 0:
        yield f"model {model.model}: has no throughput"
    else:
        needed_us = factor * (batch - 1) * 1e6 / model.throughput_rps
        if pipeline.batch_build_us < needed_us * (1 - _TOLERANCE) - _ROUNDING_US:
            yield (
                f"pipeline {pipeline.id}: {pipeline.batch_build_us} µs to gather a batch, "
                f"needs {needed_us:.0f} µs at the planned load"
            )


def _capacity_faults(
    pool: Pool, model: ModelPlan, classes: Mapping[GpuClassName, GpuClass]
) -> Iterator[str]:
    """Yield if instances or their network cards would be busy for more than all of the time."""
    if not any(pool.id in pipeline.pools for pipeline in model.pipelines):
        yield f"pool {pool.id}: no pipeline leads through it"
    computing = receiving = sending = 0.0
    card_sharers = pool.share.denominator * classes[pool.gpu_class].gpus_per_server
    for pipeline in model.pipelines:
        if pool.id not in pipeline.pools:
            continue
        flow = pipeline.throughput_rps
        place = pipeline.pools.index(pool.id)
        computing += flow / pool.batch * pool.latency_us_by_batch[pool.batch - 1]
        if place > 0:
            receiving += flow * pipeline.transfers[place - 1].us_per_sample * card_sharers
        if place < len(pipeline.transfers):
            sending += flow * pipeline.transfers[place].us_per_sample * card_sharers
    room_us = pool.instances * 1e6 * (1 + _TOLERANCE)
    for doing, busy_us in (("compute", computing), ("receive", receiving), ("send", sending)):
        if busy_us > room_us:
            share = busy_us / (pool.instances * 1e6)
            yield f"pool {pool.id}: would {doing} {share:.1%} of the time"


def _inventory_faults(plan: Plan) -> Iterator[str]:
    counts = {each.name: each.count for each in plan.gpu_classes}
    crowded = False
    for pool in (pool for model in plan.models for pool in model.pools):
        room = counts.get(pool.gpu_class, 0) * pool.share.denominator
        if pool.instances > room:
            crowded = True
            yield f"pool {pool.id}: has {pool.instances} instances, its class has room for {room}"
    if crowded:
        return  # laying out that many could take forever
    used = Counter(slot.gpu_class for slot in gpu_slots(plan))
    for each in plan.gpu_classes:
        if used[each.name] > each.count:
            yield f"GPU class {each.name}: {used[each.name]} GPUs used of {each.count}"


def _objective_faults(plan: Plan) -> Iterator[str]:
    objective = min(model.throughput_rps / model.weight for model in plan.models)
    solve = plan.solve
    if not math.isclose(objective, solve.objective_rps, rel_tol=_TOLERANCE):
        yield f"objective_rps: is {solve.objective_rps:.3f}, the models have {objective:.3f}"
    if solve.bound_rps < objective * (1 - _TOLERANCE):
        yield f"bound_rps: {solve.bound_rps:.3f} is below the objective {objective:.3f}"
    gap = (solve.bound_rps - solve.objective_rps) / solve.bound_rps if solve.bound_rps else 0.0
    if abs(gap - solve.gap) > _TOLERANCE:
        yield f"gap: is {solve.gap}, bound and objective give {gap:.6f}"
