"""A profile: a CSV of latencies, and beside it a JSON head that says where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TypeAlias

from penstock.domain.errors import InvalidProfile
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile, ProfileRow, Provenance
from penstock.domain.units import Bytes
from penstock.formats.checks import (
    check_at_least,
    check_each_at_least,
    check_length,
    check_name,
    check_sha256,
)
from penstock.formats.codec import A_SHARE, canonical_json, is_share, plain_fields, write_share
from penstock.formats.csv_text import Row, read_rows, write_rows
from penstock.formats.documents import Document
from penstock.formats.sources import Source, show

COLUMNS = ("block", "batch", "share", "latency_mean_us", "latency_p99_us", "samples")

_Cell: TypeAlias = tuple[int, int, Fraction]
_NAMED_GAPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileHead:
    """A profile without its rows."""

    model: ModelName
    gpu_class: GpuClassName
    blocks: int
    cut_bytes: tuple[Bytes, ...]
    weight_bytes: tuple[Bytes, ...]
    activation_bytes: tuple[Bytes, ...]
    provenance: Provenance
    blocks_digest: str = ""


PROFILE = Document("penstock.profile/1", ProfileHead)


def read_profile(csv_text: str, head_text: str, source: str) -> LatencyProfile:
    """Read a profile.

    Args:
        source: path of the CSV; the head is named in errors by the ``.json`` beside it.

    Raises:
        InvalidProfile: the first thing that is wrong, and where.
    """
    head = read_head(head_text, f"{source.removesuffix('.csv')}.json")
    where = Source(source, InvalidProfile)
    rows: dict[_Cell, ProfileRow] = {}
    for row in read_rows(csv_text, where, COLUMNS):
        cell = _profile_row(row, head.blocks)
        if rows.setdefault(_cell(cell), cell) is not cell:
            expected = "one row for each block, batch and share"
            raise where.invalid(row.place("block"), expected, f"a second one for {_name(cell)}")
    _check_grid(rows, head.blocks, where)
    return LatencyProfile(
        model=head.model,
        gpu_class=head.gpu_class,
        blocks=head.blocks,
        rows=tuple(sorted(rows.values(), key=_cell)),
        cut_bytes=head.cut_bytes,
        weight_bytes=head.weight_bytes,
        activation_bytes=head.activation_bytes,
        provenance=head.provenance,
        blocks_digest=head.blocks_digest,
    )


def read_head(text: str, source: str) -> ProfileHead:
    """Read the head alone.

    Raises:
        InvalidProfile: the first thing that is wrong, and where.
    """
    where = Source(source, InvalidProfile)
    head = PROFILE.read(text, where)
    check_name(where, "model", head.model)
    check_name(where, "gpu_class", head.gpu_class)
    check_at_least(where, "", head, blocks=1)
    check_length(where, "cut_bytes", head.cut_bytes, head.blocks - 1, "one for each cut")
    for name in ("weight_bytes", "activation_bytes"):
        check_length(where, name, getattr(head, name), head.blocks, "one for each block")
    for name in ("cut_bytes", "weight_bytes", "activation_bytes"):
        check_each_at_least(where, name, getattr(head, name), 0)
    if head.blocks_digest:
        check_sha256(where, "blocks_digest", head.blocks_digest)
    _check_computed(head, where)
    return head


def write_profile(profile: LatencyProfile) -> tuple[str, str]:
    """Return the CSV and the head; rows are ordered by block, batch and share."""
    head = ProfileHead(
        model=profile.model,
        gpu_class=profile.gpu_class,
        blocks=profile.blocks,
        cut_bytes=profile.cut_bytes,
        weight_bytes=profile.weight_bytes,
        activation_bytes=profile.activation_bytes,
        provenance=profile.provenance,
        blocks_digest=profile.blocks_digest,
    )
    return write_profile_rows(profile.rows), _head_text(head)


def write_profile_rows(rows: Iterable[ProfileRow]) -> str:
    """Return the CSV of some rows, ordered by block, batch and share."""
    return write_rows(COLUMNS, (_cells(row) for row in sorted(rows, key=_cell)))


def _check_computed(head: ProfileHead, source: Source) -> None:
    computed = head.provenance.computed
    for index, block in enumerate(computed.not_compiled if computed else ()):
        if not 0 <= block < head.blocks:
            place = f"provenance.computed.not_compiled[{index}]"
            raise source.invalid(place, f"a block below {head.blocks}", show(block))


def _head_text(head: ProfileHead) -> str:
    """Leave out what is not told, so that profiles without it keep their digests in plans."""
    content, provenance = PROFILE.content(head), plain_fields(head.provenance)
    if head.provenance.computed is None:
        del provenance["computed"]
    return canonical_json({**content, "provenance": provenance})


def _profile_row(row: Row, blocks: int) -> ProfileRow:
    share = row.cells["share"]
    if not is_share(share):
        raise row.source.invalid(row.place("share"), A_SHARE, show(share))
    block = row.integer("block")
    if block >= blocks:
        expected = f"a block below {blocks}, the head's count of blocks"
        raise row.source.invalid(row.place("block"), expected, show(block))
    return ProfileRow(
        block=block,
        batch=row.integer("batch", 1),
        share=Fraction(share),
        latency_mean_us=row.integer("latency_mean_us", 1),
        latency_p99_us=row.integer("latency_p99_us", 1),
        samples=row.integer("samples"),
    )


def _cells(row: ProfileRow) -> tuple[object, ...]:
    share = write_share(row.share)
    return row.block, row.batch, share, row.latency_mean_us, row.latency_p99_us, row.samples


def _cell(row: ProfileRow) -> _Cell:
    return row.block, row.batch, row.share


def _name(row: ProfileRow) -> str:
    return f"block {row.block}, batch {row.batch}, share {write_share(row.share)}"


def _check_grid(rows: dict[_Cell, ProfileRow], blocks: int, source: Source) -> None:
    if not rows:
        raise source.invalid("", "rows of latencies", "the header alone")
    missing = list(islice(_gaps(rows, blocks), _NAMED_GAPS + 1))
    if missing:
        named = "; ".join(missing[:_NAMED_GAPS])
        more = " and more" if len(missing) > _NAMED_GAPS else ""
        expected = "every block at each batch and share that appears"
        raise source.invalid("", expected, f"no row for {named}{more}")


def _gaps(rows: dict[_Cell, ProfileRow], blocks: int) -> Iterator[str]:
    pairs = sorted({(batch, share) for _, batch, share in rows})
    for block in range(blocks):
        for batch, share in pairs:
            if (block, batch, share) not in rows:
                yield f"block {block}, batch {batch}, share {write_share(share)}"
