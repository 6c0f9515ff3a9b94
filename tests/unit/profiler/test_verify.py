"""What counts as the same answer."""

from __future__ import annotations

import pytest
import torch

from profiler.verify import relative_error, resized, tolerance

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("expected", "found", "error"),
    [
        ([1.0, 4.0], [1.0, 4.0], 0.0),
        ([1.0, 4.0], [1.0, 5.0], 0.25),
        ([0.0, 0.0], [0.0, 0.5], 0.5),
        ([NAN, 2.0], [NAN, 2.0], 0.0),
        ([NAN, 2.0], [1.0, 2.0], INFINITE),
        ([1.0, 2.0], [NAN, 2.0], INFINITE),
        ([INFINITE, 2.0], [INFINITE, 2.0], 0.0),
        ([INFINITE, 2.0], [-INFINITE, 2.0], INFINITE),
        ([NAN], [INFINITE], INFINITE),
        ([], [], 0.0),
    ],
)
def test_the_largest_difference_over_the_largest_value(
    expected: list[float], found: list[float], error: float
) -> None:
    assert relative_error(torch.tensor(expected), torch.tensor(found)) == error


def test_other_shapes_and_types_are_never_the_same() -> None:
    assert relative_error(torch.zeros(2), torch.zeros(1, 2)) == INFINITE
    assert relative_error(torch.zeros(2), torch.zeros(2, dtype=torch.float64)) == INFINITE


def test_half_precision_may_differ_more() -> None:
    assert tolerance(torch.zeros(1)) == 1e-5
    assert tolerance(torch.zeros(1, dtype=torch.bfloat16)) > tolerance(torch.zeros(1))


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_examples_are_repeated_or_left_out(batch: int) -> None:
    made = resized(torch.tensor([[1.0], [2.0]]), batch)
    assert made.flatten().tolist() == [1.0, 2.0, 1.0, 2.0, 1.0][:batch]
