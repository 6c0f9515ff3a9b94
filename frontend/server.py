"""Assembles one frontend and takes it apart again.

The order at the start: dispatcher with the plan, backend, inference service, pages. At the end:
health says no → pause → refuse new → finish accepted → stop the service → close the links.
Knows nothing of files, arguments or signals.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from frontend import status_page
from frontend.admission import Admission
from frontend.backend import BackendFactory, Wiring
from frontend.catalogue import Catalogue
from frontend.ingress import Ingress
from frontend.ledger import Ledger
from frontend.metrics import Metrics
from frontend.pages import Page, Pages, serve_pages, text_page
from frontend.servicer import Desk, InferenceServicer
from frontend.settings import Settings
from frontend.statistics import Statistics
from penstock.aio.clock import MonotonicClock
from penstock.aio.driver import Driver
from penstock.domain.errors import PenstockError
from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from penstock.domain.units import Micros, seconds_from_micros
from penstock.policies import batching_policy, routing_policy
from penstock.rpc.handlers import handlers_of
from penstock.rpc.shutdown import bounded
from penstock.scheduling.dispatcher import Dispatcher
from penstock.scheduling.effects import Effect
from penstock.scheduling.events import Event, InstanceJoined, InstanceLost, PlanApplied
from protos import inference_pb2

_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE = _SERVICE.full_name
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

# Answers are complete when the service stops: this is for their last bytes, and for streams
# that idle clients hold open.
_GRACE_S = 1.0

# A saturated process accepts calls faster than it reads them. From 1,000 on gRPC would end some of
# them at random with a bare CANCELLED; the dispatcher says better why a request is refused.
_BACKLOG = (
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
)

Log = Callable[[Micros, Event, Sequence[Effect]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a frontend can be reached, as ``host:port``; ``control`` is empty without workers."""

    inference: str
    metrics: str
    control: str


