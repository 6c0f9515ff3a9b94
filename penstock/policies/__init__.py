"""Policies by name. A policy is added by writing its file and its line here.

A text that chooses one may set its parameters: ``fixed:size=4,timeout_us=2000``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from penstock.policies.batching.aimd import AimdPolicy
from penstock.policies.batching.fixed import FixedPolicy
from penstock.policies.batching.nexus import NexusPolicy
from penstock.policies.batching.proteus import ProteusPolicy
from penstock.policies.batching.published import PublishedPolicy
from penstock.policies.batching.reservation import ReservationPolicy
from penstock.policies.batching.triton import TritonPolicy
from penstock.policies.parameters import configured
from penstock.policies.routing.earliest_completion import EarliestCompletion
from penstock.policies.routing.least_queueing import LeastQueueing
from penstock.policies.routing.power_of_two import PowerOfTwo
from penstock.policies.routing.round_robin import RoundRobin
from penstock.policies.routing.shortest_queue import JoinShortestQueue
from penstock.scheduling.ports import BatchingPolicy, RoutingPolicy

BATCHING: Mapping[str, Callable[..., BatchingPolicy]] = MappingProxyType(
    {
        "reservation": ReservationPolicy,
        "published": PublishedPolicy,
        "fixed": FixedPolicy,
        "aimd": AimdPolicy,
        "nexus": NexusPolicy,
        "triton": TritonPolicy,
        "proteus": ProteusPolicy,
    }
)
ROUTING: Mapping[str, Callable[..., RoutingPolicy]] = MappingProxyType(
    {
        "least-queueing": LeastQueueing,
        "earliest-completion": EarliestCompletion,
        "round-robin": RoundRobin,
        "shortest-queue": JoinShortestQueue,
        "power-of-two": PowerOfTwo,
    }
)


def batching_policy(spec: str) -> Callable[[], BatchingPolicy]:
    """Return the factory of a batching policy, chosen by name and perhaps parameters.

    Raises:
        UnknownName: no policy or parameter has that name; the error lists those there are.
        InvalidSettings: a parameter's value is of the wrong kind or out of bounds.
    """
    return configured("batching policy", spec, BATCHING)


def routing_policy(spec: str) -> Callable[[], RoutingPolicy]:
    """Return the factory of a routing policy, chosen by name and perhaps parameters.

    Raises:
        UnknownName: no policy or parameter has that name; the error lists those there are.
        InvalidSettings: a parameter's value is of the wrong kind or out of bounds.
    """
    return configured("routing policy", spec, ROUTING)
