"""The Open Inference Protocol service: convert, submit, await, convert.

Knows nothing of how an answer is made. A handler that is cancelled, because the client went away
or its deadline passed, just ends: `Admission` tells the dispatcher.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Protocol, TypeAlias

import grpc

from frontend.admission import Admission
from frontend.catalogue import Catalogue, CatalogueModel
from frontend.ingress import Answer, Outcome
from frontend.regions import SharedRegions
from penstock.domain.errors import PenstockError, UnknownName
from penstock.domain.ids import ModelName
from penstock.domain.tensors import Tensor
from penstock.domain.units import Bytes, Micros, micros_from_seconds, ms_from_micros
from penstock.rpc import oip, oip_descriptions
from penstock.rpc.oip import ModelSignature, Query
from penstock.rpc.oip_answers import AnswerWriter, stream_error
from penstock.rpc.oip_wire import InferReader, NotAMessage, decode
from penstock.rpc.serving.direct import Asked, Caller, Refusal
from penstock.rpc.serving.lane import Conversation
from penstock.rpc.serving.library import converse
from penstock.rpc.status import DROP_STATUS, clipped, drop_details, error_status
from protos import inference_pb2 as pb

# The stubs make a context generic in messages that one helper must take all of.
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_LOG = logging.getLogger("penstock.frontend")
_CLOSED = "the server is shutting down"
_NO_REGIONS = "this server takes no shared memory"
_LOADING = "models are not loaded one by one here: start the frontend with another plan"


class Counts(Protocol):
    """Who knows what was counted of each model."""

    async def tell(self, signatures: Sequence[ModelSignature]) -> pb.ModelStatisticsResponse:
        """Return what was counted of these models."""
        ...


class Refusals(Protocol):
    """Who counts the requests that got no further."""

    def refused(self, status: str) -> None:
        """Count a request that never reached the dispatcher."""
        ...


class Registrar(Protocol):
    """Who takes clients' shared memory in, wherever it is needed."""

    async def register(self, name: str, key: str, offset: Bytes, size: Bytes) -> None:
        """Have part of an object known under a name; return when it is.

        Raises:
            PenstockError: it cannot be.
        """
        ...

    async def unregister(self, name: str) -> None:
        """Let go of a region, or of all if no name is given; what is not there is no error.

        Raises:
            PenstockError: not everybody has.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMemory:
    """Shared memory of clients.

    Attributes:
        regions: those that are known here.
        registrar: decides which are.
    """

    regions: SharedRegions
    registrar: Registrar


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the service works with.

    Attributes:
        unready: says why a model is not ready; empty if it is.
        emulated: whether answers are timed by emulated devices.
        queue_samples: samples of a model that may wait.
        stream_requests: requests of one stream that may be under way at once.
        shared_memory: that clients may register; None: they may not.
    """

    catalogue: Catalogue
    admission: Admission
    statistics: Counts
    metrics: Refusals
    unready: Callable[[ModelName], str]
    emulated: Callable[[], bool]
    queue_samples: int
    stream_requests: int
    shared_memory: SharedMemory | None = None


# Calls that are given encoded messages, and return such.
ENCODED = frozenset({"ModelInfer", "ModelStreamInfer"})


