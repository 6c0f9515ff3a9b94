"""The JSON of a published plan: one entry for each model, checked field by field.

Fields that nothing here needs are passed over. Rules of planning that Penstock does not have are
refused, because a comparison would mean nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import TypeVar

from penstock.domain.units import BITS_PER_BYTE, Bytes, Micros
from penstock.formats.checks import (
    check_any,
    check_at_least,
    check_each_at_least,
    check_length,
    check_name,
    check_positive,
    check_unique,
)
from penstock.formats.codec import parse_json
from penstock.formats.documents import validate
from penstock.formats.sources import Source, inside, show

T = TypeVar("T", bound=Hashable)

LONGEST_US = 10**12  # beyond any time that these files may mean


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigEntry:
    """What one model was planned with.

    Attributes:
        sla: the SLO in microseconds.
        num_mps_levels: per GPU class, the largest denominator of a share.
        max_num_parts: stages, at most.
        transmit_time_us_arr: per cut, for one sample.
        est_xput: samples/s at which batches were assumed to fill.
        hist_adjustment: the margin in microseconds.
        num_gpu_per_server_arr: per GPU class.
    """

    dnn_name: str
    gpu_name_arr: tuple[str, ...]
    sla: float
    num_mps_levels: tuple[int, ...]
    max_num_parts: int
    transmit_time_us_arr: tuple[float, ...]
    est_xput: float
    hist_adjustment: float
    num_gpu_per_server_arr: tuple[int, ...]
    bw_gbps: float
    batch_build_factor: float
    bs_same: bool = True
    force_sum_gpu_integer_per_partition: bool = True
    hist_adjustment_w_scheduling: float = 0

    @property
    def blocks(self) -> int:
        """How many blocks the model has."""
        return len(self.transmit_time_us_arr) + 1

    @property
    def cut_bytes(self) -> tuple[Bytes, ...]:
        """Bytes of one sample over each cut."""
        bytes_per_us = self.bw_gbps * 1e3 / BITS_PER_BYTE
        return tuple(round(us * bytes_per_us) for us in self.transmit_time_us_arr)

    @property
    def slo_us(self) -> Micros:
        """The SLO in whole microseconds."""
        return int(self.sla)

    @property
    def margin_us(self) -> Micros:
        """The margin in whole microseconds."""
        return round(self.hist_adjustment)

    @property
    def fleet(self) -> tuple[object, ...]:
        """Everything that all models of a file have in common."""
        per_class = self.gpu_name_arr, self.num_mps_levels, self.num_gpu_per_server_arr
        return (*per_class, self.bw_gbps, self.max_num_parts, self.batch_build_factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionEntry:
    """One stage.

    Attributes:
        layers: the first block and the one after the last.
        mps: how often a GPU is divided: 0 for a whole one, 1 for halves. That is what latencies and
            throughputs in the files say; the artifact's README has it one higher.
        num_gpu: whole GPUs, in fractions where they are shared.
        lat_infer: latency of one batch in microseconds.
    """

    layers: tuple[int, int]
    gpu: str
    mps: int
    bs: int
    num_gpu: float
    lat_infer: float

    @property
    def m(self) -> int:
        """Denominator of the share."""
        return self.mps + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineEntry:
    """One pipeline of a model."""

    xput: float
    partitions: tuple[PartitionEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One model: what it was planned with and what came out."""

    xput: float
    config: ConfigEntry
    pipelines: tuple[PipelineEntry, ...]
    runtime: float | None
    mipgap: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    xput: float
    runtime: float | None = None
    mipgap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Throughput:
    xput: float


def read_entries(text: str, source: Source) -> tuple[ModelEntry, ...]:
    """Read a plan file's models.

    Raises:
        InvalidInput: the first thing that is wrong, and where.
    """
    content = _list(parse_json(text, source), source, "")
    check_any(source, "", content)
    entries = tuple(_model(each, source, inside("", i)) for i, each in enumerate(content))
    check_unique(
        source,
        [(inside("", i, "config", "dnn_name"), e.config.dnn_name) for i, e in enumerate(entries)],
    )
    for index, each in enumerate(entries):
        if each.config.fleet != entries[0].config.fleet:
            expected = "fleet, stages and batch-building factor of [0].config"
            raise source.invalid(inside("", index, "config"), expected, "others")
    return entries


def _model(content: object, source: Source, place: str) -> ModelEntry:
    figures = _known(_Figures, content, source, place)
    check_at_least(source, place, figures, xput=0)
    config = _config(_field(content, "config"), source, inside(place, "config"))
    within = inside(place, "pipelines")
    pipelines = _list(_field(content, "pipelines"), source, within)
    return ModelEntry(
        xput=figures.xput,
        config=config,
        pipelines=tuple(
            _pipeline(each, config, source, inside(within, index))
            for index, each in enumerate(pipelines)
        ),
        runtime=figures.runtime,
        mipgap=figures.mipgap,
    )


