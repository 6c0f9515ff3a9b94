"""Profiles from data sheets."""

from __future__ import annotations

from fractions import Fraction

import pytest

from penstock.domain.blocks import Block, BlockPartition, TensorSpec
from penstock.domain.cluster import DeviceRates, GpuClass
from penstock.domain.errors import InvalidCluster
from penstock.domain.ids import GpuClassName, ModelName
from penstock.formats.codec import digest
from penstock.formats.graphs import write_blocks
from penstock.formats.profiles import read_profile, write_profile
from profiler.estimate import block_us, estimate_profile, shares_of
from profiler.roofline import COMPUTE_REACH

RATES = DeviceRates(peak_tflops=2.0, memory_gbytes_per_s=100.0, launch_us=3.0)
MS = 1000
# What keeps the arithmetic of such a device busy for a millisecond.
DENSE_FLOPS = round(MS * 2e6 * COMPUTE_REACH)


def a_block(index: int, *, flops: int = DENSE_FLOPS, weight_bytes: int = 0) -> Block:
    names = ("image", "middle", "scores")
    return Block(
        index=index,
        first_layer=index,
        end_layer=index + 1,
        inputs=(a_tensor(names[index]),),
        outputs=(a_tensor(names[index + 1]),),
        flops=flops,
        moved_bytes=1000,
        launches=2,
        activation_bytes=500 + index,
        weight_bytes=weight_bytes,
        file=f"block_{index:02d}.pt2",
        sha256="0" * 64,
    )


def a_tensor(name: str) -> TensorSpec:
    return TensorSpec(name=name, datatype="FP32", shape=(-1, 4))


def a_partition() -> BlockPartition:
    return BlockPartition(
        model=ModelName("digits"),
        version="1",
        inputs=(a_tensor("image"),),
        outputs=(a_tensor("scores"),),
        blocks=(a_block(0), a_block(1, flops=0, weight_bytes=75_000_000)),
        cut_bytes=(16,),
        band=(0.5, 1.5),
    )


def a_class(rates: DeviceRates | None = RATES) -> GpuClass:
    return GpuClass(
        name=GpuClassName("slow"),
        count=2,
        memory_bytes=1 << 30,
        network_gbps=10,
        max_share_denominator=3,
        rates=rates,
    )


def test_a_profile_holds_every_block_batch_and_share() -> None:
    gpu_class = a_class()
    shares = shares_of(gpu_class)
    profile = estimate_profile(a_partition(), gpu_class, range(1, 5), shares)
    assert shares == (Fraction(1), Fraction(1, 2), Fraction(1, 3))
    assert len(profile.rows) == 2 * 4 * 3
    assert profile.provenance.kind == "estimated"
    assert profile.cut_bytes == (16,)
    assert profile.activation_bytes == (500, 501)
    assert profile.blocks_digest == digest(write_blocks(a_partition()))


def test_it_is_a_profile_that_can_be_read_again() -> None:
    profile = estimate_profile(a_partition(), a_class(), [1, 2], [Fraction(1)])
    assert read_profile(*write_profile(profile), "slow.csv") == profile


def test_arithmetic_grows_with_the_batch_and_weights_do_not() -> None:
    dense, heavy = a_partition().blocks
    assert block_us(dense, 1, Fraction(1), RATES) == MS + 6
    assert block_us(dense, 4, Fraction(1), RATES) == 4 * MS + 6
    assert block_us(heavy, 1, Fraction(1), RATES) == 1000 + 6
    assert block_us(heavy, 8, Fraction(1), RATES) == 1000 + 6
    assert block_us(dense, 1, Fraction(1, 2), RATES) == 2 * MS + 6


def test_no_block_takes_no_time() -> None:
    idle = DeviceRates(peak_tflops=1e6, memory_gbytes_per_s=1e9, launch_us=0.0)
    assert block_us(a_block(0), 1, Fraction(1), idle) == 1


def test_a_class_without_rates_is_refused_by_name() -> None:
    with pytest.raises(InvalidCluster, match=r"slow.*datasheet"):
        estimate_profile(a_partition(), a_class(None), [1], [Fraction(1)])