class InferenceServicer:
    """Answers the protocol's calls; each method is named like its call."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._regions = desk.shared_memory.regions if desk.shared_memory else None
        self._reader = InferReader(lambda name: desk.catalogue.find(name).signature, self._regions)
        self._writer = AnswerWriter()

    # Health and metadata

    async def ServerLive(
        self, _request: pb.ServerLiveRequest, _context: Context
    ) -> pb.ServerLiveResponse:
        """Whoever hears an answer hears it from a live server."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, _request: pb.ServerReadyRequest, _context: Context
    ) -> pb.ServerReadyResponse:
        """Tell whether every planned model can be served."""
        desk = self._desk
        ready = not any(desk.unready(model.signature.name) for model in desk.catalogue)
        return pb.ServerReadyResponse(ready=ready and not desk.admission.closed)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, _context: Context
    ) -> pb.ModelReadyResponse:
        """Tell whether one model can be served; one that is unknown cannot."""
        try:
            model = self._find(request.name, request.version)
        except UnknownName:
            return pb.ModelReadyResponse(ready=False)
        ready = not self._desk.unready(model.signature.name)
        return pb.ModelReadyResponse(ready=ready and not self._desk.admission.closed)

    async def ServerMetadata(
        self, _request: pb.ServerMetadataRequest, _context: Context
    ) -> pb.ServerMetadataResponse:
        """Tell name, version and extensions."""
        offered = self._desk.shared_memory is not None
        return oip_descriptions.write_server_metadata(shared_memory=offered)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Tell a model's tensors."""
        model = await self._found(request.name, request.version, context)
        return oip_descriptions.write_metadata(model.signature)

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        """Tell how a model is served."""
        model = await self._found(request.name, request.version, context)
        return oip_descriptions.write_config(model.signature, self._facts(model))

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Tell what was counted of one model, or of all if none is named."""
        models = list(self._desk.catalogue)
        if request.name:
            models = [await self._found(request.name, request.version, context)]
        return await self._desk.statistics.tell([model.signature for model in models])

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, _context: Context
    ) -> pb.RepositoryIndexResponse:
        """List the planned models and whether they are ready."""
        signatures = [model.signature for model in self._desk.catalogue]
        listed = [(each, self._desk.unready(each.name)) for each in signatures]
        return oip_descriptions.write_index(
            [(each, reason) for each, reason in listed if not (request.ready and reason)]
        )

    async def RepositoryModelLoad(
        self, _request: pb.RepositoryModelLoadRequest, context: Context
    ) -> NoReturn:
        """Refuse: the plan decides what is loaded."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, _LOADING)

    async def RepositoryModelUnload(
        self, _request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> NoReturn:
        """Refuse: the plan decides what is loaded."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, _LOADING)

    # Shared memory

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        """List one region that clients registered, or all if none is named."""
        memory = await self._shared_memory(context)
        try:
            return oip_descriptions.write_regions(memory.regions.listed(request.name))
        except UnknownName as error:
            await context.abort(error_status(error), clipped(str(error)))

    async def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest, context: Context
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Take part of an object in this host's shared memory."""
        memory = await self._shared_memory(context)
        asked = (request.name, request.key, request.offset, request.byte_size)
        try:
            await memory.registrar.register(*asked)
        except PenstockError as error:
            await context.abort(error_status(error), clipped(str(error)))
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Let go of a region, or of all if none is named."""
        memory = await self._shared_memory(context)
        try:
            await memory.registrar.unregister(request.name)
        except PenstockError as error:
            await context.abort(error_status(error), clipped(str(error)))
        return pb.SystemSharedMemoryUnregisterResponse()

    async def _shared_memory(self, context: Context) -> SharedMemory:
        if self._desk.shared_memory is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, _NO_REGIONS)
        return self._desk.shared_memory

    # Inference: these take and return encoded messages

    async def ModelInfer(self, message: bytes, context: Context) -> bytes:
        """Answer one request."""
        try:
            asked = self.ask(message, context)
            return asked.answer(await asked.outcome)
        except Refusal as refusal:
            await context.abort(refusal.code, refusal.details)

    def ask(self, message: bytes, caller: Caller) -> Asked[Outcome]:
        """Begin to answer one request: `ModelInfer` without a task.

        Raises:
            Refusal: it cannot be answered.
        """
        query, outcome = self._submit(message, caller)
        return Asked(outcome, partial(self._answer, query))

    def _answer(self, query: Query, outcome: Outcome) -> bytes:
        outputs = self._outputs(query, outcome)
        return self._writer.write(query, outputs, emulated=self._desk.emulated())

    async def ModelStreamInfer(self, _requests: object, context: Context) -> None:
        """Answer the requests of a stream, in their order; a refusal does not end the stream."""
        try:
            await converse(context, self.conversation)
        except Refusal as refusal:
            await context.abort(refusal.code, refusal.details)

    @property
    def conversation(self) -> Conversation:
        """`ModelStreamInfer` without a task."""
        return Conversation(self._ask_on_stream, self._desk.stream_requests)

    def _ask_on_stream(self, message: bytes, caller: Caller) -> Asked[Outcome] | bytes:
        """Begin to answer one request of a stream.

        Raises:
            Refusal: it is none, and nothing that follows can be trusted.
        """
        try:
            query, outcome = self._submit(message, caller)
        except Refusal as refusal:
            return _refusal_on_stream(message, refusal)
        return Asked(outcome, partial(self._answer_on_stream, query))

    def _answer_on_stream(self, query: Query, outcome: Outcome) -> bytes:
        try:
            outputs = self._outputs(query, outcome)
        except Refusal as refusal:
            return stream_error(query.signature.name, query.id, str(refusal))
        return self._writer.write_on_stream(query, outputs, emulated=self._desk.emulated())

    def _submit(self, message: bytes, caller: Caller) -> tuple[Query, asyncio.Future[Outcome]]:
        """Have a request answered.

        Raises:
            Refusal: it cannot be.
        """
        desk = self._desk
        if desk.admission.closed:
            raise self._refused(grpc.StatusCode.UNAVAILABLE, _CLOSED)
        try:
            query = self._reader.read(message)
            model = desk.catalogue.find(query.signature.name)
        except PenstockError as error:
            raise self._refused(error_status(error), str(error)) from error
        return query, desk.admission.submit(query, model.plan.slo_us, _time_left_us(caller))

    def _outputs(self, query: Query, outcome: Outcome) -> tuple[Tensor, ...]:
        """Return what a model made of a query; what is wanted in shared memory lies there then.

        Raises:
            Refusal: it made nothing, or that cannot be put there.
        """
        if not isinstance(outcome, Answer):
            details = drop_details(outcome.reason, outcome.detail)
            raise Refusal(DROP_STATUS[outcome.reason], details)
        if query.places:
            self._place(query, outcome.outputs)
        return outcome.outputs

    def _place(self, query: Query, outputs: Sequence[Tensor]) -> None:
        regions = self._regions
        try:
            for tensor in outputs:
                if regions is not None and tensor.name in query.places:
                    regions.write(query.places[tensor.name], tensor.data)
        except PenstockError as error:
            raise Refusal(error_status(error), clipped(str(error))) from error

    def _refused(self, code: grpc.StatusCode, details: str) -> Refusal:
        self._desk.metrics.refused(code.name)
        return Refusal(code, clipped(details))

    # Models

    def _find(self, name: str, version: str) -> CatalogueModel:
        model = self._desk.catalogue.find(name)
        oip.check_version(model.signature, version)
        return model

    async def _found(self, name: str, version: str, context: Context) -> CatalogueModel:
        try:
            return self._find(name, version)
        except UnknownName as error:
            await context.abort(error_status(error), clipped(str(error)))

    def _facts(self, model: CatalogueModel) -> oip_descriptions.ServingFacts:
        parameters = {
            "slo_ms": f"{ms_from_micros(model.plan.slo_us):g}",
            "planned_rps": f"{model.plan.throughput_rps:g}",
            "emulated": str(self._desk.emulated()).lower(),
        }
        return oip_descriptions.ServingFacts(
            max_batch=model.max_batch,
            slo_us=model.plan.slo_us,
            queue_samples=self._desk.queue_samples,
            parameters=parameters,
        )


def _refusal_on_stream(message: bytes, refusal: Refusal) -> bytes:
    """Return a refusal as an answer.

    Raises:
        Refusal: there is nothing to answer to.
    """
    try:
        request = decode(message)
    except NotAMessage as error:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
    return stream_error(request.model_name, request.id, str(refusal))


def _time_left_us(caller: Caller) -> Micros | None:
    """Return how long the client will wait; None if it did not say."""
    seconds = caller.time_remaining()
    return None if seconds is None else micros_from_seconds(seconds)