def _config(content: object, source: Source, place: str) -> ConfigEntry:
    config = _known(ConfigEntry, content, source, place)
    check_name(source, inside(place, "dnn_name"), config.dnn_name)
    check_positive(source, place, config, "est_xput", "bw_gbps")
    check_at_least(
        source, place, config, sla=1, max_num_parts=1, hist_adjustment=0, batch_build_factor=0
    )
    if config.margin_us >= config.slo_us:
        expected = f"less than the SLO of {config.slo_us}"
        found = show(config.hist_adjustment)
        raise source.invalid(inside(place, "hist_adjustment"), expected, found)
    check_any(source, inside(place, "gpu_name_arr"), config.gpu_name_arr)
    names = [(inside(place, "gpu_name_arr", i), each) for i, each in enumerate(config.gpu_name_arr)]
    for within, name in names:
        check_name(source, within, name)
    check_unique(source, names)
    for name in ("num_mps_levels", "num_gpu_per_server_arr"):
        numbers, within = getattr(config, name), inside(place, name)
        check_length(source, within, numbers, len(names), "one for each GPU class")
        check_each_at_least(source, within, numbers, 1)
    _check_range(source, inside(place, "sla"), config.sla)
    for index, each in enumerate(config.transmit_time_us_arr):
        _check_range(source, inside(place, "transmit_time_us_arr", index), each)
    _check_rules(config, source, place)
    return config


def _check_range(source: Source, place: str, time_us: float) -> None:
    if not 0 <= time_us <= LONGEST_US:
        raise source.invalid(place, f"0 to {LONGEST_US} microseconds", show(time_us))


def _check_rules(config: ConfigEntry, source: Source, place: str) -> None:
    rules = {
        "bs_same": (True, "all stages of a pipeline have one batch size"),
        "force_sum_gpu_integer_per_partition": (True, "shares are rounded up to whole GPUs"),
        "hist_adjustment_w_scheduling": (0, "hist_adjustment is all of the margin"),
    }
    for name, (value, meaning) in rules.items():
        found = getattr(config, name)
        if found != value:
            raise source.invalid(inside(place, name), f"{show(value)}: {meaning}", show(found))


def _pipeline(content: object, config: ConfigEntry, source: Source, place: str) -> PipelineEntry:
    throughput = _known(_Throughput, content, source, place)
    check_at_least(source, place, throughput, xput=0)
    within = inside(place, "partitions")
    listed = _list(_field(content, "partitions"), source, within)
    check_any(source, within, listed)
    partitions = tuple(
        _partition(each, config, source, inside(within, index)) for index, each in enumerate(listed)
    )
    ends = [0, *(each.layers[1] for each in partitions)]
    starts = [*(each.layers[0] for each in partitions), config.blocks]
    if starts != ends:
        expected = f"stages that cover blocks 0 to {config.blocks} once, in order"
        found = ", ".join(f"{first} to {end}" for first, end in (e.layers for e in partitions))
        raise source.invalid(within, expected, found)
    return PipelineEntry(xput=throughput.xput, partitions=partitions)


def _partition(content: object, config: ConfigEntry, source: Source, place: str) -> PartitionEntry:
    found = _known(PartitionEntry, content, source, place)
    check_at_least(source, place, found, mps=0, bs=1, num_gpu=0, lat_infer=0)
    if found.gpu not in config.gpu_name_arr:
        expected = f"one of {', '.join(config.gpu_name_arr)}"
        raise source.invalid(inside(place, "gpu"), expected, show(found.gpu))
    levels = config.num_mps_levels[config.gpu_name_arr.index(found.gpu)]
    if found.m > levels:
        expected = f"less than {levels}, the levels of {found.gpu}"
        raise source.invalid(inside(place, "mps"), expected, show(found.mps))
    if found.layers[0] >= found.layers[1]:
        expected = "a first block and a later end"
        raise source.invalid(inside(place, "layers"), expected, str(list(found.layers)))
    return found


def _known(kind: type[T], content: object, source: Source, place: str) -> T:
    """Read the fields of `kind`, and pass over all others."""
    if not isinstance(content, dict):
        raise source.invalid(place, "an object", show(content))
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type] # all are dataclasses
    known = {name: value for name, value in content.items() if name in names}
    return validate(kind, known, source, place)


def _field(content: object, name: str) -> object:
    return content.get(name) if isinstance(content, dict) else None


def _list(content: object, source: Source, place: str) -> list[object]:
    if not isinstance(content, list):
        raise source.invalid(place, "a list", show(content))
    return content
