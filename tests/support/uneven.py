"""Plans whose stages differ in batch size, and their pipelines with ready instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from penstock.domain.ids import InstanceId, ServerId
from penstock.domain.plan import Plan
from penstock.scheduling.instances import Instance, LivePipeline, NetworkCard, live_pipelines
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool
from tests.support.driving import linear


def an_uneven_plan(
    batches: Sequence[int],
    counts: Sequence[int],
    *,
    transfer_us: int = 0,
    hop_us: int = 0,
    fixed_us: int = 8_000,
    each_us: int = 2_000,
    slo_us: int = 200_000,
    batch_build_us: int = 0,
    digest: str = "",
) -> Plan:
    """A stage with a batch of b takes 8 ms and 2 ms for each sample, unless told otherwise."""
    pools = [
        a_pool(
            f"p{stage}",
            position=stage,
            blocks=(stage, stage + 1),
            latencies_us=linear(batch, fixed_us=fixed_us, each_us=each_us),
            instances=count,
        )
        for stage, (batch, count) in enumerate(zip(batches, counts, strict=True))
    ]
    model = a_model_plan(
        pools, transfer_us=transfer_us, slo_us=slo_us, batch_build_us=batch_build_us
    )
    return a_plan(replace(model, blocks_digest=digest), hop_us=hop_us)


def an_uneven_pipeline(
    batches: Sequence[int], counts: Sequence[int], *, transfer_us: int = 0, servers: int = 0
) -> LivePipeline:
    """Its instances are idle, each on a server of its own unless `servers` is given."""
    plan = an_uneven_plan(batches, counts, transfer_us=transfer_us)
    live, pipelines = live_pipelines(plan.models[0])
    cards = [NetworkCard() for _ in range(servers or sum(counts))]
    joined = 0
    for pool in live.values():
        for number in range(pool.plan.instances):
            at = joined % len(cards)
            name = InstanceId(f"{pool.plan.id}/{number}")
            pool.join(Instance(name, MODEL, pool, ServerId(f"s{at}"), cards[at]))
            joined += 1
    return pipelines[0]
