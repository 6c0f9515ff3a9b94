"""Every stage for itself: the ablation of PPipe's reservation, in simulated time.

Source: PPipe (ATC 2025), where a scheduler at every hop takes the place of the reservation: the
instance that is free first runs the largest batch that the slack allows, and what waits at later
stages is nobody's concern until a batch gets there.

Each place at which a model may be cut becomes a queue of its own, served by the pools that begin
there, under any batching policy; batches are made anew at every stage. A request that leaves a pool
arrives at the queue where that pool ends, after its transfer; it has to leave in time for the least
work that is still to come. Transfers take their time but wait for no network card, which is kind to
this way of scheduling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from penstock.domain.errors import InvalidInput
from penstock.domain.ids import ModelName, PipelineId, PoolId, RequestId
from penstock.domain.plan import ModelPlan, Pipeline, Plan, Pool
from penstock.domain.requests import Request
from penstock.domain.units import Micros

PREFIX = "per-hop:"  # before a batching policy's name


def stage_policy(batching: str) -> str | None:
    """Return the policy of each stage, if a text asks for one at every hop."""
    return batching[len(PREFIX) :] if batching.startswith(PREFIX) else None


@dataclass(frozen=True, slots=True)
class _Onward:
    """What becomes of a request that leaves a pool.

    Attributes:
        queue: that it goes to; None: it is answered.
        wire_us: on the way there, for one sample.
        least_us: that is still to come for it then, at least.
    """

    queue: ModelName | None
    wire_us: Micros
    least_us: Micros


class Relay:
    """Hands requests from the queue of one stage to that of the next.

    Attributes:
        plan: of the stages, each as if it were a model.
    """

    def __init__(self, plan: Plan) -> None:
        self._hop_us = plan.hop_overhead_us
        self._first = {model.model: _queue(model, 0) for model in plan.models}
        self._onward: dict[PoolId, _Onward] = {}
        for model in plan.models:
            self._onward |= _onward(model, plan.hop_overhead_us)
        self._slack_us = {
            _queue(model, pool.first_block): min(
                self._onward[each.id].least_us
                for each in model.pools
                if each.first_block == pool.first_block
            )
            for model in plan.models
            for pool in model.pools
        }
        self._asked: dict[RequestId, Request] = {}
        stages = tuple(stage for model in plan.models for stage in _stages(model, self._slack_us))
        self.plan = replace(plan, models=stages)

    def first_queue(self, model: ModelName) -> ModelName:
        """Return the queue in which a model's requests arrive."""
        return self._first[model]

    def first(self, request: Request) -> Request:
        """Return a request as its first stage sees it.

        Raises:
            InvalidInput: it has several samples, which might go separate ways.
        """
        if request.samples > 1:
            found = f"{request.samples} of model {request.model}"
            raise InvalidInput(PREFIX.rstrip(":"), "samples", "1 for each request", found)
        self._asked[request.id] = request
        return self._at(request, self._first[request.model], request.arrival_us)

    def next(self, request: Request, pool: PoolId, now_us: Micros) -> Request | None:
        """Return a request as the stage after a pool sees it, or None if it has been answered.

        Args:
            request: as the stage of that pool saw it.
            pool: whose batch it was in.
            now_us: when the pool's answer was back, a hand-over after it was computed.
        """
        onward = self._onward[pool]
        if onward.queue is None:
            return None
        arrival_us = now_us + max(0, onward.wire_us - self._hop_us)
        return self._at(self._asked[request.id], onward.queue, arrival_us)

    def ended(self, request: Request) -> Request:
        """Return the request as it was asked, and forget it."""
        return self._asked.pop(request.id)

    def _at(self, asked: Request, queue: ModelName, arrival_us: Micros) -> Request:
        deadline_us = asked.deadline_us - self._slack_us[queue]
        return replace(asked, model=queue, arrival_us=arrival_us, deadline_us=deadline_us)


def _queue(model: ModelPlan, first_block: int) -> ModelName:
    return ModelName(f"{model.model}@{first_block}")


def _onward(model: ModelPlan, hop_us: Micros) -> dict[PoolId, _Onward]:
    """Return what comes after each pool, the last stages first."""
    wires_us = _wires_us(model)
    after: dict[PoolId, _Onward] = {}
    least_us: dict[int, Micros] = {model.blocks: 0}  # from a block on, hand-over there included
    for pool in sorted(model.pools, key=lambda each: each.first_block, reverse=True):
        rest_us = least_us[pool.end_block]
        if pool.end_block == model.blocks:
            after[pool.id] = _Onward(None, 0, 0)
        else:
            wire_us = wires_us[pool.id]
            queue = _queue(model, pool.end_block)
            after[pool.id] = _Onward(queue, wire_us, max(0, wire_us - hop_us) + rest_us)
        here_us = pool.latency_us_by_batch[0] + 2 * hop_us + after[pool.id].least_us
        least_us[pool.first_block] = min(here_us, least_us.get(pool.first_block, here_us))
    return after


def _wires_us(model: ModelPlan) -> dict[PoolId, Micros]:
    """Return how long one sample takes over the wire from each pool; the slowest way counts."""
    wires_us: dict[PoolId, Micros] = {}
    for pipeline in model.pipelines:
        for pool, transfer in zip(pipeline.pools, pipeline.transfers, strict=False):
            wires_us[pool] = max(wires_us.get(pool, 0), transfer.us_per_sample)
    return wires_us


def _stages(model: ModelPlan, slack_us: Mapping[ModelName, Micros]) -> list[ModelPlan]:
    """Return a model's stages, each as a model whose pipelines are single pools."""
    stages = []
    for first in sorted({pool.first_block for pool in model.pools}):
        pools = [pool for pool in model.pools if pool.first_block == first]
        pipelines = tuple(_alone(pool, model) for pool in pools)
        queue = _queue(model, first)
        stage = replace(
            model,
            model=queue,
            slo_us=model.slo_us - slack_us[queue],
            throughput_rps=sum(each.throughput_rps for each in pipelines),
            pools=tuple(replace(pool, position=0) for pool in pools),
            pipelines=pipelines,
        )
        stages.append(stage)
    return stages


def _alone(pool: Pool, model: ModelPlan) -> Pipeline:
    through = [each for each in model.pipelines if pool.id in each.pools]
    return Pipeline(
        id=PipelineId(pool.id),
        pools=(pool.id,),
        transfers=(),
        throughput_rps=sum(each.throughput_rps for each in through),
        batch_build_us=max((each.batch_build_us for each in through), default=0),
        latency_us=pool.latency_us,
    )
