"""What the profiler's verbs print: tables for a person, plain values for a program.

Knows the values that were made. Knows nothing of how; needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from penstock.console import show, show_json
from penstock.domain.blocks import BlockPartition
from penstock.domain.profiles import LatencyProfile


def show_cut(
    partition: BlockPartition,
    directory: Path,
    blocks_digest: str,
    error: float | None,
    *,
    as_json: bool,
) -> None:
    """Print what cutting made."""
    if as_json:
        show_json(
            {
                "model": partition.model,
                "version": partition.version,
                "directory": str(directory),
                "blocks": len(partition.blocks),
                "cut_bytes": list(partition.cut_bytes),
                "band": list(partition.band),
                "blocks_digest": blocks_digest,
                "relative_error": error,
            }
        )
        return
    from rich.table import Table

    low, high = partition.band
    table = Table("block", "layers", "GFLOP", "weights MiB", "sent KiB", "tensors")
    sent = (*partition.cut_bytes, None)
    for block, size in zip(partition.blocks, sent, strict=True):
        table.add_row(
            str(block.index),
            f"{block.first_layer}–{block.end_layer - 1}",
            f"{block.flops / 1e9:.3f}",
            f"{block.weight_bytes / 2**20:.2f}",
            "" if size is None else f"{size / 2**10:.1f}",
            ", ".join(spec.name for spec in block.outputs),
        )
    show(table, f"{directory}: each block takes {low:g}–{high:g} of an equal share")
    if error is not None:
        show(f"the blocks answer as the whole model does (relative error {error:.1g})")


def show_profiles(written: Sequence[LatencyProfile], root: Path, *, as_json: bool) -> None:
    """Print what whole models take by the profiles that were written."""
    if as_json:
        show_json([_profile_summary(each, root) for each in written])
        return
    from rich.table import Table

    table = Table("GPU class", "kind", "device", "batch", "share", "whole model ms")
    for each in written:
        for (batch, share), latency_us in whole_model_us(each).items():
            table.add_row(
                each.gpu_class,
                each.provenance.kind,
                each.provenance.device,
                str(batch),
                f"{share.numerator}/{share.denominator}",
                f"{latency_us / 1000:.3f}",
            )
    show(table)
    for each in written:
        computed = each.provenance.computed
        if computed is not None:
            show(f"{each.gpu_class}: computed as {computed.words}")
            if computed.not_compiled:
                show(each.provenance.note)


def _computed(profile: LatencyProfile) -> str:
    computed = profile.provenance.computed
    return "" if computed is None else computed.words


def _profile_summary(profile: LatencyProfile, root: Path) -> dict[str, object]:
    from penstock.formats.layout import profile_paths

    return {
        "model": profile.model,
        "gpu_class": profile.gpu_class,
        "path": str(profile_paths(root, profile.model, profile.gpu_class)[0]),
        "kind": profile.provenance.kind,
        "device": profile.provenance.device,
        "computed": _computed(profile),
        "note": profile.provenance.note,
        "cells": len(profile.rows),
        "whole_model_us": [
            {
                "batch": batch,
                "share": f"{share.numerator}/{share.denominator}",
                "latency_us": latency_us,
            }
            for (batch, share), latency_us in whole_model_us(profile).items()
        ],
    }


def whole_model_us(profile: LatencyProfile) -> Mapping[tuple[int, Fraction], int]:
    """Return the sum over the blocks for each (batch, share), largest share first."""
    sums: dict[tuple[int, Fraction], int] = {}
    for row in sorted(profile.rows, key=lambda row: (-row.share, row.batch)):
        key = (row.batch, row.share)
        sums[key] = sums.get(key, 0) + row.latency_mean_us
    return sums
