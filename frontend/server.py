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

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from frontend import status_page
from frontend.acceptors.couriers import AcceptorCouriers
from frontend.acceptors.reception import AcceptorReception, Office
from frontend.admission import Admission
from frontend.backend import BackendFactory, Hire, Wiring
from frontend.catalogue import Catalogue
from frontend.door import GRACE_S, Door, DoorSettings
from frontend.ingress import Ingress
from frontend.ledger import Ledger
from frontend.local_couriers import LocalCouriers
from frontend.metrics import Metrics
from frontend.pages import Page, Pages, serve_pages, text_page
from frontend.reception import OwnReception, Reception
from frontend.regions import OwnRegistrar, SharedRegions
from frontend.servicer import Desk, SharedMemory
from frontend.settings import Settings
from frontend.statistics import Statistics
from penstock.aio.clock import MonotonicClock
from penstock.aio.driver import Driver
from penstock.domain.errors import PenstockError
from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from penstock.domain.units import Micros, seconds_from_micros
from penstock.policies import batching_policy, routing_policy
from penstock.rpc.oip import ModelSignature
from penstock.rpc.shutdown import bounded
from penstock.scheduling.dispatcher import Dispatcher
from penstock.scheduling.effects import Effect
from penstock.scheduling.events import Event, InstanceJoined, InstanceLost, PlanApplied

