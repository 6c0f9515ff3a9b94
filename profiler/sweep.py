"""Measure every block at every batch size on this device, and write the profile.

Each block is computed as a stage of that one block would be served: same precision and memory
format, compiled for that batch size. Resumable: each cell goes to ``<gpu_class>.unfinished`` the
moment it is measured; a run that is started again for the same blocks, device, threads and way of
computing goes on from there. Knows files and the order of work; how one cell is timed is
`profiler.measure`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import torch

from execution.blocks import Chain
from execution.compiling import reason_of
from execution.datatypes import DTYPES
from execution.program import DOES_NOT_RUN, Program
from penstock.domain.blocks import DYNAMIC, BlockPartition, TensorSpec
from penstock.domain.errors import StageLoadFailed
from penstock.domain.execution import Computed, ExecutionOptions
from penstock.domain.ids import GpuClassName
from penstock.domain.profiles import LatencyProfile, MeasuredShare, ProfileRow, Provenance
from penstock.formats.layout import profile_paths
from penstock.formats.profiles import write_profile
from penstock.shares.base import HeldShare
from profiler.files import load_partition, write_atomically
from profiler.joining import with_earlier, with_remarks
from profiler.journal import Cell, Journal, Measured
from profiler.measure import Effort, Tensors, check_device, measured_provenance, time_runs
from profiler.store import load_block

Progress: TypeAlias = Callable[[int, int], None]

WHOLE = Fraction(1)
SEED = 0
JOURNAL_SUFFIX = ".unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What to measure.

    Attributes:
        share: the part of the device this process was given before it started (by MPS or as a
            slice); a label here, nothing is limited by it.
        held: what this process holds of the device, and measures on; None: nobody gave it any.
        threads: of the CPU; None leaves torch's choice.
        execution: how stages will be served.
    """

    gpu_class: GpuClassName
    batches: tuple[int, ...]
    share: Fraction = WHOLE
    device: str = "cpu"
    held: HeldShare | None = None
    threads: int | None = 1
    effort: Effort = field(default_factory=Effort)
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)

    @property
    def computed(self) -> Computed:
        """How blocks are computed, as far as they can be."""
        return self.execution.on("cpu" if self.device == "cpu" else "cuda")


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
        StageLoadFailed: a block does not run on it.
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
    measured = {cell: each for cell, each in journal.rows.items() if cell[1] in sweep.batches}
    provenance = with_remarks(provenance, sweep.computed, measured)
    profile = _profile(partition, blocks_digest, sweep, provenance, measured)
    profile = with_earlier(profile, csv_path, head_path)
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
    """Let torch compute on the device, and on the stream of the share if it has one."""
    if sweep.device == "cpu":
        yield
        return
    with torch.cuda.device(sweep.device):
        if sweep.held is None or not sweep.held.stream:
            yield
            return
        stream = torch.cuda.ExternalStream(sweep.held.stream, torch.device(sweep.device))  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            yield
        stream.synchronize()


def _identity(sweep: Sweep, blocks_digest: str, provenance: Provenance) -> str:
    parts = {
        "blocks": blocks_digest,
        "device": provenance.device,
        "share": str(sweep.share),
        "threads": sweep.threads,
        "torch": provenance.torch,
        "computed": asdict(sweep.computed),
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
    blocks = [_load(directory, partition, index, sweep) for index in range(count)]
    for batch in sweep.batches:
        tensors = tuple(example(spec, batch, sweep.device) for spec in partition.inputs)
        for index, (chain, program) in enumerate(blocks):
            if (index, batch) not in journal.rows:
                journal.add((index, batch), _measured(program, tensors, sweep.effort))
                progress(sum(cell in journal.rows for cell in wanted), in_all)
            with torch.inference_mode():
                tensors = chain(*tensors)


def _load(
    directory: Path, partition: BlockPartition, index: int, sweep: Sweep
) -> tuple[Chain, Program]:
    """Return a block as it makes the next one's inputs, uncompiled, and as it is measured."""
    chain = load_block(directory, partition, index, sweep.device)
    compiles = sweep.computed.compiled == "inductor"
    name = f"{partition.model} block {index}"
    return chain, Program(name, chain, sweep.execution, compiles=compiles)


def _measured(program: Program, tensors: Tensors, effort: Effort) -> Measured:
    """Measure one cell; what has to be compiled for it is compiled before."""
    try:
        program.first_run(tensors)
        timing = time_runs(program.run, tensors, effort)
    except DOES_NOT_RUN as error:
        batch = len(tensors[0])
        raise StageLoadFailed(
            f"{program.name} does not run at batch {batch}: {reason_of(error)}"
        ) from error
    return Measured(
        mean_us=max(1, round(timing.mean_us)),
        p99_us=max(1, round(timing.p99_us)),
        samples=timing.samples,
        compiled=program.is_compiled,
        remark="; ".join(filter(None, (program.remark, timing.remark))),
    )


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
    measured: Mapping[Cell, Measured],
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
                latency_mean_us=each.mean_us,
                latency_p99_us=each.p99_us,
                samples=each.samples,
            )
            for (block, batch), each in sorted(measured.items())
        ),
        cut_bytes=partition.cut_bytes,
        weight_bytes=tuple(block.weight_bytes for block in partition.blocks),
        activation_bytes=tuple(block.activation_bytes for block in partition.blocks),
        provenance=provenance,
        blocks_digest=blocks_digest,
    )


def _ignore(_done: int, _in_all: int) -> None:
    """Report nothing."""
