"""``cluster.yaml``: the fleet and what it serves, in the units people think in.

Milliseconds and gibibytes in the file, microseconds and bytes in the domain.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from dataclasses import field as default
from typing import Annotated, TypeAlias

from pydantic import Field

from penstock.domain.cluster import Cluster, DeviceRates, GpuClass, PlannerOptions, ServedModel
from penstock.domain.datasheet import DATASHEET, DatasheetEntry
from penstock.domain.errors import InvalidCluster
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.units import (
    BYTES_PER_GIB,
    Bytes,
    bytes_from_gib,
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
class ModelEntry:
    """One served model as the file says it."""

    name: str
    source: str
    slo_ms: _SloMs
    weight: _Positive = 1.0
    rate_rps: _Positive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerEntry:
    """The planner's options as the file says them; defaults are the domain's."""

    max_stages: _Count = _DEFAULTS.max_stages
    max_batch: _Count = _DEFAULTS.max_batch
    slo_margin: _Fraction = _DEFAULTS.slo_margin
    batch_build_factor: _NotNegative = _DEFAULTS.batch_build_factor
    hop_overhead_ms: _NotNegative = _HOP_OVERHEAD_MS
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
    return Cluster(
        gpu_classes=tuple(
            _gpu_class(each, where, inside("gpu_classes", index))
            for index, each in enumerate(file.gpu_classes)
        ),
        models=tuple(_model(each) for each in file.models),
        options=_options(file.planner),
    )


def write_cluster(cluster: Cluster) -> str:
    """Write ``cluster.yaml``; a class's rates are written out, whichever way they came in."""
    file = ClusterFile(
        gpu_classes=tuple(_gpu_class_entry(each) for each in cluster.gpu_classes),
        models=tuple(_model_entry(each) for each in cluster.models),
        planner=_planner_entry(cluster.options),
    )
    content = asdict(file)
    for entry in (*content["gpu_classes"], *content["models"]):
        for name in [name for name, value in entry.items() if value is None]:
            del entry[name]
    lists = {name: list(content.pop(name)) for name in ("gpu_classes", "models")}
    return write_yaml({"schema": CLUSTER.tag, **lists, **content})


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
    )


def _options(entry: PlannerEntry) -> PlannerOptions:
    values = asdict(entry)
    hop_overhead_ms = values.pop("hop_overhead_ms")
    return PlannerOptions(hop_overhead_us=micros_from_ms(hop_overhead_ms), **values)


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
    )


def _planner_entry(options: PlannerOptions) -> PlannerEntry:
    values = asdict(options)
    hop_overhead_us = values.pop("hop_overhead_us")
    return PlannerEntry(hop_overhead_ms=ms_from_micros(hop_overhead_us), **values)
