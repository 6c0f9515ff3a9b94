"""The roofline against numbers worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest

from penstock.domain.cluster import DeviceRates
from penstock.domain.datasheet import DATASHEET
from profiler.roofline import COMPUTE_REACH, MEMORY_REACH, roofline_us

RATES = DeviceRates(peak_tflops=2.0, memory_gbytes_per_s=100.0, launch_us=3.0)


def test_arithmetic_bounds_dense_work() -> None:
    # 2e9 operations at 2 TFLOPS take a millisecond at the very best.
    assert roofline_us(2e9, 0, 0, RATES) == pytest.approx(1000 / COMPUTE_REACH)


def test_bandwidth_bounds_streaming_work() -> None:
    assert roofline_us(1, 1e8, 0, RATES) == pytest.approx(1000 / MEMORY_REACH)


def test_the_slower_bound_counts_and_launches_come_on_top() -> None:
    alone = roofline_us(2e9, 0, 0, RATES)
    assert roofline_us(2e9, 1e3, 4, RATES) == pytest.approx(alone + 12)


def test_a_share_slows_the_work_and_not_the_launches() -> None:
    whole = roofline_us(2e9, 1e8, 5, RATES) - 15
    assert roofline_us(2e9, 1e8, 5, RATES, Fraction(1, 4)) == pytest.approx(4 * whole + 15)


def test_the_data_sheets_order_the_classes_as_one_expects() -> None:
    assert set(DATASHEET) == {"P4", "T4", "V100", "L4", "A10", "A100", "H100", "H200"}
    convolution = {
        name: roofline_us(8e9, 1e8, 175, entry.rates) for name, entry in DATASHEET.items()
    }
    assert convolution["H200"] <= convolution["H100"] < convolution["A100"] < convolution["A10"]
    assert convolution["L4"] < convolution["T4"] < convolution["P4"]
    assert all(entry.memory_bytes >= 8 << 30 for entry in DATASHEET.values())
