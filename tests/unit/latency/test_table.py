from __future__ import annotations

from fractions import Fraction

import pytest

from penstock.domain.errors import InvalidProfile
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile, ProfileRow, Provenance
from penstock.latency.table import StageLatency

WHOLE, HALF = Fraction(1), Fraction(1, 2)


def table(cells: dict[tuple[int, int, Fraction], int], blocks: int = 3) -> StageLatency:
    rows = tuple(
        ProfileRow(
            block=block,
            batch=batch,
            share=share,
            latency_mean_us=latency,
            latency_p99_us=latency,
            samples=1,
        )
        for (block, batch, share), latency in cells.items()
    )
    nowhere = Provenance(kind="imported", device="", driver="", torch="", date="")
    return StageLatency(
        LatencyProfile(
            model=ModelName("digits"),
            gpu_class=GpuClassName("L4"),
            blocks=blocks,
            rows=rows,
            cut_bytes=(0,) * (blocks - 1),
            weight_bytes=(0,) * blocks,
            activation_bytes=(0,) * blocks,
            provenance=nowhere,
        )
    )


@pytest.fixture
def latencies() -> StageLatency:
    whole = {
        (block, batch, WHOLE): 100 * (block + 1) * batch
        for block in range(3)
        for batch in (1, 2, 4)
    }
    half = {(block, 1, HALF): 1000 + block for block in range(3)}
    return table({**whole, **half})


def test_a_stage_takes_the_sum_of_its_blocks(latencies: StageLatency) -> None:
    assert latencies.stage_latency_us(0, 3, 1, WHOLE) == 600
    assert latencies.stage_latency_us(1, 3, 2, WHOLE) == 1000
    assert latencies.stage_latency_us(2, 3, 1, HALF) == 1002


def test_shares_and_batches_are_those_of_the_profile(latencies: StageLatency) -> None:
    assert latencies.shares == (WHOLE, HALF)
    assert latencies.batches(WHOLE) == (1, 2, 4)
    assert latencies.batches(HALF) == (1,)
    assert latencies.batches(Fraction(1, 3)) == ()


def test_a_batch_that_was_not_profiled_takes_the_next_larger_one(latencies: StageLatency) -> None:
    assert latencies.latencies_us(0, 2, 4, WHOLE) == (300, 600, 1200, 1200)


def test_latencies_are_not_made_monotone() -> None:
    odd = table({(0, 1, WHOLE): 500, (0, 2, WHOLE): 300}, blocks=1)
    assert odd.latencies_us(0, 1, 2, WHOLE) == (500, 300)


@pytest.mark.parametrize(
    ("first", "end", "batch", "share", "place"),
    [
        (0, 3, 3, WHOLE, "block 0, batch 3, share 1"),
        (0, 1, 2, HALF, "block 0, batch 2, share 1/2"),
        (2, 4, 1, WHOLE, "block 3, batch 1, share 1"),
    ],
)
def test_a_missing_cell_is_named(
    latencies: StageLatency, first: int, end: int, batch: int, share: Fraction, place: str
) -> None:
    with pytest.raises(InvalidProfile, match="digits on L4") as caught:
        latencies.stage_latency_us(first, end, batch, share)
    assert caught.value.place == place
    with pytest.raises(InvalidProfile):
        latencies.latencies_us(first, end, batch, share)
