"""From the artifact's files to configurations that Penstock can plan.

Differences of notation, and what becomes of them here:

* The margin is given in microseconds for each model; Penstock has one fraction of the SLO for all.
  `_margin` finds a fraction that gives each model its microseconds back.
* The SLO is cut to whole microseconds, cut bytes are rounded to whole bytes.
* The published planner does not look at memory, so every GPU has plenty here.
* ``bl`` files may carry the stages and shares of the planner they are compared with; no-partition
  has neither, whatever they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.domain.cluster import Cluster, GpuClass, PlannerOptions, ServedModel
from penstock.domain.errors import InvalidInput, UnknownName
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile, Provenance
from penstock.formats.sources import Source, inside, show
from planner.inputs import Profiles, margin_us
from planner.published.entries import ConfigEntry, ModelEntry, PartitionEntry, read_entries
from planner.published.names import check_head, data_folder, parse_name, plan_files, read_text
from planner.published.timings import timing_rows
from planner.published.values import (
    PublishedConfiguration,
    PublishedPipeline,
    PublishedPlan,
    PublishedStage,
    Scheduler,
)

_PLENTY = 1 << 50
_MOST_DIGITS = 15


def configuration_names(data: Path, plan_set: str) -> tuple[str, ...]:
    """Return the names of a plan set's configurations in a fixed order, reading none.

    Raises:
        UnknownName: there is no such plan set.
        InvalidInput: `data` is not the artifact, or a file in it has a strange name.
    """
    return tuple(plan_files(data, plan_set))


def configurations(data: Path, plan_set: str) -> tuple[PublishedConfiguration, ...]:
    """Read all configurations of a plan set, in the order of `configuration_names`.

    Args:
        data: the artifact's data folder, or a clone of the artifact.
        plan_set: a folder of plans, such as ``maf19``.

    Raises:
        UnknownName: there is no such plan set.
        InvalidInput: a file is missing or malformed, or files contradict each other.
    """
    return tuple(
        _configuration(data_folder(data), name, files)
        for name, files in plan_files(data, plan_set).items()
    )


def read_configuration(data: Path, plan_set: str, name: str) -> PublishedConfiguration:
    """Read one configuration.

    Raises:
        UnknownName: there is no such plan set, or no such configuration in it.
        InvalidInput: a file is missing or malformed, or files contradict each other.
    """
    files = plan_files(data, plan_set)
    if name not in files:
        raise UnknownName("configuration", name, files)
    return _configuration(data_folder(data), name, files[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class _PlanFile:
    """One file, read and checked against its name."""

    scheduler: Scheduler
    source: Source
    entries: tuple[ModelEntry, ...]
    weights: tuple[float, ...]
    gpu_classes: tuple[GpuClass, ...]


def _configuration(
    data: Path, name: str, paths: Mapping[Scheduler, Path]
) -> PublishedConfiguration:
    files = [_plan_file(name, scheduler, path) for scheduler, path in paths.items()]
    profiles = _profiles(data, files)
    batches = max(row.batch for profile in profiles.values() for row in profile.rows)
    plans = {each.scheduler: _plan(each, batches) for each in files}
    return PublishedConfiguration(name=name, profiles=profiles, plans=plans)


def _plan_file(name: str, scheduler: Scheduler, path: Path) -> _PlanFile:
    source = Source(str(path), InvalidInput)
    entries = read_entries(read_text(path), source)
    config = entries[0].config
    parts = parse_name(name, source)
    models = [each.config.dnn_name for each in entries]
    weights = check_head(parts.head, models, config.gpu_name_arr, source)
    if len(parts.counts) != len(config.gpu_name_arr):
        expected = f"{len(config.gpu_name_arr)} counts, one for each GPU class"
        raise source.invalid("file name", expected, str(len(parts.counts)))
    if not any(parts.counts):
        raise source.invalid("file name", "at least one GPU", "none")
    if parts.gbps != config.bw_gbps:
        place = inside("", 0, "config", "bw_gbps")
        raise source.invalid(place, f"{parts.gbps:g}, as in the file name", show(config.bw_gbps))
    return _PlanFile(
        scheduler=scheduler,
        source=source,
        entries=entries,
        weights=weights,
        gpu_classes=_gpu_classes(config, parts.counts, whole=scheduler == Scheduler.NO_PARTITION),
    )


def _plan(file: _PlanFile, batches: int) -> PublishedPlan:
    configs = {ModelName(each.config.dnn_name): each.config for each in file.entries}
    return PublishedPlan(
        scheduler=file.scheduler,
        cluster=Cluster(
            gpu_classes=file.gpu_classes,
            models=tuple(
                ServedModel(name=name, source=f"ppipe:{name}", slo_us=config.slo_us, weight=weight)
                for (name, config), weight in zip(configs.items(), file.weights, strict=True)
            ),
            options=_options(file, batches),
        ),
        rates={name: config.est_xput for name, config in configs.items()},
        margins_us={name: config.margin_us for name, config in configs.items()},
        throughputs={ModelName(each.config.dnn_name): each.xput for each in file.entries},
        pipelines=tuple(_pipelines(file.entries)),
        seconds=_total([each.runtime for each in file.entries]),
        gap=max((each.mipgap for each in file.entries if each.mipgap is not None), default=None),
    )


def _options(file: _PlanFile, batches: int) -> PlannerOptions:
    config = file.entries[0].config
    whole = file.scheduler == Scheduler.NO_PARTITION
    return PlannerOptions(
        max_stages=1 if whole else config.max_num_parts,
        max_batch=batches,
        slo_margin=_margin([each.config for each in file.entries], file.source),
        batch_build_factor=config.batch_build_factor,
    )


def _gpu_classes(
    config: ConfigEntry, counts: Sequence[int], *, whole: bool
) -> tuple[GpuClass, ...]:
    """Return the classes there are GPUs of."""
    columns = config.gpu_name_arr, counts, config.num_gpu_per_server_arr, config.num_mps_levels
    return tuple(
        GpuClass(
            name=GpuClassName(name),
            count=count,
            memory_bytes=_PLENTY,
            gpus_per_server=per_server,
            network_gbps=config.bw_gbps,
            max_share_denominator=1 if whole else levels,
        )
        for name, count, per_server, levels in zip(*columns, strict=True)
        if count > 0
    )


def _margin(configs: Sequence[ConfigEntry], source: Source) -> float:
    """Return the shortest fraction of the SLO that gives each model its margin.

    The margins were rounded one by one. Where that leaves no common fraction, a model may get a
    microsecond too much.
    """
    wanted = [(each.slo_us, each.margin_us) for each in configs]
    for slack_us in (0, 1):
        least = max((margin - 0.5) / slo for slo, margin in wanted)
        most = min((margin + 0.5 + slack_us) / slo for slo, margin in wanted)
        for digits in range(_MOST_DIGITS):
            found = round((least + most) / 2, digits)
            over = [margin_us(slo, found) - margin for slo, margin in wanted]
            if min(over) >= 0 and max(over) <= slack_us and 0 <= found < 1:
                return found
    told = ", ".join(f"{margin}/{slo}" for slo, margin in wanted)
    raise source.invalid("hist_adjustment", "one and the same part of every SLO", told)


def _pipelines(entries: Sequence[ModelEntry]) -> Iterator[PublishedPipeline]:
    for each in entries:
        for pipeline in each.pipelines:
            yield PublishedPipeline(
                model=ModelName(each.config.dnn_name),
                throughput_rps=pipeline.xput,
                stages=tuple(map(_stage, pipeline.partitions)),
            )


def _stage(entry: PartitionEntry) -> PublishedStage:
    return PublishedStage(
        first_block=entry.layers[0],
        end_block=entry.layers[1],
        gpu_class=GpuClassName(entry.gpu),
        m=entry.m,
        batch=entry.bs,
        instances=round(entry.num_gpu * entry.m),
        latency_us=round(entry.lat_infer),
    )


def _total(seconds: Sequence[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return sum(known) if known else None


def _profiles(data: Path, files: Sequence[_PlanFile]) -> Profiles:
    """Read every share that any of the files may use."""
    shares: dict[tuple[ModelName, GpuClassName], int] = {}
    configs: dict[ModelName, ConfigEntry] = {}
    for file in files:
        for entry in file.entries:
            model = ModelName(entry.config.dnn_name)
            known = configs.setdefault(model, entry.config)
            if known.cut_bytes != entry.config.cut_bytes:
                place = f"transmit_time_us_arr of {model}"
                raise file.source.invalid(place, f"the same as in {files[0].source.name}", "others")
            for each in file.gpu_classes:
                largest = max(shares.get((model, each.name), 1), each.max_share_denominator)
                shares[model, each.name] = largest
    return {key: _profile(data, *key, m, configs[key[0]]) for key, m in shares.items()}


def _profile(
    data: Path, model: ModelName, gpu_class: GpuClassName, largest_m: int, config: ConfigEntry
) -> LatencyProfile:
    return LatencyProfile(
        model=model,
        gpu_class=gpu_class,
        blocks=config.blocks,
        rows=tuple(
            row
            for m in range(1, largest_m + 1)
            for row in timing_rows(data, model, gpu_class, m, config.blocks)
        ),
        cut_bytes=config.cut_bytes,
        weight_bytes=(0,) * config.blocks,
        activation_bytes=(0,) * config.blocks,
        provenance=Provenance(
            kind="imported",
            device=gpu_class,
            driver="",
            torch="",
            date="",
            note="block latencies published with PPipe (TensorRT, TF32); means only; no sizes in "
            "memory",
        ),
    )
