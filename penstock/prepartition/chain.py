"""Group a chain of layers into blocks, exactly: fewest bytes over the cuts, even latencies.

Knows numbers only: what each layer costs on each GPU class and what is live between layers. It
knows nothing of tensors, graphs or devices.

PPipe (USENIX ATC 2025, §5) states this as a mixed-integer programme. On a chain it is a shortest
path over (layer, blocks used). Latencies are never negative, so the places where a block may begin
that ends at a given layer form a window, and both its ends only move forward: a queue of falling
minima finds the best beginning in constant time, the whole path in O(layers x blocks).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from penstock.domain.units import Bytes


class Band(NamedTuple):
    """Bounds of a block's latency in tenths of an equal share; whole, so that sums stay exact."""

    low_tenths: int
    high_tenths: int

    @property
    def as_multiples(self) -> tuple[float, float]:
        """The bounds as multiples of an equal share."""
        return (self.low_tenths / 10, self.high_tenths / 10)


# PPipe's order: the narrowest band that can be met wins.
BANDS = (
    Band(7, 13),
    Band(5, 15),
    Band(5, 20),
    Band(5, 25),
    Band(5, 30),
    Band(5, 35),
    Band(5, 40),
    Band(4, 40),
)

TENTHS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPartition:
    """A chain of layers as contiguous blocks.

    Attributes:
        boundaries: block i is layers [boundaries[i], boundaries[i + 1]); first 0, last all.
        cut_bytes: sum over the cuts between blocks.
        band: the band that was met.
    """

    boundaries: tuple[int, ...]
    cut_bytes: Bytes
    band: Band

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.boundaries) - 1


@dataclass(frozen=True, slots=True)
class _Path:
    boundaries: tuple[int, ...]
    cut_bytes: Bytes


def partition_chain(
    latencies: Sequence[Sequence[int]],
    cut_bytes: Sequence[Bytes],
    max_blocks: int,
    bands: Sequence[Band] = BANDS,
) -> ChainPartition:
    """Return the blocks with the fewest bytes over their cuts.

    Tries `max_blocks` under each band in turn, then one block less, and so on; one block always
    fits. The result is the same for the same numbers: among equal sums the earliest cuts win.

    Args:
        latencies: per GPU class, the latency of each layer in any whole unit (nanoseconds).
        cut_bytes: bytes live between layer i and i + 1; one entry less than there are layers.
        max_blocks: at least 1.
        bands: tried in this order.

    Raises:
        ValueError: no layer, no GPU class, lengths that disagree, or a negative number.
    """
    layers = _checked_length(latencies, cut_bytes, max_blocks)
    sums = [list(accumulate(row, initial=0)) for row in latencies]
    for blocks in range(min(max_blocks, layers), 1, -1):
        for band in bands:
            path = _shortest(sums, cut_bytes, blocks, band)
            if path is not None:
                return ChainPartition(
                    boundaries=path.boundaries, cut_bytes=path.cut_bytes, band=band
                )
    return ChainPartition(boundaries=(0, layers), cut_bytes=0, band=bands[0])


def _checked_length(
    latencies: Sequence[Sequence[int]], cut_bytes: Sequence[Bytes], max_blocks: int
) -> int:
    layers = len(cut_bytes) + 1
    if not latencies or any(len(row) != layers for row in latencies):
        raise ValueError(f"each GPU class needs a latency for each of {layers} layers")
    if max_blocks < 1:
        raise ValueError(f"max_blocks must be at least 1, not {max_blocks}")
    if min(min(row) for row in latencies) < 0 or min(cut_bytes, default=0) < 0:
        raise ValueError("latencies and cut bytes must not be negative")
    return layers


def _shortest(
    sums: Sequence[Sequence[int]], cut_bytes: Sequence[Bytes], blocks: int, band: Band
) -> _Path | None:
    """Return the cheapest path with exactly that many blocks, or None if the band forbids all."""
    layers = len(cut_bytes) + 1
    windows = _windows(sums, blocks, band)
    # cost[j]: least bytes of cuts when layers [0, j) are covered by the blocks so far.
    cost: list[int | None] = [0, *[None] * layers]
    origins: list[list[int]] = []
    for _ in range(blocks):
        cost, origin = _extend(cost, windows, cut_bytes)
        origins.append(origin)
    total = cost[layers]
    if total is None:
        return None
    boundaries = [layers]
    for origin in reversed(origins):
        boundaries.append(origin[boundaries[-1]])
    return _Path(tuple(reversed(boundaries)), total)


def _windows(sums: Sequence[Sequence[int]], blocks: int, band: Band) -> list[tuple[int, int]]:
    """Return, for each end, the range of beginnings that every class's band allows.

    A window is (first, last), both included; it is empty where first > last.
    """
    layers = len(sums[0]) - 1
    first, last = [0] * len(sums), [-1] * len(sums)
    windows = []
    for end in range(layers + 1):
        for row, prefix in enumerate(sums):
            scale = TENTHS * blocks
            low, high = band.low_tenths * prefix[-1], band.high_tenths * prefix[-1]
            while scale * (prefix[end] - prefix[first[row]]) > high:
                first[row] += 1
            while last[row] + 1 < end and scale * (prefix[end] - prefix[last[row] + 1]) >= low:
                last[row] += 1
        windows.append((max(first), min(last)))
    return windows


def _extend(
    cost: Sequence[int | None], windows: Sequence[tuple[int, int]], cut_bytes: Sequence[Bytes]
) -> tuple[list[int | None], list[int]]:
    """Add one block: return the new costs, and where the best last block begins for each end."""
    layers = len(cut_bytes) + 1
    extended: list[int | None] = [None] * (layers + 1)
    origin = [-1] * (layers + 1)
    candidates: deque[int] = deque()  # beginnings with rising cost; the first is the best
    offered = 0
    for end in range(1, layers + 1):
        first, last = windows[end]
        while offered <= last:
            _offer(candidates, cost, offered)
            offered += 1
        while candidates and candidates[0] < first:
            candidates.popleft()
        if not candidates or candidates[0] > last:
            continue
        origin[end] = candidates[0]
        crossing = cut_bytes[end - 1] if end < layers else 0
        extended[end] = (cost[candidates[0]] or 0) + crossing
    return extended, origin


def _offer(candidates: deque[int], cost: Sequence[int | None], begin: int) -> None:
    price = cost[begin]
    if price is None:
        return
    while candidates and (cost[candidates[-1]] or 0) > price:
        candidates.pop()
    candidates.append(begin)
