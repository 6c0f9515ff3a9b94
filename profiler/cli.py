"""The profiler's verbs: cut, profile, estimate. Parses options, opens files, prints.

torch is imported inside the verbs that need it: `estimate` works on a host without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from penstock.console import progress
from penstock.domain.errors import InvalidGraph, InvalidInput, InvalidSettings, UnknownName
from penstock.options import finite, profile_arguments
from profiler.report import show_cut, show_profiles

if TYPE_CHECKING:
    import torch

    from penstock.domain.cluster import Cluster, DeviceRates, GpuClass
    from penstock.shares.base import HeldShare
    from profiler.capture import Captured

Advance: TypeAlias = Callable[[int, int], None]

Repository = Annotated[Path, typer.Option(help="Root of the model repository.")]
Profiles = Annotated[Path, typer.Option(help="Root of the profiles.")]
Version = Annotated[str, typer.Option(help="Version of the model.")]
Batches = Annotated[str, typer.Option(metavar="LIST", help="Batch sizes, such as 1-8 or 1,2,4.")]
ClusterFile = Annotated[Path | None, typer.Option("--cluster", help="cluster.yaml")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result for programs.")]


def cut(
    source: Annotated[str, typer.Argument(help="module:function, or a program saved as .pt2.")],
    model: Annotated[str, typer.Option(help="Its name in the repository.")],
    version: Version = "1",
    repository: Repository = Path("models"),
    blocks: Annotated[int, typer.Option(min=1, help="Blocks, at most.")] = 10,
    outputs: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Names for its outputs, with commas.")
    ] = None,
    cluster: ClusterFile = None,
    check: Annotated[
        bool, typer.Option(help="Run the blocks and the whole model and compare.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Cut a model into blocks that a plan can spread over GPU classes.

    The blocks take about equally long on every GPU class of the cluster file, or of the data
    sheets when none is given. SOURCE is a function of yours that returns the module with example
    inputs by name, or a program that torch.export.save wrote.
    """
    from profiler.cut import cut_captured

    names = outputs.split(",") if outputs else None
    captured, examples = _capture(source, names)
    with _progress("blocks", quiet=as_json) as advance:
        report = cut_captured(
            captured,
            model,
            version,
            repository,
            max_blocks=blocks,
            rates=_cluster_rates(cluster),
            progress=advance,
        )
    error = None
    if check:
        from profiler.sweep import example
        from profiler.verify import check_blocks

        examples = examples or [example(spec, 2) for spec in report.partition.inputs]
        error = check_blocks(captured.reference, examples, report.directory, report.partition)
    show_cut(report.partition, report.directory, report.blocks_digest, error, as_json=as_json)


