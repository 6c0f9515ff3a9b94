"""What a simulated fleet is made of: conditions, instances, batches on their way.

`simulator.world` moves it, and `simulator.cut_batches` what goes in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from penstock.domain.ids import BatchId, InstanceId, PoolId, ServerId
from penstock.domain.plan import Pipeline
from penstock.domain.requests import Slice
from penstock.domain.units import Micros
from penstock.scheduling.bookings import Booking
from penstock.scheduling.effects import RunBatch
from penstock.scheduling.events import InstanceJoined
from penstock.scheduling.instances import NetworkCard, book_transfer
from penstock.scheduling.lanes import gap_in_both
from penstock.scheduling.parts import Part
from penstock.scheduling.stage_runner import StageRunner
from simulator.fleet import Downtime, Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How the simulated fleet differs from the planned one.

    Attributes:
        latencies_us: real ones by batch, of each pool.
        stretch: returns how long a computation of that real latency takes this time; None: as long.
        wire_factor: what a transfer's time is multiplied by.
        downtimes: which instances fail when.
        detection_us: how long the dispatcher does not hear of a failure.
    """

    latencies_us: Mapping[PoolId, tuple[Micros, ...]]
    stretch: Callable[[Micros], Micros] | None = None
    wire_factor: float = 1.0
    downtimes: tuple[Downtime, ...] = ()
    detection_us: Micros = 0


@dataclass(slots=True, eq=False)
class Instance:
    """One life of an instance: after a failure another takes its place.

    Attributes:
        number: its place among all instances.
        joined: the word to the dispatcher that it is there.
        lost: it has failed.
        told: the dispatcher has heard of that.
    """

    number: int
    joined: InstanceJoined
    latencies_us: tuple[Micros, ...]
    card: NetworkCard
    runner: StageRunner = field(default_factory=StageRunner)
    lost: bool = False
    told: bool = False


@dataclass(slots=True, eq=False)
class Cut:
    """How far a batch is that goes in parts.

    Attributes:
        run: what was asked for.
        instances: of its route, as they were when it left.
        parts: its rows at each hop of its route.
        missing: places of the hops whose rows have not come back.
        at: places of the hops that some rows are at.
        sent_until_us: by place, when all rows of a computed part have left its instance.
        computing: by place, the record of a computation that runs.
        done: records of its computations, and the rows of each.
    """

    run: RunBatch
    instances: tuple[Instance, ...]
    parts: tuple[Part, ...]
    missing: set[int]
    at: set[int] = field(default_factory=set)
    sent_until_us: dict[int, Micros] = field(default_factory=dict)
    computing: dict[int, int] = field(default_factory=dict)
    done: list[tuple[int, Part]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Leg:
    """One stage of a batch's way, and what is still to come.

    Attributes:
        instance: as it was when the batch left.
        sequence, start_us: as booked.
    """

    instance: Instance
    sequence: int
    start_us: Micros
    onward: Leg | None


@dataclass(slots=True, eq=False)
class Travel:
    """A batch on its way through the simulated fleet.

    There are thousands in a large fleet, and each is visited seldom: what it keeps is what a cache
    has to fetch again every time.

    Attributes:
        wires_us: real transfer time of one sample over each cut.
        abandon_us: after it nobody waits.
        leg: the stage where it is or which it is on its way to; None: the answer is on its way.
        sender: the instance it has left last.
        stage: place of the leg.
        held: it is at the leg's instance, not on its way there.
        since_us: when it began to compute there; else when all of it has left its sender.
        useful: samples of it that were answered in time.
        computed: place of its latest computation in the record; -1: none.
        cut: if it goes in parts; then leg, sender, stage, held, since_us and computed say nothing.
    """

    batch: BatchId
    slices: tuple[Slice, ...]
    samples: int
    wires_us: tuple[float, ...]
    abandon_us: Micros
    leg: Leg | None
    sender: Instance | None = None
    stage: int = 0
    held: bool = False
    lost: bool = False
    since_us: Micros = 0
    useful: int = 0
    computed: int = -1
    cut: Cut | None = None


def instances_of(gpus: Iterable[Gpu], conditions: Conditions) -> dict[InstanceId, Instance]:
    """Return the instances on these GPUs; those of one server share its card."""
    cards: dict[ServerId, NetworkCard] = {}
    instances: dict[InstanceId, Instance] = {}
    for gpu in gpus:
        for each in gpu.instances:
            joined = InstanceJoined(
                instance=each.id, model=each.model, pool=each.pool, server=gpu.server
            )
            latencies_us = conditions.latencies_us[each.pool]
            card = cards.setdefault(gpu.server, NetworkCard())
            instances[each.id] = Instance(len(instances), joined, latencies_us, card)
    return instances


def sent_over(sender: Instance, receiver: Instance, now_us: Micros, wire_us: Micros) -> Micros:
    """Send over the sender's uplink and the receiver's downlink at once; return when all has left.

    Each lane carries one transfer at a time. Who asks first is served first, but while a transfer
    waits for its receiver others may use the sender's lane. On one server no lane is needed.
    """
    if not wire_us or sender.card is receiver.card:
        return now_us
    start_us = gap_in_both(sender.card.up, receiver.card.down, now_us, wire_us)
    transfer = Booking(start_us, start_us + wire_us)
    book_transfer(sender.card, receiver.card, transfer, now_us)
    return transfer.end_us


def wires_us_of(pipeline: Pipeline, factor: float) -> tuple[float, ...]:
    """Return how long one sample takes over each cut."""
    return tuple(each.us_per_sample * factor for each in pipeline.transfers)
