"""The ways to share a GPU: what each grants an instance, and what keeps it going.

Knows nothing of which one works here; `penstock.shares.choice` tries that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

from penstock.shares.base import WHOLE, Grant, ShareOrder
from penstock.shares.environment import DEVICES, PERCENTAGE, process_environment
from penstock.shares.layout import Allotment, SmSplit
from penstock.shares.mps import MpsDaemon
from penstock.shares.probe import Probe, Probed, run_probe

NO_SHARES = "none"
_PERCENT = 100
_DAEMON_GONE = "the MPS daemon is gone"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a mechanism is to work.

    Attributes:
        device: UUID of the GPU; empty: there is none to share.
        own_process: whether each instance has a process of its own.
        at_once: whether several processes compute at the same time.
        probe: tries in a process of its own what works.
        mps_directory: of our MPS daemons.
    """

    device: str
    own_process: bool
    at_once: bool
    probe: Probe = run_probe
    mps_directory: Path | None = None

    def environment(self) -> dict[str, str]:
        """Return what a process needs to see this device and no other."""
        return {DEVICES: self.device} if self.device else {}

    def try_out(self, what: str, more: Mapping[str, str] = MappingProxyType({})) -> Probed:
        """Try something here, in an environment with more in it.

        Raises:
            ShareUnavailable: it does not work.
        """
        return self.probe(what, process_environment({**self.environment(), **more}))


class NoShares:
    """Every instance takes the device as it is; several take turns."""

    name = NO_SHARES
    note = ""

    def __init__(self, place: Place) -> None:
        self._place = place

    def grant(self, instance: str, share: Fraction) -> Grant:
        """Give the whole device."""
        if self._place.device and share < WHOLE:
            _log.warning("%s is planned at %s of the GPU and not held to it", instance, share)
        order = _order(self.name, self._place, share)
        return Grant(order, self._place.environment())

    def release(self, instance: str) -> None:
        """Do nothing."""

    def release_all(self) -> None:
        """Do nothing."""

    def lost(self) -> str:
        """Return nothing: there is nothing to lose."""
        return ""

    def close(self) -> None:
        """Do nothing."""


class MpsShares:
    """A percentage of the multiprocessors for each process; caps, not places of their own."""

    name = "mps"
    note = ""

    def __init__(self, place: Place, daemon: MpsDaemon, device_sms: int) -> None:
        self._place = place
        self._daemon = daemon
        self._device_sms = device_sms

    def grant(self, instance: str, share: Fraction) -> Grant:
        """Give a percentage; the whole device is given past the daemon."""
        del instance
        order = _order(self.name, self._place, share, device_sms=self._device_sms)
        if share >= WHOLE:
            return Grant(order, self._place.environment())
        return Grant(order, {**self._daemon.environment, PERCENTAGE: percentage(share)})

    def release(self, instance: str) -> None:
        """Do nothing: a cap ends with its process."""

    def release_all(self) -> None:
        """Do nothing: caps end with their processes."""

    def lost(self) -> str:
        """Return that the daemon is gone, if it is."""
        return "" if self._daemon.running else _DAEMON_GONE

    def close(self) -> None:
        """End the daemon."""
        self._daemon.stop()


class GreenShares:
    """Multiprocessors of their own for each instance: groups of one split of the device.

    Args:
        daemon: that lets several processes compute at the same time; None: they do not.
    """

    name = "green"

    def __init__(self, place: Place, split: SmSplit, daemon: MpsDaemon | None) -> None:
        self._place = place
        self._allotment = Allotment(split)
        self._daemon = daemon
        side_by_side = ", side by side through MPS" if daemon else ""
        self.note = f"groups of {split.group_sms} of {split.sms} SMs{side_by_side}"

    def grant(self, instance: str, share: Fraction) -> Grant:
        """Give groups; the whole device is given as it is.

        Raises:
            ShareUnavailable: too few groups are free, or the share is less than one.
        """
        split = self._allotment.split
        if share >= WHOLE:
            order = _order(self.name, self._place, share, device_sms=split.sms)
            return Grant(order, self._place.environment())
        order = _order(
            self.name,
            self._place,
            share,
            device_sms=split.sms,
            group_sms=split.group_sms,
            groups=split.groups,
            taken=self._allotment.take(instance, share),
        )
        # No percentage: the groups are the limit, and a percentage would thin them out.
        environment = self._daemon.environment if self._daemon else self._place.environment()
        return Grant(order, environment)

    def release(self, instance: str) -> None:
        """Free an instance's groups."""
        self._allotment.give_back(instance)

    def release_all(self) -> None:
        """Free all groups."""
        self._allotment.clear()

    def lost(self) -> str:
        """Return that the daemon is gone, if there was one."""
        return _DAEMON_GONE if self._daemon and not self._daemon.running else ""

    def close(self) -> None:
        """End the daemon, if there is one."""
        if self._daemon:
            self._daemon.stop()


def percentage(share: Fraction) -> str:
    """Return a share as MPS takes it, rounded down to hundredths: sums stay at most 100."""
    hundredths = int(share * _PERCENT * _PERCENT)
    return f"{hundredths / _PERCENT:.2f}"


def _order(
    name: str,
    place: Place,
    share: Fraction,
    *,
    device_sms: int = 0,
    group_sms: int = 0,
    groups: int = 0,
    taken: tuple[int, ...] = (),
) -> ShareOrder:
    return ShareOrder(
        mechanism=name,
        gpu=bool(place.device),
        numerator=share.numerator,
        denominator=share.denominator,
        device_sms=device_sms,
        group_sms=group_sms,
        groups=groups,
        taken=taken,
    )
