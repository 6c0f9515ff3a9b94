"""The GPUs and servers that a plan's instances are put on in a simulation, by name.

Servers are called after their class: ``fast-0``, ``fast-1``, …; GPUs after their server:
``fast-0:0``, ``fast-0:1``, …
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.domain.errors import InvalidSettings
from penstock.domain.ids import GpuClassName, InstanceId, ServerId
from penstock.domain.placement import PlannedInstance, gpu_slots
from penstock.domain.plan import Plan
from penstock.domain.units import Micros
from simulator.disturbances import Outage
from simulator.noise import stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU and what it holds."""

    name: str
    server: ServerId
    gpu_class: GpuClassName
    instances: tuple[PlannedInstance, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Downtime:
    """Instances that fail together.

    Attributes:
        lasts_us: until they are back; None: for good.
    """

    instances: tuple[InstanceId, ...]
    at_us: Micros
    lasts_us: Micros | None


def gpus_of(plan: Plan) -> tuple[Gpu, ...]:
    """Place the plan's slots on servers of each class, full servers first."""
    per_server = {each.name: each.gpus_per_server for each in plan.gpu_classes}
    placed: dict[GpuClassName, int] = {}
    gpus: list[Gpu] = []
    for slot in gpu_slots(plan):
        number = placed.get(slot.gpu_class, 0)
        placed[slot.gpu_class] = number + 1
        on, at = divmod(number, per_server[slot.gpu_class])
        server = f"{slot.gpu_class}-{on}"
        gpus.append(
            Gpu(
                name=f"{server}:{at}",
                server=ServerId(server),
                gpu_class=slot.gpu_class,
                instances=slot.instances,
            )
        )
    return tuple(gpus)


def planned_downtimes(gpus: Sequence[Gpu], outages: Iterable[Outage]) -> list[Downtime]:
    """Return which instances fail in these outages.

    Raises:
        InvalidSettings: one is of nothing that there is.
    """
    named: dict[str, list[InstanceId]] = {}
    for gpu in gpus:
        ids = [each.id for each in gpu.instances]
        named.setdefault(gpu.server, []).extend(ids)
        named[gpu.name] = ids
        named.update((each, [each]) for each in ids)
    found: list[Downtime] = []
    for each in outages:
        if each.target not in named:
            raise InvalidSettings("fail", "target", _usage(gpus), repr(each.target))
        instances = tuple(named[each.target])
        found.append(Downtime(instances=instances, at_us=each.at_us, lasts_us=each.lasts_us))
    return found


def random_downtimes(
    gpus: Iterable[Gpu], mtbf_us: Micros, mttr_us: Micros, span_us: Micros, seed: int
) -> list[Downtime]:
    """Return when each GPU's worker fails, after exponential times in operation and in repair.

    Args:
        gpus: each fails on its own, with all that it holds.
        mtbf_us: mean time in operation, above 0.
        mttr_us: mean time until it is back.
        span_us: later nothing fails.
        seed: of these draws.
    """
    found: list[Downtime] = []
    for gpu in gpus:
        dice = stream(seed, "failures", gpu.name)
        ids = tuple(each.id for each in gpu.instances)
        at_us = 0
        while (at_us := at_us + 1 + round(dice.expovariate(1 / mtbf_us))) < span_us:
            lasts_us = 1 + round(dice.expovariate(1 / mttr_us))
            found.append(Downtime(instances=ids, at_us=at_us, lasts_us=lasts_us))
            at_us += lasts_us
    return found


def _usage(gpus: Sequence[Gpu]) -> str:
    for gpu in gpus:
        if gpu.instances:
            return (
                f"an instance such as {gpu.instances[0].id!r}, a GPU such as {gpu.name!r} or a "
                f"server such as {gpu.server!r}"
            )
    return "an instance, and the plan has none"
