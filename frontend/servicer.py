"""The Open Inference Protocol service: convert, submit, await, convert.

Knows nothing of how an answer is made. A handler that is cancelled, because the client went away
or its deadline passed, just ends: `Admission` tells the dispatcher.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc

from frontend.admission import Admission
from frontend.catalogue import Catalogue, CatalogueModel
from frontend.ingress import Answer
from frontend.metrics import Metrics
from frontend.statistics import Statistics
from penstock.domain.errors import PenstockError, UnknownName
from penstock.domain.ids import ModelName
from penstock.domain.units import Micros, micros_from_seconds, ms_from_micros
from penstock.rpc import oip, oip_descriptions
from penstock.rpc.status import DROP_STATUS, clipped, drop_details, error_status
from protos import inference_pb2 as pb

T = TypeVar("T")

# The stubs make a context generic in messages that one helper must take all of.
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_LOG = logging.getLogger("penstock.frontend")
_CLOSED = "the server is shutting down"
_LOADING = "models are not loaded one by one here: start the frontend with another plan"


class Refusal(Exception):
    """A request that ends with a status instead of an answer."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the service works with.

    Attributes:
        unready: says why a model is not ready; empty if it is.
        emulated: whether answers are timed by emulated devices.
        queue_samples: samples of a model that may wait.
        stream_requests: requests of one stream that may be under way at once.
    """

    catalogue: Catalogue
    admission: Admission
    statistics: Statistics
    metrics: Metrics
    unready: Callable[[ModelName], str]
    emulated: Callable[[], bool]
    queue_samples: int
    stream_requests: int


class InferenceServicer:
    """Answers the protocol's calls; each method is named like its call."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

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
        return oip_descriptions.write_server_metadata()

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
        signatures = [model.signature for model in models]
        return oip_descriptions.write_statistics(
            [(each, self._desk.statistics.of(each.name)) for each in signatures]
        )

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

    # Inference

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        """Answer one request."""
        return await _or_abort(self._infer(request, context), context)

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterable[pb.ModelInferRequest], context: Context
    ) -> None:
        """Answer the requests of a stream, in their order; a refusal does not end the stream.

        When as many requests are under way as a stream may have, no more are read: the client
        is held back by the transport.
        """
        slots = max(1, self._desk.stream_requests - 1)
        answers: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None]
        answers = asyncio.Queue(slots)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_stream(request_iterator, context, group, answers))
            while (answer := await answers.get()) is not None:
                await context.write(await answer)

    async def _read_stream(
        self,
        requests: AsyncIterable[pb.ModelInferRequest],
        context: Context,
        group: asyncio.TaskGroup,
        answers: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None],
    ) -> None:
        async for request in requests:
            await answers.put(group.create_task(self._stream_answer(request, context)))
        await answers.put(None)

    async def _stream_answer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelStreamInferResponse:
        try:
            return oip.stream_answer(await self._infer(request, context))
        except Refusal as refusal:
            return oip.stream_error(request, f"{refusal.code.name}: {refusal.details}")

    async def _infer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        desk = self._desk
        if desk.admission.closed:
            raise self._refused(grpc.StatusCode.UNAVAILABLE, _CLOSED)
        try:
            model = desk.catalogue.find(request.model_name)
            query = oip.read_infer(request, model.signature)
        except PenstockError as error:
            raise self._refused(error_status(error), str(error)) from error
        outcome = await desk.admission.submit(query, model.plan.slo_us, _time_left_us(context))
        if not isinstance(outcome, Answer):
            details = drop_details(outcome.reason, outcome.detail)
            raise Refusal(DROP_STATUS[outcome.reason], details)
        return oip.write_infer(query, outcome.outputs, emulated=desk.emulated())

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


async def _or_abort(answer: Awaitable[T], context: Context) -> T:
    try:
        return await answer
    except Refusal as refusal:
        await context.abort(refusal.code, refusal.details)


def _time_left_us(context: Context) -> Micros | None:
    """Return how long the client will wait; None if it did not say."""
    seconds = context.time_remaining()
    return None if seconds is None else micros_from_seconds(seconds)
