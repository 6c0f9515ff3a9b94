"""How long each block takes on a GPU class, by batch size and share, and how that is known."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from penstock.domain.execution import Computed
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.units import Bytes, Micros

ProvenanceKind: TypeAlias = Literal["measured", "estimated", "imported"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredShare:
    """What a share really was while it was measured.

    Attributes:
        share: as the profile's rows call it.
        mechanism: how the process was held to it: ``green``, ``mps`` or ``none``.
        sms: multiprocessors that it had.
    """

    share: Fraction
    mechanism: str
    sms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the numbers of a profile come from.

    Attributes:
        shares: of those that were obtained from Penstock; largest first.
        computed: how blocks were computed while they were measured; None: not told.
    """

    kind: ProvenanceKind
    device: str
    driver: str
    torch: str
    date: str
    note: str = ""
    shares: tuple[MeasuredShare, ...] = ()
    computed: Computed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """One cell of a profile: a block at a batch size on a share of a GPU."""

    block: int
    batch: int
    share: Fraction
    latency_mean_us: Micros
    latency_p99_us: Micros
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyProfile:
    """Latencies of one model's blocks on one GPU class.

    Rows form a full grid over blocks, and over the (batch, share) pairs that appear.

    Attributes:
        blocks: number of blocks.
        cut_bytes: bytes of one sample crossing the cut after block i; ``blocks - 1`` entries.
        weight_bytes, activation_bytes: per block; activations for one sample.
        blocks_digest: SHA-256 of the ``blocks.json`` profiled; empty for imported data.
    """

    model: ModelName
    gpu_class: GpuClassName
    blocks: int
    rows: tuple[ProfileRow, ...]
    cut_bytes: tuple[Bytes, ...]
    weight_bytes: tuple[Bytes, ...]
    activation_bytes: tuple[Bytes, ...]
    provenance: Provenance
    blocks_digest: str = ""
