"""Measure every block at every batch size on this device, and write the profile.

Resumable: each cell goes to ``<gpu_class>.unfinished`` the moment it is measured; a run that is
started again for the same blocks, device and threads goes on from there. Knows files and the order
of work; how one cell is timed is `profiler.measure`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import torch

from penstock.domain.blocks import DYNAMIC, BlockPartition, TensorSpec
from penstock.domain.ids import GpuClassName
from penstock.domain.profiles import LatencyProfile, MeasuredShare, ProfileRow, Provenance
from penstock.formats.layout import profile_paths
from penstock.formats.profiles import write_profile
from penstock.shares.base import HeldShare
from profiler.chain import DATATYPES
from profiler.files import load_partition, load_profile, write_atomically
from profiler.measure import Effort, check_device, measured_provenance, time_module
from profiler.store import load_block, run_stage

Progress: TypeAlias = Callable[[int, int], None]
Cell: TypeAlias = tuple[int, int]

WHOLE = Fraction(1)
SEED = 0
JOURNAL_SUFFIX = ".unfinished"
DTYPES: Mapping[str, torch.dtype] = {name: dtype for dtype, name in DATATYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What to measure.

    Attributes:
        share: the part of the device this process was given before it started (by MPS or as a
            slice); a label here, nothing is limited by it.
        held: what this process holds of the device, and measures on; None: nobody gave it any.
        threads: of the CPU; None leaves torch's choice.
    """

    gpu_class: GpuClassName
    batches: tuple[int, ...]
    share: Fraction = WHOLE
    device: str = "cpu"
    held: HeldShare | None = None
    threads: int | None = 1
    effort: Effort = field(default_factory=Effort)


def measure_profile(
    directory: Path, profiles: Path, sweep: Sweep, progress: Progress | None = None
) -> LatencyProfile:
    """Measure a model's blocks and write their profile; go on where an earlier run stopped.

    Cells of other shares and batches that an earlier profile of the same blocks on the same device
    holds are kept.

    Args:
        directory: of one version of the model, with ``blocks.json``.
        profiles: the root of all profiles.
        sweep: what to measure.
        progress: called with (cells done, cells in all).

    Raises:
        InvalidGraph: the blocks are missing or their files are others.
        InvalidSettings: there is no such device.
    """
    check_device(sweep.device)
    if sweep.threads is not None:
        torch.set_num_threads(sweep.threads)
    partition, blocks_digest = load_partition(directory)
    provenance = _provenance(sweep)
    csv_path, head_path = profile_paths(profiles, partition.model, sweep.gpu_class)
    journal = Journal(
        csv_path.with_name(f"{sweep.gpu_class}{JOURNAL_SUFFIX}"),
        _identity(sweep, blocks_digest, provenance),
    )
    with _on_share(sweep):
        _measure_missing(directory, partition, sweep, journal, progress or _ignore)
    profile = _profile(partition, blocks_digest, sweep, provenance, journal.rows)
    profile = _with_earlier(profile, csv_path, head_path)
    csv_text, head_text = write_profile(profile)
    write_atomically(csv_path, csv_text.encode())
    write_atomically(head_path, head_text.encode())
    journal.remove()
    return profile


def _provenance(sweep: Sweep) -> Provenance:
    provenance = measured_provenance(sweep.device)
    if sweep.held is None:
        return provenance
    obtained = sweep.held.obtained
    share = MeasuredShare(share=sweep.share, mechanism=obtained.mechanism, sms=obtained.sms)
    return replace(provenance, shares=(share,))


@contextmanager
def _on_share(sweep: Sweep) -> Iterator[None]:
    """Let torch compute on the stream of the share, if it has one."""
    if sweep.held is None or not sweep.held.stream:
        yield
        return
    stream = torch.cuda.ExternalStream(sweep.held.stream, torch.device(sweep.device))  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


