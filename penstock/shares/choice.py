"""Which way to share a GPU is taken here: the first in a table that works.

Chosen once, by trying: green contexts, then MPS, then none. A mechanism that a person asked for by
name is taken or refused, never exchanged. Where every instance has a process of its own, green
contexts need MPS too: without it the processes take turns, each on its own part of the device.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

from penstock.domain.errors import UnknownName
from penstock.shares.base import ShareMechanism, ShareUnavailable
from penstock.shares.environment import PERCENTAGE
from penstock.shares.mechanisms import NO_SHARES, GreenShares, MpsShares, NoShares, Place
from penstock.shares.mps import MpsDaemon

AUTO = "auto"
_TRIAL_PERCENTAGE = "50"

_log = logging.getLogger(__name__)


def open_share(name: str, place: Place) -> ShareMechanism:
    """Return a mechanism that works here. Takes seconds: it is tried in processes of its own.

    Args:
        name: one of `SHARES`, or ``auto`` for the first of them that works.
        place: where it is to work.

    Raises:
        ShareUnavailable: the named one does not work here.
        UnknownName: there is no such mechanism.
    """
    if name != AUTO:
        return _opener(name)(place)
    if not place.device:
        return NoShares(place)
    for each, opener in SHARES.items():
        try:
            return opener(place)
        except ShareUnavailable as error:
            _log.warning("GPU shares by %s do not work here: %s", each, error)
    raise ShareUnavailable("no way to share the GPU works here")


def check_share_name(name: str) -> None:
    """Refuse a name that is not in the table.

    Raises:
        UnknownName: it is neither ``auto`` nor in `SHARES`.
    """
    if name != AUTO:
        _opener(name)


def _open_green(place: Place) -> ShareMechanism:
    _need_device("green", place)
    found = place.try_out("green")
    if not place.at_once:
        return GreenShares(place, found.split, None)
    try:
        daemon = MpsDaemon.start(place.device, place.mps_directory)
    except ShareUnavailable as error:
        raise ShareUnavailable(f"processes would take turns without MPS: {error}") from None
    try:
        found = place.try_out("green", daemon.environment)
    except ShareUnavailable as error:
        daemon.stop()
        raise ShareUnavailable(f"under MPS: {error}") from None
    return GreenShares(place, found.split, daemon)


def _open_mps(place: Place) -> ShareMechanism:
    _need_device("mps", place)
    if not place.own_process:
        raise ShareUnavailable("MPS gives a share to a process; here one process has all instances")
    daemon = MpsDaemon.start(place.device, place.mps_directory)
    trial = {PERCENTAGE: _TRIAL_PERCENTAGE}
    try:
        whole = place.try_out("count", daemon.environment).sms
        part = place.try_out("count", {**daemon.environment, **trial}).sms
        if part >= whole:
            raise ShareUnavailable(f"at {_TRIAL_PERCENTAGE} % a process still sees {part} SMs")
    except ShareUnavailable:
        daemon.stop()
        raise
    return MpsShares(place, daemon, whole)


def _need_device(name: str, place: Place) -> None:
    if not place.device:
        raise ShareUnavailable(f"shares by {name} need a GPU; this executor uses none")


def _opener(name: str) -> Callable[[Place], ShareMechanism]:
    try:
        return SHARES[name]
    except KeyError:
        raise UnknownName("way to share a GPU", name, (AUTO, *SHARES)) from None


# In the order in which they are tried.
SHARES: Mapping[str, Callable[[Place], ShareMechanism]] = MappingProxyType(
    {"green": _open_green, "mps": _open_mps, NO_SHARES: NoShares}
)
