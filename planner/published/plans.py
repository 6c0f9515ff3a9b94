"""Published plans as plans of ours, so that the same engine can run them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from penstock.domain.plan import Plan, SolveReport
from penstock.latency.transfer import sample_transfer_us
from planner.candidates import CandidatePath, CandidatePool
from planner.extract import extract_plan
from planner.inputs import PlannerInputs, gather_inputs
from planner.published.values import (
    PublishedConfiguration,
    PublishedPipeline,
    PublishedPlan,
    Scheduler,
)
from planner.solution import Solution


def plan_of(configuration: PublishedConfiguration, scheduler: Scheduler) -> Plan:
    """Return one scheduler's published plan with latencies from the published profiles.

    Each pipeline has pools of its own. Pipelines of a model with the same stages become one with
    all their instances: any instance of a pool may serve any batch.

    Raises:
        KeyError: the configuration has no plan of that scheduler.
    """
    published = configuration.plans[scheduler]
    inputs = gather_inputs(published.cluster, configuration.profiles)
    instances: dict[CandidatePool, int] = {}
    flows: dict[CandidatePath, float] = {}
    for pipeline in _merged(published):
        path = _path(inputs, pipeline)
        flows[path] = pipeline.throughput_rps
        for pool, stage in zip(path.pools, pipeline.stages, strict=True):
            instances[pool] = stage.instances
    value = published.objective_rps
    solution = Solution(
        instances=instances,
        flows=flows,
        objective_rps=value,
        value=value,
        bound=value,
        status="feasible",
    )
    report = SolveReport(
        solver="published",
        formulation=scheduler.value,
        status="feasible",
        objective_rps=value,
        value=value,
        bound=value,
        gap=0.0,
        seconds=published.seconds or 0.0,
        seed=0,
    )
    return extract_plan(inputs, solution, report, blocks_digests={}, digests=())


def _merged(published: PublishedPlan) -> Iterator[PublishedPipeline]:
    """Yield the pipelines that carry something, those with the same stages as one."""
    found: dict[tuple[object, ...], PublishedPipeline] = {}
    for pipeline in published.pipelines:
        key = (pipeline.model, *(replace(stage, instances=0) for stage in pipeline.stages))
        known = found.get(key)
        found[key] = pipeline if known is None else _joined(known, pipeline)
    for each in found.values():
        if each.throughput_rps > 0 and all(stage.instances for stage in each.stages):
            yield each


def _joined(one: PublishedPipeline, other: PublishedPipeline) -> PublishedPipeline:
    stages = tuple(
        replace(a, instances=a.instances + b.instances)
        for a, b in zip(one.stages, other.stages, strict=True)
    )
    throughput_rps = one.throughput_rps + other.throughput_rps
    return replace(one, throughput_rps=throughput_rps, stages=stages)


def _path(inputs: PlannerInputs, pipeline: PublishedPipeline) -> CandidatePath:
    model = next(each for each in inputs.models if each.served.name == pipeline.model)
    classes = {each.name: each for each in inputs.gpu_classes}
    route = tuple(stage.gpu_class for stage in pipeline.stages)
    pools = tuple(
        CandidatePool(
            model=pipeline.model,
            position=position,
            first_block=stage.first_block,
            end_block=stage.end_block,
            gpu_class=classes[stage.gpu_class],
            m=stage.m,
            batch=stage.batch,
            latency_us=stage.latency_us,
            memory_bytes=0,
            route=route,
        )
        for position, stage in enumerate(pipeline.stages)
    )
    cut_bytes = tuple(model.cut_bytes[stage.end_block - 1] for stage in pipeline.stages[:-1])
    transfers_us = tuple(
        sample_transfer_us(size, sender.gpu_class, receiver.gpu_class)
        for size, sender, receiver in zip(cut_bytes, pools, pools[1:], strict=False)
    )
    batch = pools[0].batch
    latency_us = sum(pool.latency_us for pool in pools) + sum(batch * us for us in transfers_us)
    path = CandidatePath(
        model=pipeline.model,
        pools=pools,
        cut_bytes=cut_bytes,
        transfers_us=transfers_us,
        batch_build_us=0,
        latency_us=latency_us,
    )
    return path.filling_at(pipeline.throughput_rps, inputs.options.batch_build_factor)
