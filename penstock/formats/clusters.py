"""``cluster.yaml``: the fleet and what it serves, in the units people think in.

Milliseconds, mebibytes and gibibytes in the file, microseconds and bytes in the domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as default
from types import MappingProxyType
from typing import Annotated, TypeAlias

from pydantic import Field

from penstock.domain.cluster import (
    Cluster,
    DeviceRates,
    GpuClass,
    Objective,
    Packing,
    PlannerMode,
    PlannerOptions,
    ServedModel,
)
from penstock.domain.datasheet import DATASHEET, DatasheetEntry
from penstock.domain.errors import InvalidCluster
from penstock.domain.execution import Compile, ExecutionOptions, MemoryFormat, Precision
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.units import (
    BYTES_PER_GIB,
    BYTES_PER_MIB,
    Bytes,
    Micros,
    bytes_from_gib,
    bytes_from_mib,
    micros_from_ms,
    ms_from_micros,
)
from penstock.formats.checks import check_any, check_name, check_text, check_unique
from penstock.formats.documents import Document
from penstock.formats.sources import Source, inside, show
from penstock.formats.yaml_text import parse_yaml, write_yaml

_Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]
_Positive: TypeAlias = Annotated[float, Field(gt=0, le=1e9)]
_NotNegative: TypeAlias = Annotated[float, Field(ge=0, le=1e9)]
_SloMs: TypeAlias = Annotated[float, Field(ge=0.001, le=1e9)]
_Fraction: TypeAlias = Annotated[float, Field(ge=0, lt=1)]

_DEFAULTS = PlannerOptions()
_HOP_OVERHEAD_MS = ms_from_micros(_DEFAULTS.hop_overhead_us)
_EXECUTION = ExecutionOptions()
_WORKSPACE_MIB = _DEFAULTS.workspace_bytes / BYTES_PER_MIB
# What a mode packs by if the file does not say.
_PACKING: Mapping[PlannerMode, Packing] = MappingProxyType(
    {"general": _DEFAULTS.packing, "compat": "per-stage"}
)
_RATES = ("peak_tflops", "memory_gbytes_per_s", "launch_us")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuClassEntry:
    """One GPU class as the file says it."""

    name: str
    count: _Count
    memory_gib: _Positive | None = None
    gpus_per_server: _Count = 1
    network_gbps: _Positive
    price_per_hour: _NotNegative | None = None
    max_share_denominator: _Count = 1
    datasheet: str | None = None
    peak_tflops: _Positive | None = None
    memory_gbytes_per_s: _Positive | None = None
    launch_us: _NotNegative | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionEntry:
    """How a model's stages are computed, as the file says it; defaults are the domain's."""

    precision: Precision = _EXECUTION.precision
    memory_format: MemoryFormat = _EXECUTION.memory_format
    compile: Compile = _EXECUTION.compile
    capture: bool = _EXECUTION.capture
    max_error: _Positive | None = _EXECUTION.max_error


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One served model as the file says it."""

    name: str
    source: str
    slo_ms: _SloMs
    weight: _Positive = 1.0
    rate_rps: _Positive | None = None
    gpu_classes: tuple[str, ...] = ()
    forbidden_gpu_classes: tuple[str, ...] = ()
    max_stages: _Count | None = None
    max_latency_ms: _SloMs | None = None
    margin_ms: _NotNegative | None = None
    execution: ExecutionEntry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerEntry:
    """The planner's options as the file says them; defaults are the domain's.

    Attributes:
        packing: None: what the mode asks for.
    """

    mode: PlannerMode = _DEFAULTS.mode
    objective: Objective = _DEFAULTS.objective
    packing: Packing | None = None
    rebatch: bool = _DEFAULTS.rebatch
    max_stages: _Count = _DEFAULTS.max_stages
    max_batch: _Count = _DEFAULTS.max_batch
    slo_margin: _Fraction = _DEFAULTS.slo_margin
    batch_build_factor: _NotNegative = _DEFAULTS.batch_build_factor
    hop_overhead_ms: _NotNegative = _HOP_OVERHEAD_MS
    workspace_mib: _NotNegative = _WORKSPACE_MIB
    max_price_per_hour: _Positive | None = _DEFAULTS.max_price_per_hour
    spare_gpus: Annotated[int, Field(ge=0, le=1_000_000)] = _DEFAULTS.spare_gpus
    time_limit_s: _Positive = _DEFAULTS.time_limit_s
    relative_gap: _NotNegative = _DEFAULTS.relative_gap
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = _DEFAULTS.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFile:
    """GPU classes, the models they serve, and the options of the planner."""

    gpu_classes: tuple[GpuClassEntry, ...]
    models: tuple[ModelEntry, ...] = ()
    planner: PlannerEntry = default(default_factory=PlannerEntry)


