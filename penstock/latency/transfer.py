"""How long activations take from one GPU class to another.

A transfer runs at the line rate of the slower of the two network cards. The fixed cost of a
hand-over (the hop overhead) is not in here: it is paid once per batch, whatever its size.
"""

from __future__ import annotations

from typing import Protocol

from penstock.domain.units import Bytes, Micros, exact_transfer_us, transfer_us


class NetworkCard(Protocol):
    """Anything with a line rate: `GpuClass` and `PlannedClass` have one."""

    @property
    def network_gbps(self) -> float:
        """Bandwidth each way, in gigabits per second."""
        ...


def sample_transfer_us(
    bytes_per_sample: Bytes, sender: NetworkCard, receiver: NetworkCard
) -> Micros:
    """Return the time one sample's activations occupy the link, rounded up."""
    return transfer_us(bytes_per_sample, min(sender.network_gbps, receiver.network_gbps))


def link_us(bytes_per_sample: Bytes, sender: NetworkCard, receiver: NetworkCard) -> float:
    """Return how long one sample's activations occupy the link, exactly: for throughputs."""
    return exact_transfer_us(bytes_per_sample, min(sender.network_gbps, receiver.network_gbps))
