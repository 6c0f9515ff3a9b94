"""Candidates: every stage and every path of stages that memory, shares and the SLO allow.

A path is one feasible way of a batch through a model: contiguous block ranges, a GPU class and a
share for each, and one batch size for all. Paths that have a stage in common share its pool.
Pure enumeration; knows nothing of counts, flows or the solver. Symbols follow PPipe: share 1/m,
batch b, t the transfer time of one sample over a cut, g GPUs per server.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from penstock.domain.cluster import GpuClass, PlannerOptions
from penstock.domain.ids import ModelName
from penstock.domain.units import US_PER_SECOND, Bytes, Micros
from penstock.latency.transfer import sample_transfer_us
from planner.inputs import ModelInputs, PlannerInputs, margin_us

Rates: TypeAlias = Mapping[ModelName, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandidatePool:
    """A stage that may get instances. One object per pool: compared by identity.

    Attributes:
        m: denominator of the share.
        batch: planned batch size b.
        latency_us: of one batch.
    """

    model: ModelName
    position: int
    first_block: int
    end_block: int
    gpu_class: GpuClass
    m: int
    batch: int
    latency_us: Micros
    memory_bytes: Bytes

    @property
    def share(self) -> Fraction:
        """Part of one GPU an instance holds."""
        return Fraction(1, self.m)

    @property
    def compute_load(self) -> float:
        """Instances busy computing per sample/s; a stage counts as a microsecond at least."""
        return max(1, self.latency_us) / (US_PER_SECOND * self.batch)

    def link_load(self, sample_us: Micros) -> float:
        """Instances whose part of the network card is busy per sample/s: m·g share one card."""
        return sample_us * self.m * self.gpu_class.gpus_per_server / US_PER_SECOND


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandidatePath:
    """One feasible way through a model.

    Attributes:
        transfers_us: per cut, for one sample.
        batch_build_us: allowance for gathering the batch.
        latency_us: everything but the margin.
    """

    model: ModelName
    pools: tuple[CandidatePool, ...]
    transfers_us: tuple[Micros, ...]
    batch_build_us: Micros
    latency_us: Micros

    @property
    def batch(self) -> int:
        """The batch size of all its stages."""
        return self.pools[0].batch

    def loads(self, position: int) -> tuple[float, float, float]:
        """Return instances of that stage kept busy per sample/s: compute, receive, send."""
        pool = self.pools[position]
        receive = pool.link_load(self.transfers_us[position - 1]) if position else 0.0
        last = position == len(self.pools) - 1
        send = 0.0 if last else pool.link_load(self.transfers_us[position])
        return pool.compute_load, receive, send

    @property
    def instance_rps(self) -> float:
        """Throughput with one instance in each pool."""
        return 1 / max(max(self.loads(position)) for position in range(len(self.pools)))


def batch_build_us(batch: int, rate_rps: float, factor: float) -> Micros:
    """Return the allowance for gathering a batch at `rate_rps`, rounded up; 0 for one sample."""
    if batch == 1 or factor == 0 or math.isinf(rate_rps):
        return 0
    return math.ceil(factor * (batch - 1) * US_PER_SECOND / rate_rps)


def enumerate_paths(inputs: PlannerInputs, rates: Rates) -> tuple[CandidatePath, ...]:
    """Return every path within the SLO of its model.

    Args:
        inputs: cluster, models and options.
        rates: samples/s at which batches are assumed to fill, per model; infinite: at once.
    """
    return tuple(
        path
        for model in inputs.models
        for path in model_paths(model, inputs, rates[model.served.name])
    )


def model_paths(
    model: ModelInputs, inputs: PlannerInputs, rate_rps: float, *, limited: bool = True
) -> Iterator[CandidatePath]:
    """Yield the paths of one model in a fixed order.

    Args:
        model: the model.
        inputs: the fleet and the options.
        rate_rps: samples/s at which a batch fills.
        limited: keep to the SLO; False yields every path that memory allows.
    """
    served, options = model.served, inputs.options
    for batch in _batches(model, options):
        build_us = batch_build_us(batch, rate_rps, options.batch_build_factor)
        budget_us = served.slo_us - margin_us(served.slo_us, options.slo_margin) - build_us
        search = _Search(model, inputs, batch, budget_us if limited else math.inf)
        for pools, transfers, spent_us in search.paths():
            yield CandidatePath(
                model=served.name,
                pools=pools,
                transfers_us=transfers,
                batch_build_us=build_us,
                latency_us=spent_us + build_us,
            )


def _batches(model: ModelInputs, options: PlannerOptions) -> list[int]:
    found = {
        batch
        for table in model.latencies.values()
        for share in table.shares
        for batch in table.batches(share)
    }
    return sorted(batch for batch in found if batch <= options.max_batch)


_Partial: TypeAlias = tuple[tuple[CandidatePool, ...], tuple[Micros, ...], Micros]


class _Search:
    """Depth-first search over the stages of one model at one batch size."""

    def __init__(
        self, model: ModelInputs, inputs: PlannerInputs, batch: int, budget_us: float
    ) -> None:
        self._model = model
        self._batch = batch
        self._budget_us = budget_us
        self._hop_us = inputs.options.hop_overhead_us
        self._max_stages = inputs.options.max_stages
        self._choices = [
            (gpu_class, share)
            for gpu_class in inputs.gpu_classes
            for share in model.latencies[gpu_class.name].shares
            if share.numerator == 1 and share.denominator <= gpu_class.max_share_denominator
            if batch in model.latencies[gpu_class.name].batches(share)
        ]
        self._pools: dict[tuple[int, int, int], tuple[CandidatePool, ...]] = {}
        self._least_tail_us = self._least_tails()

    def paths(self) -> Iterator[_Partial]:
        if self._choices:
            yield from self._extend((), (), self._hop_us, 0)

    def _least_tails(self) -> list[Micros]:
        """For each block, what it and all after it take at the very least."""
        tails = [0]
        for block in reversed(range(self._model.blocks)):
            cells = (self._latency(block, block + 1, *choice) for choice in self._choices)
            tails.append(tails[-1] + min(cells, default=0))
        return tails[::-1]

    def _latency(self, first: int, end: int, gpu_class: GpuClass, share: Fraction) -> Micros:
        table = self._model.latencies[gpu_class.name]
        return table.stage_latency_us(first, end, self._batch, share)

    def _extend(
        self,
        pools: tuple[CandidatePool, ...],
        transfers: tuple[Micros, ...],
        spent_us: Micros,
        first: int,
    ) -> Iterator[_Partial]:
        blocks = self._model.blocks
        is_last = len(pools) + 1 == self._max_stages
        for end in range(blocks if is_last else first + 1, blocks + 1):
            for pool in self._pools_for(len(pools), first, end):
                cuts = self._cut(pools, pool)
                total_us = spent_us + self._hop_us + pool.latency_us + self._batch * sum(cuts)
                if total_us + self._least_tail_us[end] > self._budget_us:
                    continue
                found = (*pools, pool), (*transfers, *cuts), total_us
                if end == blocks:
                    yield found
                else:
                    yield from self._extend(*found, end)

    def _cut(self, pools: tuple[CandidatePool, ...], pool: CandidatePool) -> tuple[Micros, ...]:
        if not pools:
            return ()
        size = self._model.cut_bytes[pool.first_block - 1]
        return (sample_transfer_us(size, pools[-1].gpu_class, pool.gpu_class),)

    def _pools_for(self, position: int, first: int, end: int) -> tuple[CandidatePool, ...]:
        key = position, first, end
        if key not in self._pools:
            self._pools[key] = tuple(self._fitting_pools(*key))
        return self._pools[key]

    def _fitting_pools(self, position: int, first: int, end: int) -> Iterator[CandidatePool]:
        memory_bytes = self._model.stage_memory_bytes(first, end, self._batch)
        for gpu_class, share in self._choices:
            if memory_bytes <= gpu_class.memory_bytes * share:
                yield CandidatePool(
                    model=self._model.served.name,
                    position=position,
                    first_block=first,
                    end_block=end,
                    gpu_class=gpu_class,
                    m=share.denominator,
                    batch=self._batch,
                    latency_us=self._latency(first, end, gpu_class, share),
                    memory_bytes=memory_bytes,
                )