CLUSTER = Document("penstock.cluster/1", ClusterFile)


def read_cluster(text: str, source: str) -> Cluster:
    """Read ``cluster.yaml``.

    Args:
        source: how the user knows the file; named in errors.

    Raises:
        InvalidCluster: the first thing that is wrong, and where.
    """
    where = Source(source, InvalidCluster)
    file = CLUSTER.check(parse_yaml(text, where), where)
    _check_names(file, where)
    cluster = Cluster(
        gpu_classes=tuple(
            _gpu_class(each, where, inside("gpu_classes", index))
            for index, each in enumerate(file.gpu_classes)
        ),
        models=tuple(_model(each) for each in file.models),
        options=_options(file.planner),
    )
    check_cluster(cluster, source)
    return cluster


def check_cluster(cluster: Cluster, source: str) -> None:
    """Check that classes, models and options do not contradict each other.

    For clusters whose options were changed after reading, too.

    Args:
        source: how the user knows the file; named in errors.

    Raises:
        InvalidCluster: the first contradiction, and where in the file.
    """
    where = Source(source, InvalidCluster)
    for index, model in enumerate(cluster.models):
        _check_model(cluster, model, where, inside("models", index))
    _check_mode(cluster.options, where)
    _check_spares(cluster, where)
    _check_prices(cluster, where)
    _check_rates(cluster, where)


def write_cluster(cluster: Cluster) -> str:
    """Write ``cluster.yaml``; a class's rates are written out, whichever way they came in."""
    file = ClusterFile(
        gpu_classes=tuple(_gpu_class_entry(each) for each in cluster.gpu_classes),
        models=tuple(_model_entry(each) for each in cluster.models),
        planner=_planner_entry(cluster.options),
    )
    content = asdict(file)
    lists = {name: [_written(each) for each in content[name]] for name in ("gpu_classes", "models")}
    return write_yaml({"schema": CLUSTER.tag, **lists, "planner": _written(content["planner"])})


def _written(entry: dict[str, object]) -> dict[str, object]:
    """Return an entry as the file has it, without what says nothing."""
    lists = {name: list(each) for name, each in entry.items() if isinstance(each, tuple)}
    return {name: each for name, each in {**entry, **lists}.items() if each not in (None, [])}


def _check_names(file: ClusterFile, source: Source) -> None:
    check_any(source, "gpu_classes", file.gpu_classes)
    for each in ("gpu_classes", "models"):
        names = [
            (inside(each, index, "name"), entry.name)
            for index, entry in enumerate(getattr(file, each))
        ]
        for place, name in names:
            check_name(source, place, name)
        check_unique(source, names)
    for index, model in enumerate(file.models):
        check_text(source, inside("models", index, "source"), model.source)


