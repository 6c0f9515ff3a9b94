"""A fleet whose frontend has acceptors, and connections that are spread over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import numpy as np

from launcher.local import FleetSettings, LocalFleet
from penstock.domain.plan import Plan
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.support.fleets import START_LIMIT_S, RunningFleet, descendants, still_alive

ACCEPTORS = 2
CONNECTIONS = 16
# Each channel has a connection of its own, so that the system spreads them over the acceptors.
APART = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


@contextmanager
def running(settings: FleetSettings, plan: Plan) -> Iterator[RunningFleet]:
    with LocalFleet(replace(settings, acceptors=ACCEPTORS), plan) as fleet:
        yield RunningFleet(fleet=fleet, addresses=fleet.start(START_LIMIT_S), plan=plan)


@asynccontextmanager
async def stubs(address: str) -> AsyncIterator[list[Any]]:  # generated without types
    """Open connections."""
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=APART))
            for _ in range(CONNECTIONS)
        ]
        yield [GRPCInferenceServiceStub(each) for each in channels]


def asked(rows: np.ndarray) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[rows.tobytes()])
    request.inputs.add(name="t0", datatype="FP32", shape=rows.shape)
    return request


def acceptors_of(fleet: RunningFleet) -> set[int]:
    return still_alive(descendants(fleet.fleet.process_ids["frontend"]))


async def returned(fleet: RunningFleet, before: set[int], limit_s: float = 20.0) -> None:
    """Return when there are as many acceptors as before, one of them another."""
    async with asyncio.timeout(limit_s):
        while len(now := acceptors_of(fleet)) < len(before) or now == before:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.05)
