"""The port behind which batches are computed: workers in production, a stand-in in tests.

Knows nothing of who stands behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from frontend.catalogue import Catalogue
from frontend.ingress import Ingress
from frontend.link_lines import LinkLine
from frontend.performer import Couriers, Performer
from frontend.settings import Settings
from penstock.domain.ids import PoolId
from penstock.domain.plan import Plan
from penstock.domain.units import Micros
from penstock.scheduling.effects import Effect
from penstock.scheduling.events import Event

Hire: TypeAlias = Callable[[Performer, str], Couriers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What a backend may use of the frontend.

    Attributes:
        ingress: the open requests of this process; none with acceptors.
        hire: returns those who carry rows for a performer, whose instances send results to a
            host:port.
        post: hands an event to the dispatcher.
        now_us: the dispatcher's clock.
        overran: counts a stage that was slower than the device it emulates.
    """

    settings: Settings
    plan: Plan
    catalogue: Catalogue
    ingress: Ingress
    hire: Hire
    post: Callable[[Event], None]
    now_us: Callable[[], Micros]
    overran: Callable[[PoolId, Micros], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLine:
    """A worker, for the status page.

    Attributes:
        share: how its instances share the device.
    """

    worker: str
    gpu_class: str
    server: str
    executor: str
    device: str
    instances: tuple[str, ...]
    share: str = ""


class Backend(Protocol):
    """Performs the dispatcher's effects."""

    @property
    def emulated(self) -> bool:
        """Whether some device is emulated."""
        ...

    def perform(self, effect: Effect) -> None:
        """Do what the dispatcher asks for, without waiting; tell the ingress of every end."""
        ...

    def workers(self) -> Sequence[WorkerLine]:
        """Return the workers attached now."""
        ...

    def links(self) -> Sequence[LinkLine]:
        """Return the links that are open now."""
        ...

    async def start(self) -> str:
        """Open for workers; return the address they attach to, or nothing if there is none."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Close all links; called when no batch is under way any more, or time is up."""
        ...


BackendFactory: TypeAlias = Callable[[Wiring], Backend]