def _check_model(cluster: Cluster, model: ServedModel, source: Source, place: str) -> None:
    known = [each.name for each in cluster.gpu_classes]
    for name in ("gpu_classes", "forbidden_gpu_classes"):
        _check_class_names(getattr(model, name), known, source, inside(place, name))
    if not set(model.gpu_classes or known) - set(model.forbidden_gpu_classes):
        expected = "a GPU class left that the model may run on"
        raise source.invalid(
            inside(place, "forbidden_gpu_classes"), expected, "every one forbidden"
        )
    if model.margin_us is not None and model.margin_us >= model.slo_us:
        expected = f"less than slo_ms ({_milliseconds(model.slo_us)})"
        found = _milliseconds(model.margin_us)
        raise source.invalid(inside(place, "margin_ms"), expected, found)


def _check_class_names(
    names: Sequence[str], known: Sequence[str], source: Source, place: str
) -> None:
    for index, name in enumerate(names):
        if name not in known:
            expected = f"one of gpu_classes ({', '.join(known)})"
            raise source.invalid(inside(place, index), expected, show(name))
    check_unique(source, ((inside(place, index), name) for index, name in enumerate(names)))


def _check_mode(options: PlannerOptions, source: Source) -> None:
    if options.mode != "compat":
        return
    if options.packing != "per-stage":
        expected = "per-stage with mode compat (or none, which means it), or mode general"
        raise source.invalid("planner.packing", expected, show(options.packing))
    if options.rebatch:
        expected = "false with mode compat, or mode general"
        raise source.invalid("planner.rebatch", expected, show(options.rebatch))


def _check_spares(cluster: Cluster, source: Source) -> None:
    most = max(each.count for each in cluster.gpu_classes)
    if cluster.options.spare_gpus >= most:
        expected = f"less than the GPUs of the largest class ({most}), so that some can be used"
        raise source.invalid("planner.spare_gpus", expected, show(cluster.options.spare_gpus))


def _check_prices(cluster: Cluster, source: Source) -> None:
    options = cluster.options
    if options.objective == "least-cost":
        needed_by = "objective least-cost"
    elif options.max_price_per_hour is not None:
        needed_by = "max_price_per_hour"
    else:
        return
    for index, each in enumerate(cluster.gpu_classes):
        if each.price_per_hour is None:
            place = inside("gpu_classes", index, "price_per_hour")
            raise source.invalid(place, f"a price, which {needed_by} needs of every class", "none")


def _check_rates(cluster: Cluster, source: Source) -> None:
    objective = cluster.options.objective
    if objective == "max-min":
        return  # it serves every model anyway; the others would leave one out if they may
    for index, model in enumerate(cluster.models):
        if model.rate_rps is None:
            place = inside("models", index, "rate_rps")
            expected = f"a rate, which objective {objective} needs of every model"
            raise source.invalid(place, expected, "none")


def _milliseconds(us: Micros) -> str:
    return f"{ms_from_micros(us):g}"


def _gpu_class(entry: GpuClassEntry, source: Source, place: str) -> GpuClass:
    sheet = _datasheet(entry, source, place)
    return GpuClass(
        name=GpuClassName(entry.name),
        count=entry.count,
        memory_bytes=_memory_bytes(entry, sheet, source, place),
        gpus_per_server=entry.gpus_per_server,
        network_gbps=entry.network_gbps,
        price_per_hour=entry.price_per_hour,
        max_share_denominator=entry.max_share_denominator,
        rates=_rates(entry, sheet, source, place),
    )


def _datasheet(entry: GpuClassEntry, source: Source, place: str) -> DatasheetEntry | None:
    if entry.datasheet is None:
        return None
    try:
        return DATASHEET[entry.datasheet]
    except KeyError:
        known = ", ".join(sorted(DATASHEET))
        place = inside(place, "datasheet")
        raise source.invalid(place, f"one of {known}", show(entry.datasheet)) from None


def _memory_bytes(
    entry: GpuClassEntry, sheet: DatasheetEntry | None, source: Source, place: str
) -> Bytes:
    if entry.memory_gib is not None:
        return bytes_from_gib(entry.memory_gib)
    if sheet is None:
        place = inside(place, "memory_gib")
        raise source.invalid(place, "a number, or a datasheet that says it", "none")
    return sheet.memory_bytes


