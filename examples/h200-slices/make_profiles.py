"""Turn measurements of an H200 under MPS into profiles of four GPU classes: its slices.

A slice (1/1, 1/2, 1/4, 1/8 of an H200) is treated as a GPU class of its own, so that one kind of
GPU makes a mixed fleet. The units measured (layer groups) are joined into at most ten blocks.

    python examples/h200-slices/make_profiles.py [directory of the profiles]
"""

from __future__ import annotations

import csv
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from penstock.console import show_text
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile, ProfileRow, Provenance
from penstock.formats.layout import profile_paths
from penstock.formats.profiles import write_profile

HERE = Path(__file__).parent
DATA = HERE / "data" / "blocks_h200_mps.csv"
MOST_BLOCKS = 10
FP16_BYTES = 2

# MPS share in percent → the GPU class that stands for that slice.
SLICES: Mapping[str, GpuClassName] = MappingProxyType(
    {
        "100.0": GpuClassName("h200-1of1"),
        "50.0": GpuClassName("h200-1of2"),
        "25.0": GpuClassName("h200-1of4"),
        "12.5": GpuClassName("h200-1of8"),
    }
)

# Not measured: the published parameter counts. Spread evenly over the units.
PARAMETERS: Mapping[str, int] = MappingProxyType({"resnet50": 25_557_032, "vgg19": 143_667_240})

Row: TypeAlias = Mapping[str, str]


def read_units(path: Path) -> dict[str, dict[str, list[Row]]]:
    """Return the rows of single units by model and share; whole-model rows are left out."""
    found: defaultdict[str, defaultdict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if row["kind"] == "unit":
                found[row["model"]][row["share_pct"]].append(row)
    return {model: dict(shares) for model, shares in found.items()}


def group_units(latencies_us: Sequence[float]) -> list[int]:
    """Return the first unit of each block: a block is full at a tenth of the whole latency."""
    full = sum(latencies_us) / MOST_BLOCKS
    starts, held = [0], 0.0
    for unit, latency in enumerate(latencies_us):
        if held >= full:
            starts.append(unit)
            held = 0.0
        held += latency
    return starts


def profiles_of(model: str, shares: Mapping[str, Sequence[Row]]) -> Iterator[LatencyProfile]:
    """Yield the profile of one model on each slice; the blocks are the same on all of them."""
    alone = [row for row in shares["100.0"] if row["batch"] == "1"]
    starts = group_units([float(row["latency_mean_us"]) for row in alone])
    bounds = [*starts, len(alone)]
    outputs = [int(row["output_bytes_per_sample"]) for row in alone]
    blocks = list(itertools.pairwise(bounds))
    unit_weight = PARAMETERS[model] * FP16_BYTES // len(alone)
    for share, gpu_class in SLICES.items():
        yield LatencyProfile(
            model=ModelName(model),
            gpu_class=gpu_class,
            blocks=len(blocks),
            rows=tuple(_rows(shares[share], blocks)),
            cut_bytes=tuple(outputs[end - 1] for _, end in blocks[:-1]),
            weight_bytes=tuple((end - first) * unit_weight for first, end in blocks),
            activation_bytes=tuple(2 * max(outputs[first:end]) for first, end in blocks),
            provenance=Provenance(
                kind="imported",
                device=f"NVIDIA H200, MPS {share} %",
                driver="",
                torch="2.11",
                date="2026",
                note="fp16, CUDA graphs; latency_p99_us holds the 95th percentile; "
                "sums over the units of a block; weights spread evenly over the units",
            ),
        )


def _rows(units: Sequence[Row], blocks: Sequence[tuple[int, int]]) -> Iterator[ProfileRow]:
    cells = {(int(row["batch"]), int(row["unit"])): row for row in units}
    for batch in sorted({batch for batch, _ in cells}):
        for block, (first, end) in enumerate(blocks):
            rows = [cells[batch, unit] for unit in range(first, end)]
            yield ProfileRow(
                block=block,
                batch=batch,
                share=Fraction(1),
                latency_mean_us=round(sum(float(row["latency_mean_us"]) for row in rows)),
                latency_p99_us=round(sum(float(row["latency_p95_us"]) for row in rows)),
                samples=1,
            )


def main(root: Path) -> None:
    """Write all profiles under `root`."""
    for model, shares in read_units(DATA).items():
        for profile in profiles_of(model, shares):
            texts = write_profile(profile)
            paths = profile_paths(root, profile.model, profile.gpu_class)
            for path, text in zip(paths, texts, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    show_text(f"wrote {root}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "profiles")
