"""Policies by name. A policy is added by writing its file and its line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from penstock.domain.errors import UnknownName
from penstock.policies.batching.fixed import FixedPolicy
from penstock.policies.batching.reservation import ReservationPolicy
from penstock.policies.routing.earliest_completion import EarliestCompletion
from penstock.policies.routing.least_queueing import LeastQueueing
from penstock.scheduling.ports import BatchingPolicy, RoutingPolicy

P = TypeVar("P")

BATCHING: Mapping[str, Callable[[], BatchingPolicy]] = MappingProxyType(
    {"reservation": ReservationPolicy, "fixed": FixedPolicy}
)
ROUTING: Mapping[str, Callable[[], RoutingPolicy]] = MappingProxyType(
    {"least-queueing": LeastQueueing, "earliest-completion": EarliestCompletion}
)


def batching_policy(name: str) -> Callable[[], BatchingPolicy]:
    """Return the factory of a batching policy.

    Raises:
        UnknownName: no policy has that name; the error lists those there are.
    """
    return _look_up("batching policy", name, BATCHING)


def routing_policy(name: str) -> Callable[[], RoutingPolicy]:
    """Return the factory of a routing policy.

    Raises:
        UnknownName: no policy has that name; the error lists those there are.
    """
    return _look_up("routing policy", name, ROUTING)


def _look_up(kind: str, name: str, table: Mapping[str, Callable[[], P]]) -> Callable[[], P]:
    try:
        return table[name]
    except KeyError:
        raise UnknownName(kind, name, table) from None