class Journal:
    """Cells measured so far, on disk as soon as they are known.

    Args:
        path: of the file; an earlier one is read if its first line is the same identity.
        identity: one line that says what the cells are of.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.rows: dict[Cell, tuple[int, int, int]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if lines and lines[0] == identity:
            self.rows = dict(_journal_rows(lines[1:]))
        # Written anew, so that a line that a crash cut short is gone.
        write_atomically(path, f"{identity}\n".encode())
        for cell, numbers in self.rows.items():
            self._append(cell, numbers)

    def add(self, cell: Cell, numbers: tuple[int, int, int]) -> None:
        """Keep (mean µs, p99 µs, samples) of a (block, batch)."""
        self.rows[cell] = numbers
        self._append(cell, numbers)

    def remove(self) -> None:
        """Delete the file: the profile is written."""
        self.path.unlink()

    def _append(self, cell: Cell, numbers: tuple[int, int, int]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(",".join(map(str, (*cell, *numbers))) + "\n")


def _journal_rows(lines: Sequence[str]) -> Iterator[tuple[Cell, tuple[int, int, int]]]:
    for line in lines:
        cells = line.split(",")
        if len(cells) == 5 and all(cell.isdecimal() for cell in cells):  # noqa: PLR2004
            block, batch, mean_us, p99_us, samples = map(int, cells)
            yield (block, batch), (mean_us, p99_us, samples)


def _identity(sweep: Sweep, blocks_digest: str, provenance: Provenance) -> str:
    parts = {
        "blocks": blocks_digest,
        "device": provenance.device,
        "share": str(sweep.share),
        "threads": sweep.threads,
        "torch": provenance.torch,
        **{each.mechanism: each.sms for each in provenance.shares},
    }
    return f"# {json.dumps(parts, sort_keys=True)}"


def _measure_missing(
    directory: Path,
    partition: BlockPartition,
    sweep: Sweep,
    journal: Journal,
    progress: Progress,
) -> None:
    count = len(partition.blocks)
    in_all = count * len(sweep.batches)
    wanted = [(block, batch) for block in range(count) for batch in sweep.batches]
    progress(sum(cell in journal.rows for cell in wanted), in_all)
    if all(cell in journal.rows for cell in wanted):
        return
    modules = [load_block(directory, partition, index, sweep.device) for index in range(count)]
    for batch in sweep.batches:
        tensors = tuple(example(spec, batch, sweep.device) for spec in partition.inputs)
        for index, module in enumerate(modules):
            if (index, batch) not in journal.rows:
                timing = time_module(module, tensors, sweep.effort)
                mean_us, p99_us = max(1, round(timing.mean_us)), max(1, round(timing.p99_us))
                journal.add((index, batch), (mean_us, p99_us, timing.samples))
                progress(sum(cell in journal.rows for cell in wanted), in_all)
            tensors = run_stage([module], tensors)


def example(spec: TensorSpec, batch: int, device: str = "cpu") -> torch.Tensor:
    """Return a tensor of the described kind: noise for floats, ones for all else.

    One is a valid token, position, class and mask.
    """
    shape = [batch if size == DYNAMIC else size for size in spec.shape]
    dtype = DTYPES[spec.datatype]
    if not dtype.is_floating_point:
        return torch.ones(shape, dtype=dtype, device=device)
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(shape, generator=generator).to(device=device, dtype=dtype)


def _profile(
    partition: BlockPartition,
    blocks_digest: str,
    sweep: Sweep,
    provenance: Provenance,
    rows: Mapping[Cell, tuple[int, int, int]],
) -> LatencyProfile:
    return LatencyProfile(
        model=partition.model,
        gpu_class=sweep.gpu_class,
        blocks=len(partition.blocks),
        rows=tuple(
            ProfileRow(
                block=block,
                batch=batch,
                share=sweep.share,
                latency_mean_us=mean_us,
                latency_p99_us=p99_us,
                samples=samples,
            )
            for (block, batch), (mean_us, p99_us, samples) in sorted(rows.items())
            if batch in sweep.batches
        ),
        cut_bytes=partition.cut_bytes,
        weight_bytes=tuple(block.weight_bytes for block in partition.blocks),
        activation_bytes=tuple(block.activation_bytes for block in partition.blocks),
        provenance=provenance,
        blocks_digest=blocks_digest,
    )


def _with_earlier(profile: LatencyProfile, csv_path: Path, head_path: Path) -> LatencyProfile:
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
    )


def _ignore(_done: int, _in_all: int) -> None:
    """Report nothing."""
