"""What the Open Inference Protocol tells about a server and its models: values → messages.

Knows nothing of requests, nor where the values come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock import __version__
from penstock.domain.blocks import TensorSpec
from penstock.domain.units import Bytes, Micros
from penstock.rpc.oip import ModelSignature
from protos import inference_pb2 as pb

PLATFORM = "penstock"

# Triton's names of the extensions that are offered in full; `model_repository` is not among
# them, because models cannot be loaded and unloaded one by one.
EXTENSIONS = ("model_configuration", "schedule_policy", "statistics")
SHARED_MEMORY = "system_shared_memory"

_NS_PER_US = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingFacts:
    """How a model is served.

    Attributes:
        max_batch: largest batch that runs at once.
        queue_samples: samples that may wait; more are shed.
        parameters: further facts, by name.
    """

    max_batch: int
    slo_us: Micros
    queue_samples: int
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Bytes [offset, offset + size) of a shared memory object, under a name of the client's.

    Attributes:
        key: the object's name.
        file: descriptor of the object.
    """

    name: str
    key: str
    offset: Bytes
    size: Bytes
    file: int


@dataclass(slots=True)
class Tally:
    """How often, and how long in all."""

    count: int = 0
    total_us: Micros = 0

    def add(self, duration_us: Micros) -> None:
        """Count one more."""
        self.count += 1
        self.total_us += duration_us


@dataclass(slots=True, kw_only=True)
class BatchTally:
    """Batches of one size."""

    handover: Tally = field(default_factory=Tally)
    compute: Tally = field(default_factory=Tally)


@dataclass(slots=True, kw_only=True)
class ModelTally:
    """All that is counted of one model.

    Attributes:
        last_inference_ms: since 1970; 0 before the first.
        samples: answered, each row counting.
        batches: that went through.
        success, fail: whole requests.
        queue, handover, compute: parts of answered requests.
        by_batch: by number of samples in the batch.
    """

    last_inference_ms: int = 0
    samples: int = 0
    batches: int = 0
    success: Tally = field(default_factory=Tally)
    fail: Tally = field(default_factory=Tally)
    queue: Tally = field(default_factory=Tally)
    handover: Tally = field(default_factory=Tally)
    compute: Tally = field(default_factory=Tally)
    by_batch: dict[int, BatchTally] = field(default_factory=dict)


def write_server_metadata(*, shared_memory: bool) -> pb.ServerMetadataResponse:
    """Return name, version and the extensions offered."""
    extensions = (*EXTENSIONS, SHARED_MEMORY) if shared_memory else EXTENSIONS
    return pb.ServerMetadataResponse(name=PLATFORM, version=__version__, extensions=extensions)


def write_metadata(signature: ModelSignature) -> pb.ModelMetadataResponse:
    """Return a model's tensors; the batch axis is -1."""
    return pb.ModelMetadataResponse(
        name=signature.name,
        versions=[signature.version],
        platform=PLATFORM,
        inputs=[_tensor_metadata(spec) for spec in signature.inputs],
        outputs=[_tensor_metadata(spec) for spec in signature.outputs],
    )


def write_config(signature: ModelSignature, facts: ServingFacts) -> pb.ModelConfigResponse:
    """Return how a model is served, in the words of Triton's model configuration."""
    config = pb.ModelConfig(
        name=signature.name,
        platform=PLATFORM,
        backend=PLATFORM,
        max_batch_size=facts.max_batch,
        version_policy=_only_version(signature.version),
        dynamic_batching=_batching(facts),
    )
    for spec in signature.inputs:
        config.input.add(name=spec.name, data_type=_data_type(spec), dims=spec.shape[1:])
    for spec in signature.outputs:
        config.output.add(name=spec.name, data_type=_data_type(spec), dims=spec.shape[1:])
    for key, value in facts.parameters.items():
        config.parameters[key].string_value = value
    return pb.ModelConfigResponse(config=config)


def write_statistics(
    tallies: Sequence[tuple[ModelSignature, ModelTally]],
) -> pb.ModelStatisticsResponse:
    """Return counts and durations; hand-overs between stages count as ``compute_input``."""
    return pb.ModelStatisticsResponse(
        model_stats=[_model_statistics(signature, tally) for signature, tally in tallies]
    )


def write_index(models: Sequence[tuple[ModelSignature, str]]) -> pb.RepositoryIndexResponse:
    """Return the models with the reason why they are not ready; an empty one means ready."""
    index = pb.RepositoryIndexResponse()
    for signature, reason in models:
        index.models.add(
            name=signature.name,
            version=signature.version,
            state="UNAVAILABLE" if reason else "READY",
            reason=reason,
        )
    return index


def write_regions(regions: Iterable[Region]) -> pb.SystemSharedMemoryStatusResponse:
    """Return the shared memory that clients registered."""
    status = pb.SystemSharedMemoryStatusResponse()
    for each in regions:
        status.regions[each.name].CopyFrom(
            pb.SystemSharedMemoryStatusResponse.RegionStatus(
                name=each.name, key=each.key, offset=each.offset, byte_size=each.size
            )
        )
    return status


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.shape
    )


def _only_version(version: str) -> pb.ModelVersionPolicy:
    if not version.isdigit():
        return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
    return pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=[int(version)]))


def _batching(facts: ServingFacts) -> pb.ModelDynamicBatching:
    return pb.ModelDynamicBatching(
        default_queue_policy=pb.ModelQueuePolicy(
            timeout_action=pb.ModelQueuePolicy.REJECT,
            default_timeout_microseconds=facts.slo_us,
            allow_timeout_override=True,
            max_queue_size=facts.queue_samples,
        )
    )


def _data_type(spec: TensorSpec) -> str:
    return f"TYPE_{spec.datatype}"


def _model_statistics(signature: ModelSignature, tally: ModelTally) -> pb.ModelStatistics:
    statistics = pb.ModelStatistics(
        name=signature.name,
        version=signature.version,
        last_inference=tally.last_inference_ms,
        inference_count=tally.samples,
        execution_count=tally.batches,
        inference_stats=pb.InferStatistics(
            success=_duration(tally.success),
            fail=_duration(tally.fail),
            queue=_duration(tally.queue),
            compute_input=_duration(tally.handover),
            compute_infer=_duration(tally.compute),
            compute_output=_none(tally.compute),
        ),
    )
    for size, batch in sorted(tally.by_batch.items()):
        statistics.batch_stats.add(
            batch_size=size,
            compute_input=_duration(batch.handover),
            compute_infer=_duration(batch.compute),
            compute_output=_none(batch.compute),
        )
    return statistics


def _duration(tally: Tally) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=tally.count, ns=tally.total_us * _NS_PER_US)


def _none(tally: Tally) -> pb.StatisticDuration:
    """Return no time at all, counted as often: splitting a result is part of no measurement."""
    return pb.StatisticDuration(count=tally.count, ns=0)
