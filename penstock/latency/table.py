"""Stage latency looked up in a profile: a stage takes the sum of its blocks' mean latencies.

The table is data: nothing is interpolated and no monotony is assumed. Knows nothing of GPUs,
networks or plans.
"""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

from penstock.domain.errors import InvalidProfile
from penstock.domain.profiles import LatencyProfile
from penstock.domain.units import Micros


class StageLatency:
    """Latency of runs of consecutive blocks of one model on one GPU class.

    Args:
        profile: what was measured, estimated or imported.
    """

    def __init__(self, profile: LatencyProfile) -> None:
        self._source = f"profile of {profile.model} on {profile.gpu_class}"
        self._blocks = profile.blocks
        self._mean_us = {
            (row.block, row.batch, row.share): row.latency_mean_us for row in profile.rows
        }
        batches: defaultdict[Fraction, set[int]] = defaultdict(set)
        for row in profile.rows:
            batches[row.share].add(row.batch)
        self._batches = {share: tuple(sorted(found)) for share, found in batches.items()}

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """Shares that appear in the profile, largest first."""
        return tuple(sorted(self._batches, reverse=True))

    def batches(self, share: Fraction) -> tuple[int, ...]:
        """Return the batch sizes that appear for `share`, ascending; empty if it does not."""
        return self._batches.get(share, ())

    def stage_latency_us(self, first: int, end: int, batch: int, share: Fraction) -> Micros:
        """Return how long blocks [first, end) take for one batch on `share` of a GPU.

        Raises:
            InvalidProfile: a block of the stage has no cell for that batch and share, or is
                not a block of the model.
        """
        return sum(self._cell(block, batch, share) for block in range(first, end))

    def latencies_us(self, first: int, end: int, batch: int, share: Fraction) -> tuple[Micros, ...]:
        """Return the stage's latency at batch 1, 2, … `batch`.

        A size that was not profiled takes the latency of the next larger one that was: the
        batch would be padded up to it.

        Raises:
            InvalidProfile: there is no cell for `batch` itself.
        """
        profiled = [size for size in self.batches(share) if size <= batch]
        if not profiled or profiled[-1] != batch:
            profiled.append(batch)  # the lookup below names the missing cell
        latencies = {size: self.stage_latency_us(first, end, size, share) for size in profiled}
        return tuple(
            latencies[next(size for size in profiled if size >= asked)]
            for asked in range(1, batch + 1)
        )

    def _cell(self, block: int, batch: int, share: Fraction) -> Micros:
        try:
            return self._mean_us[block, batch, share]
        except KeyError:
            place = f"block {block}, batch {batch}, share {share}"
            expected = f"a latency for each of the {self._blocks} blocks"
            raise InvalidProfile(self._source, place, expected, "none") from None
