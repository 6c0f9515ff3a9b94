"""A frontend with a loop-back backend, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from frontend.backend import Wiring
from frontend.catalogue import Catalogue, CatalogueModel
from frontend.server import Addresses, Frontend, Log
from frontend.settings import Settings
from penstock.domain.blocks import TensorSpec
from penstock.domain.ids import ModelName
from penstock.domain.plan import ModelPlan
from penstock.rpc.oip import ModelSignature
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.loopback import LoopbackBackend

ECHO = ModelName("echo")
PAIR = ModelName("pair")


def echo_signature() -> ModelSignature:
    """Return a model whose one output is its one input."""
    return ModelSignature(
        name=ECHO,
        version="1",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),),
    )


def pair_signature() -> ModelSignature:
    """Return a model of two inputs and two outputs."""
    return ModelSignature(
        name=PAIR,
        version="3",
        inputs=(
            TensorSpec(name="ids", datatype="INT64", shape=(-1, 2, 3)),
            TensorSpec(name="mask", datatype="UINT8", shape=(-1, 5)),
        ),
        outputs=(
            TensorSpec(name="first", datatype="INT64", shape=(-1, 2, 3)),
            TensorSpec(name="second", datatype="UINT8", shape=(-1, 5)),
        ),
    )


def two_stage_plan(model: ModelName, slo_us: int = 2_000_000) -> ModelPlan:
    """Return a plan of two pools with quick stages."""
    pools = (
        a_pool(f"{model}.slow", blocks=(0, 1), gpu_class="slow", latencies_us=(500,) * 4),
        a_pool(f"{model}.fast", position=1, blocks=(1, 2), latencies_us=(500,) * 4, instances=2),
    )
    return a_model_plan(pools, model=model, slo_us=slo_us)


def a_catalogue(slo_us: int = 2_000_000) -> Catalogue:
    return Catalogue(
        CatalogueModel(signature=each, plan=two_stage_plan(each.name, slo_us))
        for each in (echo_signature(), pair_signature())
    )


def some_settings(**changes: object) -> Settings:
    chosen: dict[str, object] = {
        "plan": Path("plan.json"),
        "repository": Path("models"),
        "port": 0,
        "metrics_port": 0,
        "control_port": 0,
        "drain_pause_s": 0.0,
        "drain_limit_s": 5.0,
        **changes,
    }
    return Settings(**chosen)  # type: ignore[arg-type]  # values of many types by name


@dataclass(slots=True, kw_only=True)
class Running:
    """A frontend in this process, with a channel to it."""

    frontend: Frontend
    backend: LoopbackBackend
    addresses: Addresses
    channel: grpc.aio.Channel
    readiness: Sequence[bool]


@asynccontextmanager
async def a_running_frontend(
    catalogue: Catalogue | None = None, *, log: Log | None = None, **changes: object
) -> AsyncIterator[Running]:
    """Run a frontend until the block ends.

    Args:
        catalogue: what it serves.
        log: told every event and effect.
        changes: settings; those of `LoopbackBackend` by their own names.
    """
    knobs = {name: changes.pop(name) for name in ("join", "delay_s", "hold") if name in changes}
    catalogue = catalogue or a_catalogue()
    backends: list[LoopbackBackend] = []

    def connect(wiring: Wiring) -> LoopbackBackend:
        backends.append(LoopbackBackend(wiring, **knobs))  # type: ignore[arg-type]  # by name
        return backends[0]

    plan = a_plan(*(model.plan for model in catalogue))
    frontend = Frontend(some_settings(**changes), plan, catalogue, connect, log)
    addresses = await frontend.start()
    readiness: list[bool] = []
    watch = asyncio.create_task(frontend.watch_readiness(readiness.append))
    try:
        async with grpc.aio.insecure_channel(addresses.inference) as channel:
            yield Running(
                frontend=frontend,
                backend=backends[0],
                addresses=addresses,
                channel=channel,
                readiness=readiness,
            )
    finally:
        watch.cancel()
        hurry = asyncio.Event()
        if backends[0].hold:
            hurry.set()
        await frontend.drain(hurry)


async def eventually(condition: Callable[[], bool]) -> None:
    """Let the loop run until something has happened."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is awaited sets no event
            await asyncio.sleep(0.001)
