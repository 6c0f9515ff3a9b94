from __future__ import annotations

from dataclasses import dataclass

from penstock.latency.transfer import sample_transfer_us


@dataclass(frozen=True)
class Card:
    network_gbps: float


def test_the_slower_card_sets_the_rate() -> None:
    assert sample_transfer_us(1_250_000, Card(10), Card(10)) == 1000
    assert sample_transfer_us(1_250_000, Card(10), Card(1)) == 10_000
    assert sample_transfer_us(1_250_000, Card(1), Card(10)) == 10_000


def test_it_rounds_up_and_nothing_takes_no_time() -> None:
    assert sample_transfer_us(1, Card(10), Card(10)) == 1
    assert sample_transfer_us(0, Card(10), Card(10)) == 0