def profile(
    model: Annotated[str, typer.Argument(help="A model of the repository, already cut.")],
    gpu_class: Annotated[str, typer.Option(help="What to call this device's class.")],
    version: Version = "1",
    repository: Repository = Path("models"),
    profiles: Profiles = Path("profiles"),
    batches: Batches = "1-8",
    share: Annotated[
        str, typer.Option(help="Part of the device this process was given, such as 1/2.")
    ] = "1/1",
    shares: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="Measure at these shares of a GPU, such as 1,1/2,1/4, in turn."
        ),
    ] = "",
    mechanism: Annotated[
        str, typer.Option(help="How to hold to --shares: auto, green, mps, none.")
    ] = "auto",
    share_order: Annotated[str, typer.Option(hidden=True)] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[
        str, typer.Option(help="What 32-bit floats are computed in: fp32, tf32, fp16, bf16.")
    ] = "fp32",
    memory_format: Annotated[
        str, typer.Option(help="Order of image tensors: contiguous, channels_last.")
    ] = "contiguous",
    compiling: Annotated[
        str, typer.Option("--compile", help="on, off, or auto: on GPUs, as workers do.")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    repeats: Annotated[int, typer.Option(min=5, help="Timed runs of each cell.")] = 30,
    seconds: Annotated[
        float, typer.Option(min=0, callback=finite, help="Time for a cell, at most.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Measure a model's blocks on this device.

    Runs every block at every batch size, computed as the model's execution options in cluster.yaml
    will have it served, and writes the profile. A run that was stopped goes on where it was when
    started again.
    """
    from penstock.domain.execution import named_options
    from penstock.domain.ids import GpuClassName, ModelName
    from penstock.formats.layout import model_directory, profile_paths
    from profiler.files import load_profile
    from profiler.measure import Effort
    from profiler.sweep import Sweep, measure_profile

    execution = named_options("profile", precision, memory_format, compiling)
    if shares:
        common = [model, *("--gpu-class", gpu_class, "--version", version, "--batches", batches)]
        common += ["--repository", str(repository), "--profiles", str(profiles)]
        common += profile_arguments(execution)
        common += ["--threads", str(threads), "--repeats", str(repeats), "--seconds", str(seconds)]
        _profile_shares(parse_shares(shares), mechanism, device, common, quiet=as_json)
        written = load_profile(*profile_paths(profiles, ModelName(model), GpuClassName(gpu_class)))
        show_profiles([written], profiles, as_json=as_json)
        return
    sweep = Sweep(
        gpu_class=GpuClassName(gpu_class),
        batches=parse_batches(batches),
        share=parse_share(share),
        device=device,
        held=_held(share_order),
        threads=threads,
        effort=Effort(repeats=repeats, seconds=seconds),
        execution=execution,
    )
    directory = model_directory(repository, ModelName(model), version)
    with _progress("cells", quiet=as_json) as advance:
        measured = measure_profile(directory, profiles, sweep, advance)
    show_profiles([measured], profiles, as_json=as_json)


def estimate(
    model: Annotated[str, typer.Argument(help="A model of the repository, already cut.")],
    version: Version = "1",
    repository: Repository = Path("models"),
    profiles: Profiles = Path("profiles"),
    cluster: ClusterFile = None,
    gpu_class: Annotated[
        str | None, typer.Option(help="One class: of the cluster file, or of the data sheets.")
    ] = None,
    batches: Batches = "1-8",
    max_share_denominator: Annotated[
        int | None, typer.Option(min=1, help="Shares 1/1 … 1/N; default: the cluster file's.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace measured and imported profiles.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Estimate a profile for GPU classes that are not at hand.

    A roofline over each block's operations and bytes. Classes come from a cluster file, all of
    them unless one is named, or from the data sheets. Profiles that were measured or imported are
    left alone.
    """
    from penstock.domain.ids import ModelName
    from penstock.formats.layout import model_directory, profile_paths
    from penstock.formats.profiles import write_profile
    from profiler.estimate import estimate_profile, shares_of
    from profiler.files import load_partition, write_atomically

    sizes, classes = parse_batches(batches), _classes(cluster, gpu_class)
    partition, _ = load_partition(model_directory(repository, ModelName(model), version))
    written = []
    for each in classes:
        csv_path, head_path = profile_paths(profiles, partition.model, each.name)
        if head_path.exists() and not overwrite and _is_better(csv_path, head_path):
            continue
        shares = (
            tuple(Fraction(1, parts) for parts in range(1, max_share_denominator + 1))
            if max_share_denominator
            else shares_of(each)
        )
        estimated = estimate_profile(partition, each, sizes, shares)
        csv_text, head_text = write_profile(estimated)
        write_atomically(csv_path, csv_text.encode())
        write_atomically(head_path, head_text.encode())
        written.append(estimated)
    show_profiles(written, profiles, as_json=as_json)


def parse_batches(text: str) -> tuple[int, ...]:
    """Read ``1-8``, ``1,2,4`` or a mixture of both.

    Raises:
        InvalidSettings: it is neither.
    """
    sizes: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(end.isdecimal() and int(end) >= 1 for end in ends):
            raise InvalidSettings("--batches", "", "sizes such as 1-8 or 1,2,4", text)
        sizes.update(range(int(ends[0]), int(ends[1]) + 1))
    if not sizes:
        raise InvalidSettings("--batches", "", "a range that rises", text)
    return tuple(sorted(sizes))


def parse_share(text: str) -> Fraction:
    """Read ``1/m``.

    Raises:
        InvalidSettings: it is no such share.
    """
    top, _, bottom = text.partition("/")
    if top != "1" or not bottom.isdecimal() or int(bottom) < 1:
        raise InvalidSettings("--share", "", "1/m with a whole m", text)
    return Fraction(1, int(bottom))


def parse_shares(text: str) -> tuple[Fraction, ...]:
    """Read shares with commas between them; ``1`` is the whole device.

    Raises:
        InvalidSettings: one is no share.
    """
    words = (each.strip() for each in text.split(","))
    return tuple(dict.fromkeys(parse_share("1/1" if each == "1" else each) for each in words))


def _profile_shares(
    shares: Sequence[Fraction],
    mechanism: str,
    device: str,
    arguments: Sequence[str],
    *,
    quiet: bool,
) -> None:
    from profiler.shares import measure_at_shares

    with _progress("shares", quiet=quiet) as advance:
        measure_at_shares(shares, mechanism, device, arguments, advance)


def _held(order: str) -> HeldShare | None:
    """Take the share that the process that started us ordered, if any."""
    if not order:
        return None
    from penstock.shares.base import ShareOrder
    from penstock.shares.held import ShareHolder

    return ShareHolder().hold(ShareOrder.from_json(order))


def _capture(source: str, names: Sequence[str] | None) -> tuple[Captured, Sequence[torch.Tensor]]:
    from profiler.capture import capture, capture_file, load_factory

    if source.endswith(".pt2"):
        path = Path(source)
        if not path.exists():
            raise InvalidGraph(source, "", "a file", "none")
        return capture_file(path, names), []
    made = load_factory(source)
    captured = capture(made.module, made.inputs, names or made.output_names, source=source)
    return captured, [made.inputs[name] for name in captured.input_names]


def _read_cluster(path: Path) -> Cluster:
    from penstock.formats.clusters import read_cluster

    return read_cluster(path.read_text(encoding="utf-8"), str(path))


def _cluster_rates(path: Path | None) -> Mapping[str, DeviceRates] | None:
    if path is None:
        return None
    classes = _read_cluster(path).gpu_classes
    return {each.name: each.rates for each in classes if each.rates is not None}


def _classes(cluster: Path | None, name: str | None) -> Sequence[GpuClass]:
    """Return the classes to estimate: those of the cluster file, or one data sheet's."""
    if cluster is None and name is None:
        raise InvalidSettings("estimate", "", "--cluster or --gpu-class", "neither")
    known = _read_cluster(cluster).gpu_classes if cluster else _datasheet_classes()
    if name is None:
        return known
    for each in known:
        if each.name == name:
            return [each]
    raise UnknownName("GPU class", name, (each.name for each in known))


def _datasheet_classes() -> Sequence[GpuClass]:
    from penstock.domain.cluster import GpuClass
    from penstock.domain.datasheet import DATASHEET
    from penstock.domain.ids import GpuClassName

    return [
        GpuClass(
            name=GpuClassName(name),
            count=1,
            memory_bytes=entry.memory_bytes,
            network_gbps=10.0,  # of no account here: an estimate has no network in it
            rates=entry.rates,
        )
        for name, entry in DATASHEET.items()
    ]


def _is_better(csv_path: Path, head_path: Path) -> bool:
    """Say whether a profile is there that is more than an estimate."""
    from penstock.formats.profiles import read_head

    try:
        head = read_head(head_path.read_text(encoding="utf-8"), str(head_path))
    except InvalidInput:
        return False
    return csv_path.exists() and head.provenance.kind != "estimated"


@contextmanager
def _progress(what: str, *, quiet: bool) -> Iterator[Advance]:
    with progress(quiet=quiet) as display:
        task = display.add_task(what, total=None)

        def advance(done: int, in_all: int) -> None:
            display.update(task, completed=done, total=in_all)

        yield advance
