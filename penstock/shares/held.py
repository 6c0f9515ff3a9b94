"""Holding a share in the process that computes on it: one `ShareHolder` per process.

A table by mechanism. Several instances of one process take their groups of one and the same split,
and so do instances of several processes: equal splits of a device are equal groups. What was
obtained is asked back from the driver and checked; a share that did not come is an error, never a
silent whole device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from penstock.domain.errors import UnknownName
from penstock.shares.base import HeldShare, Obtained, ShareOrder, ShareUnavailable
from penstock.shares.driver import Driver, GreenContext, Resource
from penstock.shares.layout import SmSplit


@dataclass(frozen=True, slots=True)
class AnyStream:
    """A share that needs no stream of its own: the whole device, or what MPS leaves of it."""

    obtained: Obtained
    stream: int = 0

    def close(self) -> None:
        """Do nothing."""


class GreenShare:
    """A green context with one stream."""

    def __init__(self, driver: Driver, context: GreenContext, device_sms: int) -> None:
        self._driver = driver
        self._context: GreenContext | None = context
        self.stream = driver.stream(context)
        self.obtained = Obtained("green", driver.sms_of(context), device_sms)

    def close(self) -> None:
        """Destroy stream and context; every later call on the stream would fail."""
        if self._context is not None:
            self._driver.destroy(self._context, self.stream)
            self._context = None


class ShareHolder:
    """The shares of one process. Threads may use it.

    Keeps what it gave: a context that is collected takes its stream with it.

    Args:
        new_driver: makes the driver when a share first needs it.
    """

    def __init__(self, new_driver: Callable[[], Driver] = Driver) -> None:
        self._new_driver = new_driver
        self._driver: Driver | None = None
        self._groups: dict[SmSplit, Sequence[Resource]] = {}
        self._lock = threading.Lock()

    def hold(self, order: ShareOrder) -> HeldShare:
        """Take a share.

        Raises:
            ShareUnavailable: it was not obtained as ordered.
            UnknownName: there is no such mechanism.
        """
        try:
            take = _HOLD[order.mechanism]
        except KeyError:
            raise UnknownName("share mechanism", order.mechanism, _HOLD) from None
        if not order.gpu:
            return AnyStream(Obtained())
        with self._lock:
            return take(self, order)

    def driver(self) -> Driver:
        """Return this process's driver.

        Raises:
            ShareUnavailable: there is none.
        """
        if self._driver is None:
            self._driver = self._new_driver()
        return self._driver

    def groups(self, split: SmSplit) -> Sequence[Resource]:
        """Return the groups of a split, which is made once.

        Raises:
            ShareUnavailable: the device splits in another way.
        """
        if split not in self._groups:
            self._groups[split] = self.driver().groups(split)
        return self._groups[split]


def _hold_green(holder: ShareHolder, order: ShareOrder) -> HeldShare:
    if not order.taken:
        return _hold_whole(holder, order)
    split = SmSplit(sms=order.device_sms, group_sms=order.group_sms, groups=order.groups)
    groups = holder.groups(split)
    context = holder.driver().green_context([groups[each] for each in order.taken])
    share = GreenShare(holder.driver(), context, order.device_sms)
    expected = len(order.taken) * order.group_sms
    if share.obtained.sms != expected:
        share.close()
        found = share.obtained.sms
        raise ShareUnavailable(f"expected {expected} multiprocessors, obtained {found}")
    return share


def _hold_mps(holder: ShareHolder, order: ShareOrder) -> HeldShare:
    obtained = replace(_asked(holder, "mps"), device_sms=order.device_sms)
    if order.share < 1 and obtained.sms >= order.device_sms:
        raise ShareUnavailable(
            f"MPS left all {obtained.sms} multiprocessors to a share of {order.share}: "
            "is its daemon gone?"
        )
    return AnyStream(obtained)


def _hold_whole(holder: ShareHolder, order: ShareOrder) -> AnyStream:
    """Take the device as it is; without a way to ask, nothing is known of it and nothing fails."""
    try:
        return AnyStream(_asked(holder, order.mechanism))
    except ShareUnavailable:
        return AnyStream(Obtained(order.mechanism))


def _asked(holder: ShareHolder, mechanism: str) -> Obtained:
    sms = holder.driver().visible_sms()
    return Obtained(mechanism, sms, sms)


_HOLD: Mapping[str, Callable[[ShareHolder, ShareOrder], HeldShare]] = MappingProxyType(
    {"green": _hold_green, "mps": _hold_mps, "none": _hold_whole}
)
