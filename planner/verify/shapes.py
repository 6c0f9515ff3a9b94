"""Does the plan hang together: ids, ranges, coverage, positions, batches, who shares a pool?

What is found here makes further arithmetic meaningless.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise

from penstock.domain.plan import Pipeline, Plan, Pool
from planner.verify.subject import Subject


def id_faults(plan: Plan) -> Iterator[str]:
    """Yield ids that stand for two things: instances are named after their pools."""
    pools = Counter(pool.id for model in plan.models for pool in model.pools)
    pipelines = Counter(each.id for model in plan.models for each in model.pipelines)
    yield from (f"pool {each}: two pools have the same id" for each in pools if pools[each] > 1)
    yield from (
        f"pipeline {each}: two pipelines have the same id"
        for each in pipelines
        if pipelines[each] > 1
    )


def shape_faults(subject: Subject) -> Iterator[str]:
    """Yield what is out of shape in one model."""
    model = subject.plan
    if any(model.blocks != each.blocks for each in subject.profiles.values()):
        yield f"model {model.model}: planned with {model.blocks} blocks, profiled with other blocks"
    for pool in model.pools:
        yield from _pool_faults(pool, subject)
    known = {pool.id for pool in model.pools}
    for pipeline in model.pipelines:
        if not pipeline.pools or not known.issuperset(pipeline.pools):
            yield f"pipeline {pipeline.id}: leads through a pool that is not in the plan"
        else:
            yield from _coverage_faults(pipeline, subject)
            yield from _batch_faults(pipeline, subject)
    if subject.options.mode == "compat":
        yield from _compat_faults(subject)


def _pool_faults(pool: Pool, subject: Subject) -> Iterator[str]:
    if pool.gpu_class not in subject.classes or pool.gpu_class not in subject.profiles:
        yield f"pool {pool.id}: GPU class {pool.gpu_class} is not in the cluster and profiles"
    if not 0 <= pool.first_block < pool.end_block <= subject.plan.blocks:
        yield f"pool {pool.id}: blocks {pool.first_block}-{pool.end_block - 1} are not the model's"
    if pool.instances < 1 or pool.batch < 1 or len(pool.latency_us_by_batch) != pool.batch:
        yield f"pool {pool.id}: needs an instance, a batch and a latency for each batch size"
    if pool.share.numerator != 1:
        yield f"pool {pool.id}: share {pool.share} is not one over a whole number"
    if not any(pool.id in pipeline.pools for pipeline in subject.plan.pipelines):
        yield f"pool {pool.id}: no pipeline leads through it"


def _coverage_faults(pipeline: Pipeline, subject: Subject) -> Iterator[str]:
    pools, blocks = subject.pools_of(pipeline), subject.plan.blocks
    ends = [0, *(pool.end_block for pool in pools)]
    starts = [*(pool.first_block for pool in pools), blocks]
    if ends != starts:
        yield f"pipeline {pipeline.id}: does not cover blocks 0-{blocks - 1} once, in order"
    if [pool.position for pool in pools] != list(range(len(pools))):
        yield f"pipeline {pipeline.id}: its pools' positions are not 0, 1, …"
    if len(pipeline.transfers) != len(pools) - 1:
        yield f"pipeline {pipeline.id}: needs a transfer for each cut"


def _batch_faults(pipeline: Pipeline, subject: Subject) -> Iterator[str]:
    """Yield batches that differ, or, with re-batching, that are not gathered or split evenly."""
    batches = [pool.batch for pool in subject.pools_of(pipeline)]
    if not subject.options.rebatch or subject.options.mode == "compat":
        if len(set(batches)) != 1:
            yield f"pipeline {pipeline.id}: its stages differ in batch ({batches})"
        return
    for batch, largest in zip(batches[1:], accumulate(batches, max), strict=False):
        if batch < 1 or largest < 1 or (batch % largest and largest % batch):
            yield (
                f"pipeline {pipeline.id}: batch {batch} is no whole part or multiple of the "
                f"{largest} before it"
            )


def _compat_faults(subject: Subject) -> Iterator[str]:
    """Yield what PPipe's own problem does not allow."""
    model = subject.plan
    users = Counter(each for pipeline in model.pipelines for each in pipeline.pools)
    for pool_id, count in users.items():
        if count > 1:
            yield f"pool {pool_id}: {count} pipelines lead through it, in compat mode one may"
    ways = sorted(
        tuple(pool.gpu_class for pool in subject.pools_of(each)) for each in model.pipelines
    )
    for way, other in pairwise(ways):
        if way == other:
            told = " → ".join(way)
            yield f"model {model.model}: two pipelines over {told}, in compat mode one may"
