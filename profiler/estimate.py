"""Estimate a profile for a GPU class that is not at hand, from its data sheet.

Knows blocks and rates. Knows nothing of torch or of a device: the model need not be loaded.

Weights are read once per batch, activations and arithmetic grow with it. A share 1/m gets 1/m of
the arithmetic peak and, conservatively, 1/m of the bandwidth: a share alone on its GPU could use
more, one among busy neighbours cannot count on it. Kernel launches cost the same on any share.
All weights of a block count as read; for a block with an embedding table that is too much.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction

from penstock.domain.blocks import Block, BlockPartition
from penstock.domain.cluster import DeviceRates, GpuClass
from penstock.domain.errors import InvalidCluster
from penstock.domain.profiles import LatencyProfile, ProfileRow, Provenance
from penstock.domain.units import Micros
from penstock.formats.codec import digest
from penstock.formats.graphs import write_blocks
from profiler.roofline import roofline_us


def estimate_profile(
    partition: BlockPartition,
    gpu_class: GpuClass,
    batches: Iterable[int],
    shares: Iterable[Fraction],
) -> LatencyProfile:
    """Return a profile of every block at every batch and share.

    An estimate has no spread: the 99th percentile equals the mean, and it rests on 0 samples.

    Raises:
        InvalidCluster: the class has no rates to estimate from.
    """
    rates = _rates(gpu_class)
    pairs = [(batch, share) for share in shares for batch in batches]
    rows = tuple(
        _row(block, batch, share, rates) for block in partition.blocks for batch, share in pairs
    )
    return LatencyProfile(
        model=partition.model,
        gpu_class=gpu_class.name,
        blocks=len(partition.blocks),
        rows=rows,
        cut_bytes=partition.cut_bytes,
        weight_bytes=tuple(block.weight_bytes for block in partition.blocks),
        activation_bytes=tuple(block.activation_bytes for block in partition.blocks),
        provenance=_provenance(gpu_class, rates),
        blocks_digest=digest(write_blocks(partition)),
    )


def shares_of(gpu_class: GpuClass) -> tuple[Fraction, ...]:
    """Return the shares a GPU of the class may be cut into, largest first."""
    return tuple(Fraction(1, parts) for parts in range(1, gpu_class.max_share_denominator + 1))


def block_us(block: Block, batch: int, share: Fraction, rates: DeviceRates) -> Micros:
    """Return the estimated latency of one block, at least 1 µs."""
    moved = block.moved_bytes * batch + block.weight_bytes
    return max(1, round(roofline_us(block.flops * batch, moved, block.launches, rates, share)))


def _rates(gpu_class: GpuClass) -> DeviceRates:
    if gpu_class.rates is None:
        raise InvalidCluster(
            f"GPU class {gpu_class.name}",
            "",
            "a datasheet, or peak_tflops with memory_gbytes_per_s and launch_us",
            "neither",
        )
    return gpu_class.rates


def _row(block: Block, batch: int, share: Fraction, rates: DeviceRates) -> ProfileRow:
    latency_us = block_us(block, batch, share, rates)
    return ProfileRow(
        block=block.index,
        batch=batch,
        share=share,
        latency_mean_us=latency_us,
        latency_p99_us=latency_us,
        samples=0,
    )


def _provenance(gpu_class: GpuClass, rates: DeviceRates) -> Provenance:
    return Provenance(
        kind="estimated",
        device=gpu_class.name,
        driver="",
        torch="",
        date=datetime.now(UTC).date().isoformat(),
        note=(
            f"roofline: {rates.peak_tflops:g} TFLOPS, {rates.memory_gbytes_per_s:g} GB/s, "
            f"{rates.launch_us:g} µs per launch"
        ),
    )
