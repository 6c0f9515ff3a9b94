"""Made-up fleets of any size with the traits that make planning hard; equal seeds, equal fleets.

Few fast GPUs and many slow ones; models of uneven blocks, some of which run nearly as well on a
slow GPU; shares that waste less than they take; batches that pay on fast GPUs most. The numbers are
invented, of the order of what CNNs take. Knows nothing of planning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from random import Random

from penstock.domain.cluster import Cluster, GpuClass, PlannerOptions, ServedModel
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile, ProfileRow, Provenance
from penstock.domain.units import Micros
from planner.inputs import Profiles

MIB, GIB = 1 << 20, 1 << 30
BATCHES = (1, 2, 4, 8, 16, 32)
SHARES = (1, 2, 3, 4)
SLO_FACTOR = 5  # times the whole model's latency on the reference class, batch 1
HARDLY_BUSY_PART = 0.3  # of all blocks: those that gain little from a fast GPU
HARDLY_BUSY, BUSY = (0.02, 0.3), (0.6, 1.0)  # how much of its speed a block can use, from and to


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A GPU class as these fleets have it.

    Attributes:
        speed: on blocks that keep it busy, relative to the slowest.
        part: of the fleet.
        idle: part of a lone sample's latency that a larger batch does not lengthen.
    """

    name: str
    speed: float
    part: float
    idle: float
    price_per_hour: float
    memory_gib: int
    gpus_per_server: int
    network_gbps: float


H100 = Kind(
    name="H100",
    speed=6.0,
    part=0.04,
    idle=0.7,
    price_per_hour=3.9,
    memory_gib=80,
    gpus_per_server=8,
    network_gbps=100,
)
A100 = Kind(
    name="A100",
    speed=4.0,
    part=0.08,
    idle=0.6,
    price_per_hour=2.6,
    memory_gib=40,
    gpus_per_server=8,
    network_gbps=100,
)
V100 = Kind(
    name="V100",
    speed=2.2,
    part=0.18,
    idle=0.4,
    price_per_hour=1.6,
    memory_gib=16,
    gpus_per_server=4,
    network_gbps=25,
)
L4 = Kind(
    name="L4",
    speed=1.8,
    part=0.30,
    idle=0.3,
    price_per_hour=0.7,
    memory_gib=24,
    gpus_per_server=4,
    network_gbps=25,
)
T4 = Kind(
    name="T4",
    speed=1.0,
    part=0.40,
    idle=0.2,
    price_per_hour=0.35,
    memory_gib=16,
    gpus_per_server=2,
    network_gbps=10,
)
KINDS = (H100, A100, V100, L4, T4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a fleet is made of, its number of GPUs apart.

    Attributes:
        reference: the class whose latency the SLO is a multiple of.
    """

    kinds: tuple[Kind, ...] = KINDS
    reference: Kind = A100
    models: int = 20
    blocks: int = 10
    batches: tuple[int, ...] = BATCHES
    shares: tuple[int, ...] = SHARES


def make_fleet(
    gpus: int, shape: Shape, options: PlannerOptions, seed: int
) -> tuple[Cluster, Profiles]:
    """Return a fleet of that many GPUs, and its profiles; models depend on shape and seed only."""
    rng = Random(f"fleet {seed}")
    models, profiles = [], {}
    for number in range(shape.models):
        name = ModelName(f"model{number:02d}")
        own = _profiles(name, shape, rng)
        profiles.update({(name, each.gpu_class): each for each in own})
        (reference,) = (each for each in own if each.gpu_class == shape.reference.name)
        slo_us = SLO_FACTOR * _whole_us(reference)
        weight = round(rng.uniform(0.5, 2.0), 2)
        models.append(ServedModel(name=name, source="made up", slo_us=slo_us, weight=weight))
    classes = tuple(
        _gpu_class(kind, count, max(shape.shares))
        for kind, count in zip(shape.kinds, counts(gpus, shape.kinds), strict=True)
    )
    return Cluster(gpu_classes=classes, models=tuple(models), options=options), profiles


def counts(gpus: int, kinds: Sequence[Kind]) -> list[int]:
    """Return how many GPUs of each kind there are: at least one, in all as many as asked."""
    until = list(accumulate((kind.part for kind in kinds), initial=0.0))
    ends = [round((gpus - len(kinds)) * each / until[-1]) for each in until]
    return [1 + end - start for start, end in pairwise(ends)]


def _gpu_class(kind: Kind, count: int, most_shares: int) -> GpuClass:
    return GpuClass(
        name=GpuClassName(kind.name),
        count=count,
        memory_bytes=kind.memory_gib * GIB,
        gpus_per_server=kind.gpus_per_server,
        network_gbps=kind.network_gbps,
        price_per_hour=kind.price_per_hour,
        max_share_denominator=most_shares,
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """One block.

    Attributes:
        us: of one sample on the slowest class.
        busy: how much of a fast GPU's speed it can use, 0 to 1.
    """

    us: float
    busy: float


def _profiles(name: ModelName, shape: Shape, rng: Random) -> list[LatencyProfile]:
    """Return a model's profile on each class."""
    blocks = _blocks(shape.blocks, rng)
    cut_bytes = tuple(round(rng.lognormvariate(0.0, 0.7) * MIB) for _ in blocks[1:])
    weights = tuple(round(rng.uniform(4, 40) * MIB) for _ in blocks)
    activations = tuple(round(rng.uniform(10, 80) * MIB) for _ in blocks)
    return [
        LatencyProfile(
            model=name,
            gpu_class=GpuClassName(kind.name),
            blocks=len(blocks),
            rows=tuple(_rows(blocks, kind, shape, rng)),
            cut_bytes=cut_bytes,
            weight_bytes=weights,
            activation_bytes=activations,
            provenance=Provenance(
                kind="estimated", device=kind.name, driver="", torch="", date="", note="made up"
            ),
        )
        for kind in shape.kinds
    ]


def _blocks(count: int, rng: Random) -> list[_Block]:
    whole_us = rng.lognormvariate(0.0, 0.6) * 60_000
    parts = [rng.uniform(0.4, 2.5) for _ in range(count)]
    return [_Block(whole_us * part / sum(parts), _busy(rng)) for part in parts]


def _busy(rng: Random) -> float:
    low, high = HARDLY_BUSY if rng.random() < HARDLY_BUSY_PART else BUSY
    return rng.uniform(low, high)


def _rows(blocks: Sequence[_Block], kind: Kind, shape: Shape, rng: Random) -> list[ProfileRow]:
    rows = []
    for index, block in enumerate(blocks):
        alone_us = rng.uniform(0.9, 1.1) * block.us / (1 + (kind.speed - 1) * block.busy)
        for batch in shape.batches:
            for m in shape.shares:
                us = round(alone_us * _stretch(kind, batch, m))
                row = ProfileRow(
                    block=index,
                    batch=batch,
                    share=Fraction(1, m),
                    latency_mean_us=us,
                    latency_p99_us=us,
                    samples=1,
                )
                rows.append(row)
    return rows


def _stretch(kind: Kind, batch: int, m: int) -> float:
    """Return how much longer a batch takes on a share than one sample on the whole GPU."""
    # The less a batch fills the GPU, the less it minds having only a part of it.
    filled = 1 - kind.idle / batch
    return float((kind.idle + (1 - kind.idle) * batch) * m ** (0.6 + 0.4 * filled))


def _whole_us(profile: LatencyProfile) -> Micros:
    alone = (row for row in profile.rows if row.batch == 1 and row.share == 1)
    return sum(row.latency_mean_us for row in alone)