class Frontend:
    """One frontend: a plan, a dispatcher, a backend and the services in front.

    Must be made and used inside a running event loop.

    Args:
        connect: makes the backend that computes batches.
        log: takes every (now, event, effects) of the dispatcher.

    Raises:
        UnknownName: a policy that does not exist.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        catalogue: Catalogue,
        connect: BackendFactory,
        log: Log | None = None,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._catalogue = catalogue
        self._clock = MonotonicClock()
        self._registry = CollectorRegistry()
        self._metrics = Metrics(plan.models, self._registry)
        self._statistics = Statistics((each.model for each in plan.models), _wall_clock_ms)
        self._ledger = Ledger((self._metrics, self._statistics))
        self._extra_log = log
        self._changed = asyncio.Event()
        self._health = health.HealthServicer()
        self._start_core(connect)

    def _start_core(self, connect: BackendFactory) -> None:
        settings = self._settings
        self._dispatcher = Dispatcher(
            batching_policy(settings.policy),
            routing_policy(settings.routing),
            settings.limits,
        )
        self._driver = Driver(self._dispatcher, self._clock, self._perform, self._log)
        ingress = Ingress()
        self._admission = Admission(ingress, self._driver.post, self._clock.now_us)
        self._backend = connect(
            Wiring(
                settings=settings,
                plan=self._plan,
                catalogue=self._catalogue,
                ingress=ingress,
                post=self._driver.post,
                now_us=self._clock.now_us,
                overran=self._metrics.overran,
            )
        )
        self._metrics.watch(
            in_flight=self._ledger.open_requests.__getitem__,
            waiting=self._dispatcher.waiting_samples,
            ready_instances=self._ledger.ready_instances,
        )

    async def start(self) -> Addresses:
        """Apply the plan and open all doors; readiness follows when instances have joined.

        Raises:
            InvalidPlan: the plan cannot be served; no door was opened.
            PenstockError: an address is taken.
        """
        self._driver.post(PlanApplied(self._plan))
        await self._set_health()
        settings = self._settings
        self._server = self._inference_server()
        port = _listen(self._server, settings.host, settings.port)
        self._pages = await _serve_pages(self._page_table(), settings)
        control = await self._backend.start()
        await self._server.start()
        metrics_port = self._pages.sockets[0].getsockname()[1]
        return Addresses(
            inference=f"{settings.host}:{port}",
            metrics=f"{settings.host}:{metrics_port}",
            control=control,
        )

    async def watch_readiness(self, announce: Callable[[bool], None]) -> None:
        """Keep the health service true for as long as this runs.

        Args:
            announce: told whether all models are ready, at each change.
        """
        told = False
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._set_health()
            if self.ready != told:
                told = self.ready
                announce(told)

    async def drain(self, insisted: asyncio.Event) -> int:
        """Stop: finish what was accepted, within the limit, or until somebody insists.

        Returns:
            How many accepted requests were left without an answer.
        """
        settings = self._settings
        await self._health.enter_graceful_shutdown()
        if self._admission.pending or self.ready:
            await bounded(asyncio.sleep(settings.drain_pause_s), settings.drain_pause_s, insisted)
        self._admission.close()
        await bounded(self._admission.idle(), settings.drain_limit_s, insisted)
        left = self._admission.pending
        await bounded(self._server.stop(_GRACE_S), _GRACE_S, insisted)
        await self._server.stop(None)
        await self._backend.stop(0.0 if left else _GRACE_S)
        self._driver.close()
        self._pages.close()
        return left

    @property
    def pending(self) -> int:
        """Requests accepted and not answered yet."""
        return self._admission.pending

    @property
    def closed(self) -> bool:
        """Whether new requests are refused."""
        return self._admission.closed

    @property
    def ready(self) -> bool:
        """Whether every planned model can be served."""
        return not any(self._unready(model.model) for model in self._plan.models)

    def _unready(self, model: ModelName) -> str:
        if self._dispatcher.has_route(model):
            return ""
        pools = self._plan.model(model).pools
        empty = [pool.id for pool in pools if not self._ledger.ready_instances(pool.id)]
        return f"no instance is ready in {', '.join(empty) or 'any pipeline'}"

    def _perform(self, effect: Effect) -> None:
        self._backend.perform(effect)

    def _log(self, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        self._ledger(now_us, event, effects)
        if self._extra_log is not None:
            self._extra_log(now_us, event, effects)
        if isinstance(event, InstanceJoined | InstanceLost | PlanApplied):
            self._changed.set()

    async def _set_health(self) -> None:
        serving = health_pb2.HealthCheckResponse.SERVING
        waiting = health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, serving if self.ready else waiting)

    def _inference_server(self) -> grpc.aio.Server:
        settings = self._settings
        server = grpc.aio.server(
            options=[
                *_BACKLOG,
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ]
        )
        servicer = InferenceServicer(self._desk())
        server.add_generic_rpc_handlers((handlers_of(servicer, _SERVICE),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if settings.reflection:
            names = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        return server

    def _desk(self) -> Desk:
        return Desk(
            catalogue=self._catalogue,
            admission=self._admission,
            statistics=self._statistics,
            metrics=self._metrics,
            unready=self._unready,
            emulated=lambda: self._backend.emulated,
            queue_samples=self._settings.queue_samples,
            stream_requests=self._settings.stream_requests,
        )

    def _page_table(self) -> Pages:
        sources = status_page.StatusSources(
            models=list(self._catalogue),
            ledger=self._ledger,
            statistics=self._statistics,
            unready=self._unready,
            waiting=self._dispatcher.waiting_samples,
            workers=self._backend.workers,
            emulated=lambda: self._backend.emulated,
            draining=lambda: self._admission.closed,
            uptime_s=lambda: seconds_from_micros(self._clock.now_us()),
        )
        return {
            "/": lambda: Page("text/html; charset=utf-8", status_page.as_html(sources).encode()),
            "/status.json": lambda: Page("application/json", status_page.as_json(sources).encode()),
            "/metrics": lambda: Page(CONTENT_TYPE_LATEST, generate_latest(self._registry)),
            "/healthz": lambda: text_page("ok\n"),
            "/readyz": self._ready_page,
        }

    def _ready_page(self) -> Page:
        if self.ready and not self._admission.closed:
            return text_page("ready\n")
        return text_page("not ready\n", HTTPStatus.SERVICE_UNAVAILABLE)


def _listen(server: grpc.aio.Server, host: str, port: int) -> int:
    try:
        return server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise PenstockError(f"cannot listen on {host}:{port}: is it taken?") from error


async def _serve_pages(pages: Pages, settings: Settings) -> asyncio.Server:
    try:
        return await serve_pages(pages, settings.host, settings.metrics_port)
    except OSError as error:
        where = f"{settings.host}:{settings.metrics_port}"
        raise PenstockError(f"cannot listen on {where}: {error.strerror}") from error


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