Log = Callable[[Micros, Event, Sequence[Effect]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a frontend can be reached, as ``host:port``; ``control`` is empty without workers."""

    inference: str
    metrics: str
    control: str


# A batch costs this process and an instance some tenths of a millisecond, however few its rows.
_GATHER_US = 1_000


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
        counted = (self._metrics,) if settings.metrics else ()
        self._ledger = Ledger((*counted, self._statistics))
        self._extra_log = log
        self._changed = asyncio.Event()
        self._shown = False
        self._start_core(connect)

    def _start_core(self, connect: BackendFactory) -> None:
        settings = self._settings
        self._dispatcher = Dispatcher(
            batching_policy(settings.policy),
            routing_policy(settings.routing),
            settings.limits,
        )
        self._driver = Driver(
            self._dispatcher, self._clock, self._perform, self._log, gather_us=_GATHER_US
        )
        ingress = Ingress()
        hire = self._receive_apart() if settings.acceptors else self._receive_here(ingress)
        self._backend = connect(
            Wiring(
                settings=settings,
                plan=self._plan,
                catalogue=self._catalogue,
                ingress=ingress,
                hire=hire,
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

    def _receive_here(self, ingress: Ingress) -> Hire:
        """Take requests in this process."""
        settings = self._settings
        post, now_us = self._driver.post, self._clock.now_us
        admission = Admission(ingress, post, now_us)
        door_settings = DoorSettings(
            host=settings.host,
            port=settings.port,
            max_message_bytes=settings.max_message_bytes,
            reflection=settings.reflection,
            wire=settings.wire,
        )
        self._reception: Reception
        self._reception = OwnReception(admission, Door(self._desk(admission), door_settings))
        return lambda performer, reply_to: LocalCouriers(performer, ingress, post, now_us, reply_to)

    def _receive_apart(self) -> Hire:
        """Let acceptors take requests."""
        couriers = AcceptorCouriers(self._driver.post)
        office = Office(
            plan=self._plan,
            catalogue=self._catalogue,
            clock_zero_ns=self._clock.zero_ns,
            unready=self._unready,
            emulated=lambda: self._backend.emulated,
            counted=lambda: self._statistics.written(self._signatures()),
            refusals=self._metrics,
            regions=self._regions(),
        )
        self._reception = AcceptorReception(self._settings, office, couriers)
        return couriers.hired_by

    async def start(self) -> Addresses:
        """Apply the plan and open all doors; readiness follows when instances have joined.

        Raises:
            InvalidPlan: the plan cannot be served; no door was opened.
            PenstockError: an address is taken.
        """
        self._driver.post(PlanApplied(self._plan))
        settings = self._settings
        port = await self._reception.listen()
        try:
            self._pages = await _serve_pages(self._page_table(), settings)
            control = await self._backend.start()
            await self._reception.start()
        except PenstockError:
            await self._reception.stop(_at_once())
            raise
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
            self._shown = self.ready
            await self._reception.show(serving=self._shown)
            if self._shown != told:
                told = self._shown
                announce(told)

    async def drain(self, insisted: asyncio.Event) -> int:
        """Stop: finish what was accepted, within the limit, or until somebody insists.

        Returns:
            How many accepted requests were left without an answer.
        """
        settings = self._settings
        reception = self._reception
        await reception.retire()
        if reception.pending or self.ready:
            await bounded(asyncio.sleep(settings.drain_pause_s), settings.drain_pause_s, insisted)
        reception.close()
        await bounded(reception.idle(), settings.drain_limit_s, insisted)
        left = reception.pending
        await reception.stop(insisted)
        await self._backend.stop(0.0 if left else GRACE_S)
        self._driver.close()
        self._pages.close()
        return left

    @property
    def pending(self) -> int:
        """Requests accepted and not answered yet."""
        return self._reception.pending

    @property
    def closed(self) -> bool:
        """Whether new requests are refused."""
        return self._reception.closed

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

    def _signatures(self) -> list[ModelSignature]:
        return [model.signature for model in self._catalogue]

    def _desk(self, admission: Admission) -> Desk:
        return Desk(
            catalogue=self._catalogue,
            admission=admission,
            statistics=self._statistics,
            metrics=self._metrics,
            unready=self._unready,
            emulated=lambda: self._backend.emulated,
            queue_samples=self._settings.queue_samples,
            stream_requests=self._settings.stream_requests,
            shared_memory=self._shared_memory(),
        )

    def _shared_memory(self) -> SharedMemory | None:
        regions = self._regions()
        if regions is None:
            return None
        return SharedMemory(regions=regions, registrar=OwnRegistrar(regions))

    def _regions(self) -> SharedRegions | None:
        settings = self._settings
        if not settings.regions:
            return None
        return SharedRegions(settings.regions, settings.max_message_bytes)

    def _page_table(self) -> Pages:
        sources = status_page.StatusSources(
            models=list(self._catalogue),
            ledger=self._ledger,
            statistics=self._statistics,
            unready=self._unready,
            waiting=self._dispatcher.waiting_samples,
            workers=self._backend.workers,
            links=self._backend.links,
            emulated=lambda: self._backend.emulated,
            draining=lambda: self._reception.closed,
            uptime_s=lambda: seconds_from_micros(self._clock.now_us()),
        )
        metrics: Pages = {
            "/metrics": lambda: Page(CONTENT_TYPE_LATEST, generate_latest(self._registry))
        }
        return {
            "/": lambda: Page("text/html; charset=utf-8", status_page.as_html(sources).encode()),
            "/status.json": lambda: Page("application/json", status_page.as_json(sources).encode()),
            **(metrics if self._settings.metrics else {}),
            "/healthz": lambda: text_page("ok\n"),
            "/readyz": self._ready_page,
        }

    def _ready_page(self) -> Page:
        if self.ready and self._shown and not self._reception.closed:
            return text_page("ready\n")
        return text_page("not ready\n", HTTPStatus.SERVICE_UNAVAILABLE)


async def _serve_pages(pages: Pages, settings: Settings) -> asyncio.Server:
    try:
        return await serve_pages(pages, settings.host, settings.metrics_port)
    except OSError as error:
        where = f"{settings.host}:{settings.metrics_port}"
        raise PenstockError(f"cannot listen on {where}: {error.strerror}") from error


def _at_once() -> asyncio.Event:
    """Return an event that was set already."""
    event = asyncio.Event()
    event.set()
    return event


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