def _rates(
    entry: GpuClassEntry, sheet: DatasheetEntry | None, source: Source, place: str
) -> DeviceRates | None:
    given = {name: getattr(entry, name) for name in _RATES if getattr(entry, name) is not None}
    if sheet is not None:
        given = {name: getattr(sheet.rates, name) for name in _RATES} | given
    if not given:
        return None
    for name in _RATES:
        if name not in given:
            expected = f"a number: {', '.join(_RATES)} come together"
            raise source.invalid(inside(place, name), expected, "none")
    return DeviceRates(**{name: float(rate) for name, rate in given.items()})


def _model(entry: ModelEntry) -> ServedModel:
    return ServedModel(
        name=ModelName(entry.name),
        source=entry.source,
        slo_us=micros_from_ms(entry.slo_ms),
        weight=entry.weight,
        rate_rps=entry.rate_rps,
        gpu_classes=tuple(map(GpuClassName, entry.gpu_classes)),
        forbidden_gpu_classes=tuple(map(GpuClassName, entry.forbidden_gpu_classes)),
        max_stages=entry.max_stages,
        max_latency_us=_micros(entry.max_latency_ms),
        margin_us=_micros(entry.margin_ms),
        execution=_execution(entry.execution),
    )


def _execution(entry: ExecutionEntry | None) -> ExecutionOptions:
    return ExecutionOptions() if entry is None else ExecutionOptions(**asdict(entry))


def _execution_entry(options: ExecutionOptions) -> ExecutionEntry | None:
    """Return what the file says; nothing where all is as usual."""
    return None if options == ExecutionOptions() else ExecutionEntry(**asdict(options))


def _micros(ms: float | None) -> Micros | None:
    return None if ms is None else micros_from_ms(ms)


def _options(entry: PlannerEntry) -> PlannerOptions:
    values = asdict(entry)
    hop_overhead_us = micros_from_ms(values.pop("hop_overhead_ms"))
    workspace_bytes = bytes_from_mib(values.pop("workspace_mib"))
    values["packing"] = entry.packing or _PACKING[entry.mode]
    return PlannerOptions(
        hop_overhead_us=hop_overhead_us, workspace_bytes=workspace_bytes, **values
    )


def _gpu_class_entry(gpu_class: GpuClass) -> GpuClassEntry:
    rates = asdict(gpu_class.rates) if gpu_class.rates else {}
    return GpuClassEntry(
        name=gpu_class.name,
        count=gpu_class.count,
        memory_gib=gpu_class.memory_bytes / BYTES_PER_GIB,
        gpus_per_server=gpu_class.gpus_per_server,
        network_gbps=gpu_class.network_gbps,
        price_per_hour=gpu_class.price_per_hour,
        max_share_denominator=gpu_class.max_share_denominator,
        **rates,
    )


def _model_entry(model: ServedModel) -> ModelEntry:
    return ModelEntry(
        name=model.name,
        source=model.source,
        slo_ms=ms_from_micros(model.slo_us),
        weight=model.weight,
        rate_rps=model.rate_rps,
        gpu_classes=model.gpu_classes,
        forbidden_gpu_classes=model.forbidden_gpu_classes,
        max_stages=model.max_stages,
        max_latency_ms=_ms(model.max_latency_us),
        margin_ms=_ms(model.margin_us),
        execution=_execution_entry(model.execution),
    )


def _ms(us: Micros | None) -> float | None:
    return None if us is None else ms_from_micros(us)


def _planner_entry(options: PlannerOptions) -> PlannerEntry:
    values = asdict(options)
    hop_overhead_us = values.pop("hop_overhead_us")
    workspace_bytes = values.pop("workspace_bytes")
    return PlannerEntry(
        hop_overhead_ms=ms_from_micros(hop_overhead_us),
        workspace_mib=workspace_bytes / BYTES_PER_MIB,
        **values,
    )
