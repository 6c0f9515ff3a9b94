"""What a profile says of how it was measured, and what of an earlier one may stay in it.

Figures are joined only if they are of the same blocks, device, torch and way of computing.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from penstock.domain.execution import Computed, named_blocks
from penstock.domain.profiles import LatencyProfile, MeasuredShare, Provenance
from profiler.files import load_profile
from profiler.journal import Cell, Measured


def with_remarks(
    provenance: Provenance, computed: Computed, measured: Mapping[Cell, Measured]
) -> Provenance:
    """Say how blocks were computed, and which of them, and why, otherwise than was asked."""
    blocks_of: dict[str, list[int]] = {}
    for (block, _), each in sorted(measured.items()):
        if each.remark and block not in blocks_of.setdefault(each.remark, []):
            blocks_of[each.remark].append(block)
    remarks = [f"{named_blocks(blocks)} {remark}" for remark, blocks in blocks_of.items()]
    if computed.compiled == "inductor":
        eager = {block for (block, _), each in measured.items() if not each.compiled}
        computed = replace(computed, not_compiled=tuple(sorted(eager)))
    note = "; ".join(filter(None, (provenance.note, *remarks)))
    return replace(provenance, note=note, computed=computed)


def with_earlier(profile: LatencyProfile, csv_path: Path, head_path: Path) -> LatencyProfile:
    """Add what an earlier profile knows of other batches and shares, if it is of the same kind."""
    if not (csv_path.exists() and head_path.exists()):
        return profile
    earlier = load_profile(csv_path, head_path)
    if not _same_kind(earlier, profile):
        return profile
    new = {(row.batch, row.share) for row in profile.rows}
    kept = [row for row in earlier.rows if (row.batch, row.share) not in new]
    rows = sorted((*profile.rows, *kept), key=lambda row: (row.block, row.batch, row.share))
    shares = _shares_of_both(earlier.provenance, profile.provenance, {row.share for row in kept})
    provenance = replace(profile.provenance, shares=shares)
    return replace(profile, rows=tuple(rows), provenance=provenance)


def _shares_of_both(
    earlier: Provenance, newer: Provenance, kept: Container[Fraction]
) -> tuple[MeasuredShare, ...]:
    known = {each.share: each for each in earlier.shares if each.share in kept}
    known |= {each.share: each for each in newer.shares}
    return tuple(sorted(known.values(), key=lambda each: each.share, reverse=True))


def _same_kind(earlier: LatencyProfile, profile: LatencyProfile) -> bool:
    return (
        earlier.blocks_digest == profile.blocks_digest
        and earlier.provenance.kind == profile.provenance.kind
        and earlier.provenance.device == profile.provenance.device
        and earlier.provenance.torch == profile.provenance.torch
        and earlier.provenance.computed == profile.provenance.computed
    )
