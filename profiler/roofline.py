"""The roofline: how long some work takes on a device known by its data sheet only.

    latency = max(flops / (peak · reach), bytes / (bandwidth · reach)) + launches · launch cost

Pure arithmetic. The two reaches say how much of the sheet's peak real kernels attain; they are
constants of this module because no sheet states them.
"""

from __future__ import annotations

from fractions import Fraction

from penstock.domain.cluster import DeviceRates

# Published latencies of 32-bit vision models on L4, T4, V100 and P4 amount to 0.15 … 0.4 of the
# arithmetic peak; streaming kernels reach about three quarters of the bandwidth on every class.
COMPUTE_REACH = 0.35
MEMORY_REACH = 0.75

OPERATIONS_PER_US_PER_TFLOPS = 1e6
BYTES_PER_US_PER_GBYTES_PER_S = 1e3


def roofline_us(
    flops: float,
    moved_bytes: float,
    launches: int,
    rates: DeviceRates,
    share: Fraction = Fraction(1),
) -> float:
    """Return the latency in microseconds.

    Args:
        flops: operations.
        moved_bytes: read and written, weights included.
        launches: kernels started, one after the other.
        rates: of the whole device.
        share: part of the device at hand; scales its peak and its bandwidth, not its launches.
    """
    peak = rates.peak_tflops * OPERATIONS_PER_US_PER_TFLOPS * COMPUTE_REACH
    bandwidth = rates.memory_gbytes_per_s * BYTES_PER_US_PER_GBYTES_PER_S * MEMORY_REACH
    busy = max(flops / peak, moved_bytes / bandwidth) / float(share)
    return busy + launches * rates.launch_us
