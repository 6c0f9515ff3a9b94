"""Candidates: a stage that may get instances, and a path of stages through a model.

Values only. `planner.paths` finds the paths that memory, shares and the SLO allow; which of them
are used is the solver's choice. Symbols follow PPipe: share 1/m, batch b, t the transfer time of
one sample over a cut, g GPUs per server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

from penstock.domain.cluster import GpuClass
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.units import US_PER_SECOND, Bytes, Micros
from penstock.latency.transfer import link_us

Rates: TypeAlias = Mapping[ModelName, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandidatePool:
    """A stage that may get instances. One object per pool: compared by identity.

    Attributes:
        m: denominator of the share.
        batch: planned batch size b.
        latency_us: of one batch.
        route: the GPU classes of the one pipeline it belongs to; empty if it may be shared.
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
    route: tuple[GpuClassName, ...] = ()

    @property
    def share(self) -> Fraction:
        """Part of one GPU an instance holds."""
        return Fraction(1, self.m)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandidatePath:
    """One feasible way through a model.

    Attributes:
        cut_bytes: per cut, of one sample.
        transfers_us: per cut, for one sample, rounded up.
        batch_build_us: allowance for gathering the batch.
        latency_us: everything but the margin.
    """

    model: ModelName
    pools: tuple[CandidatePool, ...]
    cut_bytes: tuple[Bytes, ...]
    transfers_us: tuple[Micros, ...]
    batch_build_us: Micros
    latency_us: Micros

    @property
    def batch(self) -> int:
        """The largest batch of its stages: as many samples travel together."""
        return max(pool.batch for pool in self.pools)

    def load(self, position: int) -> float:
        """Return the instances of that stage kept busy per sample/s.

        An instance computes, receives and sends at the same time; the longest of them counts.
        Links carry bytes per second exactly: only latencies are whole microseconds.
        """
        pool = self.pools[position]
        card_sharers = pool.m * pool.gpu_class.gpus_per_server
        links = (position - 1, position)
        moving_us = [self._link_us(cut) for cut in links if 0 <= cut < len(self.cut_bytes)]
        busy_us = max(
            max(1, pool.latency_us) / pool.batch, card_sharers * max(moving_us, default=0)
        )
        return busy_us / US_PER_SECOND

    def _link_us(self, cut: int) -> float:
        sender, receiver = self.pools[cut].gpu_class, self.pools[cut + 1].gpu_class
        return link_us(self.cut_bytes[cut], sender, receiver)

    @property
    def instance_rps(self) -> float:
        """Throughput with one instance in each pool."""
        return 1 / max(self.load(position) for position in range(len(self.pools)))

    def filling_at(self, rate_rps: float, factor: float) -> CandidatePath:
        """Return the path with the allowance for batches that fill at another rate.

        Args:
            rate_rps: samples/s of the model.
            factor: `batch_build_factor` of the options.
        """
        build_us = batch_build_us(self.batch, rate_rps, factor)
        latency_us = self.latency_us - self.batch_build_us + build_us
        return replace(self, batch_build_us=build_us, latency_us=latency_us)


def batch_build_us(batch: int, rate_rps: float, factor: float) -> Micros:
    """Return the allowance for gathering a batch at `rate_rps`, rounded up; 0 for one sample."""
    if batch == 1 or factor == 0 or math.isinf(rate_rps):
        return 0
    return math.ceil(factor * (batch - 1) * US_PER_SECOND / rate_rps)
