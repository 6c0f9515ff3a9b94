"""Is every pipeline in time, and does each model sustain what the plan says?

Groups and batches: B is the largest batch of the stages so far; a stage of batch b takes B/b
batches one after another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate, pairwise

from penstock.domain.plan import Pipeline, Pool
from penstock.domain.units import US_PER_SECOND, Bytes, Micros, transfer_us
from planner.verify.subject import TOLERANCE, Subject

_ROUNDING_US = 1


def path_faults(subject: Subject) -> Iterator[str]:
    """Yield the faults of one model's pipelines."""
    for pipeline in subject.plan.pipelines:
        yield from _transfer_faults(pipeline, subject)
        yield from _latency_faults(pipeline, subject)
        yield from _stage_count_faults(pipeline, subject)
        yield from _build_faults(pipeline, subject)


def cuts_of(pipeline: Pipeline, subject: Subject) -> list[tuple[Bytes, float]]:
    """Return the bytes of one sample over each cut, and the Gbit/s they cross it at."""
    return [
        (
            subject.profiles[left.gpu_class].cut_bytes[left.end_block - 1],
            min(subject.classes[each.gpu_class].network_gbps for each in (left, right)),
        )
        for left, right in pairwise(subject.pools_of(pipeline))
    ]


def _transfer_faults(pipeline: Pipeline, subject: Subject) -> Iterator[str]:
    for transfer, (size, gbps) in zip(pipeline.transfers, cuts_of(pipeline, subject), strict=True):
        if transfer.bytes_per_sample != size:
            yield f"pipeline {pipeline.id}: transfers {transfer.bytes_per_sample} B, cut is {size}"
        expected = transfer_us(size, gbps)
        if transfer.us_per_sample != expected:
            yield f"pipeline {pipeline.id}: transfer of {transfer.us_per_sample} µs, is {expected}"


def _latency_faults(pipeline: Pipeline, subject: Subject) -> Iterator[str]:
    latency_us = _latency_us(pipeline, subject)
    if pipeline.latency_us != latency_us:
        yield f"pipeline {pipeline.id}: latency is {pipeline.latency_us} µs, sums to {latency_us}"
    over_us = latency_us + subject.margin_us - subject.served.slo_us
    if over_us > 0:
        yield f"pipeline {pipeline.id}: misses the SLO by {over_us} µs"
    most_us = subject.served.max_latency_us
    if most_us is not None and latency_us > most_us:
        yield f"pipeline {pipeline.id}: takes {latency_us} µs, max_latency is {most_us}"


def _latency_us(pipeline: Pipeline, subject: Subject) -> Micros:
    pools = subject.pools_of(pipeline)
    groups = list(accumulate((pool.batch for pool in pools), max))
    computing = sum(
        group // pool.batch * _planned_us(pool) for pool, group in zip(pools, groups, strict=True)
    )
    moving = sum(
        group * transfer_us(size, gbps)
        for group, (size, gbps) in zip(groups, cuts_of(pipeline, subject), strict=False)
    )
    hops = subject.options.hop_overhead_us * (len(pools) + 1)
    return computing + moving + hops + pipeline.batch_build_us


def _planned_us(pool: Pool) -> Micros:
    return pool.latency_us_by_batch[pool.batch - 1]


def _stage_count_faults(pipeline: Pipeline, subject: Subject) -> Iterator[str]:
    count = len(pipeline.pools)
    if count > subject.max_stages:
        yield f"pipeline {pipeline.id}: has {count} stages, more than max_stages"
    elif subject.formulation == "no-partition" and count > 1:
        yield f"pipeline {pipeline.id}: has {count} stages, without partition one"


def _build_faults(pipeline: Pipeline, subject: Subject) -> Iterator[str]:
    """Yield if a batch is given less time to fill than the planned load takes."""
    rate_rps = subject.plan.throughput_rps
    if not pipeline.throughput_rps > 0:
        yield f"pipeline {pipeline.id}: has no throughput"
    elif rate_rps > 0:
        batch = max(pool.batch for pool in subject.pools_of(pipeline))
        waiting = subject.options.batch_build_factor * (batch - 1)
        needed_us = waiting * US_PER_SECOND / rate_rps
        if pipeline.batch_build_us < needed_us * (1 - TOLERANCE) - _ROUNDING_US:
            yield (
                f"pipeline {pipeline.id}: {pipeline.batch_build_us} µs to gather a batch, "
                f"needs {needed_us:.0f} µs at the planned load"
            )


def throughput_faults(subject: Subject) -> Iterator[str]:
    """Yield if a model's throughput or margin is not what it was to be."""
    model, asked_rps = subject.plan, subject.served.rate_rps
    if model.margin_us != subject.margin_us:
        yield f"model {model.model}: margin is {model.margin_us} µs, asked {subject.margin_us} µs"
    total = math.fsum(each.throughput_rps for each in model.pipelines)
    if not math.isclose(total, model.throughput_rps, rel_tol=TOLERANCE):
        yield f"model {model.model}: throughput is not the sum of its pipelines' ({total:.3f})"
    if asked_rps is not None and not total >= asked_rps * (1 - TOLERANCE):
        yield f"model {model.model}: sustains {total:.3f} rps of the {asked_rps:g} asked"
    if not model.throughput_rps > 0:
        yield f"model {model.model}: has no throughput"
