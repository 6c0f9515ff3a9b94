"""What makers' data sheets say about common GPUs; the roofline estimate starts from these.

Knows nothing of how a class really behaves: a profile measured on the device is always better.

``peak_tflops`` is the dense (no structured sparsity) peak of the arithmetic that 32-bit models are
served with: TF32 tensor cores where there are any, plain FP32 otherwise. Memory is the size on the
sheet in GiB. A launch costs 5 µs, 4 µs on the hosts that carry Hopper; no sheet states one, these
are round figures.

    GPU    peak TFLOPS    memory         bandwidth    source
    P4       5.5  FP32    8 GB GDDR5     192 GB/s     NVIDIA Tesla P4 data sheet
    T4       8.1  FP32    16 GB GDDR6    320 GB/s     NVIDIA T4 data sheet
    V100    15.7  FP32    16 GB HBM2     900 GB/s     NVIDIA V100 data sheet (SXM2)
    L4      60    TF32    24 GB GDDR6    300 GB/s     NVIDIA L4 data sheet
    A10     62.5  TF32    24 GB GDDR6    600 GB/s     NVIDIA A10 data sheet
    A100   156    TF32    80 GB HBM2e    2039 GB/s    NVIDIA A100 80GB data sheet (SXM)
    H100   494    TF32    80 GB HBM3     3350 GB/s    NVIDIA H100 data sheet (SXM)
    H200   494    TF32    141 GB HBM3e   4800 GB/s    NVIDIA H200 data sheet (SXM)

Other precisions or boards: give ``peak_tflops``, ``memory_gbytes_per_s`` and ``launch_us`` in
``cluster.yaml``; they override these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from penstock.domain.cluster import DeviceRates
from penstock.domain.units import BYTES_PER_GIB, Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasheetEntry:
    """One GPU's row: its peak rates and how much it can hold."""

    rates: DeviceRates
    memory_bytes: Bytes


def _entry(tflops: float, gbytes_per_s: float, gib: int, launch_us: float = 5.0) -> DatasheetEntry:
    return DatasheetEntry(
        rates=DeviceRates(
            peak_tflops=tflops, memory_gbytes_per_s=gbytes_per_s, launch_us=launch_us
        ),
        memory_bytes=gib * BYTES_PER_GIB,
    )


DATASHEET: Mapping[str, DatasheetEntry] = MappingProxyType(
    {
        "P4": _entry(5.5, 192, 8),
        "T4": _entry(8.1, 320, 16),
        "V100": _entry(15.7, 900, 16),
        "L4": _entry(60, 300, 24),
        "A10": _entry(62.5, 600, 24),
        "A100": _entry(156, 2039, 80),
        "H100": _entry(494, 3350, 80, launch_us=4.0),
        "H200": _entry(494, 4800, 141, launch_us=4.0),
    }
)
