"""Block latencies of the artifact: one CSV for each model, GPU class and share, without a header.

Rows are blocks, columns are batches 1, 2, …, cells are microseconds. Smaller shares have fewer
columns.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from penstock.domain.errors import InvalidProfile
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import ProfileRow
from penstock.formats.sources import Source, show
from planner.published.entries import LONGEST_US
from planner.published.names import read_text

_FOLDER = Path("models") / "block-timing-tf32"


def timing_rows(
    data: Path, model: ModelName, gpu_class: GpuClassName, m: int, blocks: int
) -> Iterator[ProfileRow]:
    """Yield the latencies of a model's blocks on 1/m of a GPU, rounded to whole microseconds.

    Raises:
        InvalidInput: the file is not there.
        InvalidProfile: it has not one row for each block, its rows have different lengths, or a
            cell is no latency.
    """
    path = data / _FOLDER / f"{model}-{gpu_class}-{m}.csv"
    source = Source(str(path), InvalidProfile)
    lines = [line for line in csv.reader(read_text(path).splitlines()) if line]
    if len(lines) != blocks:
        raise source.invalid("", f"{blocks} rows, one for each block", str(len(lines)))
    for block, cells in enumerate(lines):
        if len(cells) != len(lines[0]):
            expected = f"{len(lines[0])} latencies, as in line 1"
            raise source.invalid(f"line {block + 1}", expected, str(len(cells)))
        for batch, cell in enumerate(cells, start=1):
            latency_us = _micros(cell, source, f"line {block + 1}, column {batch}")
            yield ProfileRow(
                block=block,
                batch=batch,
                share=Fraction(1, m),
                latency_mean_us=latency_us,
                latency_p99_us=latency_us,
                samples=1,
            )


def _micros(cell: str, source: Source, place: str) -> int:
    try:
        latency_us = float(cell)
    except ValueError:
        latency_us = math.nan
    if not 0 < latency_us < LONGEST_US:  # false for what is not a number
        raise source.invalid(place, "a latency in microseconds, more than 0", show(cell))
    return max(1, round(latency_us))
