"""Which multiprocessors a share of a GPU gets: arithmetic on counts and group numbers.

A device is split once into equal groups, the smallest it allows. A share is a set of whole groups,
rounded down, so that shares that sum to at most 1 always fit; what is left over stays idle, and so
do the multiprocessors that fill no group. Knows no driver.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from penstock.shares.base import ShareUnavailable

# Smallest group and alignment by the major number of the compute capability, as CUDA's manual
# gives them for drivers that do not tell them (before CUDA 13). Newer ones: as the last entry.
_GUIDE: Mapping[int, tuple[int, int]] = MappingProxyType(
    {6: (1, 1), 7: (2, 2), 8: (4, 2), 9: (8, 8)}
)
_OLDEST, _NEWEST = min(_GUIDE), max(_GUIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmSplit:
    """One split of a device into equal groups of multiprocessors.

    Attributes:
        sms: of the whole device.
        group_sms: in each group.
        groups: how many; `groups * group_sms` is at most `sms`.
    """

    sms: int
    group_sms: int
    groups: int


def guide(capability_major: int) -> tuple[int, int]:
    """Return the smallest group and the alignment of a compute capability, in multiprocessors."""
    return _GUIDE[min(max(capability_major, _OLDEST), _NEWEST)]


def split_of(sms: int, minimum: int, alignment: int) -> SmSplit:
    """Return the finest split of a device.

    Args:
        sms: multiprocessors it has.
        minimum: of one group.
        alignment: what a group's size must be a multiple of.
    """
    group_sms = math.ceil(max(1, minimum) / max(1, alignment)) * max(1, alignment)
    return SmSplit(sms=sms, group_sms=group_sms, groups=sms // group_sms)


def groups_for(split: SmSplit, share: Fraction) -> int:
    """Return how many groups a share is, rounded down.

    Raises:
        ShareUnavailable: it is less than one.
    """
    count = math.floor(split.groups * share)
    if count < 1:
        raise ShareUnavailable(
            f"a share of {share} is less than the smallest part of this device: "
            f"{split.group_sms} of its {split.sms} multiprocessors"
        )
    return count


class Allotment:
    """Whose the groups of a split are. Invariant: a group has at most one holder."""

    def __init__(self, split: SmSplit) -> None:
        self.split = split
        self._held: dict[str, tuple[int, ...]] = {}

    def take(self, holder: str, share: Fraction) -> tuple[int, ...]:
        """Give a holder the first free groups; one that has some already keeps them.

        Raises:
            ShareUnavailable: too few are free, or the share is less than one group.
        """
        if holder in self._held:
            return self._held[holder]
        count = groups_for(self.split, share)
        used = {each for groups in self._held.values() for each in groups}
        free = [each for each in range(self.split.groups) if each not in used]
        if len(free) < count:
            raise ShareUnavailable(
                f"a share of {share} is {count} groups of {self.split.group_sms} "
                f"multiprocessors; {len(free)} of {self.split.groups} are free"
            )
        self._held[holder] = tuple(free[:count])
        return self._held[holder]

    def give_back(self, holder: str) -> None:
        """Free a holder's groups, if it has any."""
        self._held.pop(holder, None)

    def clear(self) -> None:
        """Free all groups."""
        self._held.clear()
