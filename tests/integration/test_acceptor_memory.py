"""Shared memory of clients at a frontend with acceptors: whoever is asked knows the same."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest

from protos import inference_pb2 as pb
from tests.support.acceptors import (
    ACCEPTORS,
    CONNECTIONS,
    acceptors_of,
    asked,
    returned,
    running,
    stubs,
)
from tests.support.fleets import WIDTH, RunningFleet, write_fleet

pytestmark = pytest.mark.e2e

ROW_BYTES = WIDTH * 4
OBJECT_BYTES = 2 * CONNECTIONS * ROW_BYTES  # the inputs of all connections, then their outputs


@pytest.fixture
def shared() -> Iterator[Path]:
    """Have an object whose inputs are numbers."""
    path = Path("/dev/shm") / f"penstock-test-acceptors-{os.getpid()}"
    numbers = np.arange(CONNECTIONS * WIDTH, dtype="<f4") / 100
    path.write_bytes(numbers.tobytes() + bytes(CONNECTIONS * ROW_BYTES))
    yield path
    path.unlink(missing_ok=True)


async def registered(stub: Any, name: str, key: str, size: int = OBJECT_BYTES) -> str:
    request = pb.SystemSharedMemoryRegisterRequest(name=name, key=key, byte_size=size)
    return await status_of(stub.SystemSharedMemoryRegister(request))


async def unregistered(stub: Any, name: str) -> str:
    request = pb.SystemSharedMemoryUnregisterRequest(name=name)
    return await status_of(stub.SystemSharedMemoryUnregister(request))


async def status_of(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def listed(them: Sequence[Any]) -> list[dict[str, str]]:
    """Return every connection's regions with their keys."""
    request = pb.SystemSharedMemoryStatusRequest()
    calls = (each.SystemSharedMemoryStatus(request, wait_for_ready=True) for each in them)
    told = await asyncio.gather(*calls)
    return [{name: each.key for name, each in one.regions.items()} for one in told]


def in_memory(region: str, number: int, size: int = ROW_BYTES) -> pb.ModelInferRequest:
    """Return a request whose row lies at a connection's place, and whose answer goes there."""
    request = asked(np.zeros((1, WIDTH), "<f4"))
    del request.raw_input_contents[:]
    request.outputs.add(name="t2")
    for tensor, place in ((request.inputs[0], number), (request.outputs[0], CONNECTIONS + number)):
        tensor.parameters["shared_memory_region"].string_param = region
        tensor.parameters["shared_memory_byte_size"].int64_param = size
        tensor.parameters["shared_memory_offset"].int64_param = place * ROW_BYTES
    return request


async def answers_lie_there(them: Sequence[Any], region: str, file: int) -> None:
    """Check that each connection's answer is in memory, equal to the one in a message."""
    rows = np.frombuffer(os.pread(file, CONNECTIONS * ROW_BYTES, 0), "<f4").reshape(-1, 1, WIDTH)
    os.pwrite(file, bytes(CONNECTIONS * ROW_BYTES), CONNECTIONS * ROW_BYTES)
    plain = [each.ModelInfer(asked(row)) for each, row in zip(them, rows, strict=True)]
    expected = b"".join([(await each).raw_output_contents[0] for each in plain])
    calls = [each.ModelInfer(in_memory(region, number)) for number, each in enumerate(them)]
    assert [list((await each).raw_output_contents) for each in calls] == [[b""]] * CONNECTIONS
    found = os.pread(file, CONNECTIONS * ROW_BYTES, CONNECTIONS * ROW_BYTES)
    there, sent = (np.frombuffer(each, "<f4") for each in (found, expected))
    np.testing.assert_allclose(there, sent, rtol=1e-5, atol=1e-6)


def holders(fleet: RunningFleet, path: Path) -> Counter[int]:
    """Return which of the frontend's processes have the object open, and how often."""
    frontend = fleet.fleet.process_ids["frontend"]
    files = (
        (process, file)
        for process in (frontend, *acceptors_of(fleet))
        for file in Path(f"/proc/{process}/fd").iterdir()
    )
    return Counter(process for process, file in files if str(path) in os.path.realpath(file))


async def until_held_by(count: int, fleet: RunningFleet, path: Path) -> None:
    """Return when so many of the frontend's processes have the object open."""
    async with asyncio.timeout(20):
        while len(holders(fleet, path)) != count:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.05)


def test_what_one_acceptor_is_told_all_know_and_those_that_come_after_it(
    tmp_path: Path, shared: Path
) -> None:
    settings, plan = write_fleet(tmp_path)
    file = os.open(shared, os.O_RDWR)

    async def play(fleet: RunningFleet) -> None:
        async with stubs(fleet.addresses.inference) as them:
            for number in range(4):  # from any connection to any other, at once
                name = f"r{number}"
                assert await registered(them[number], name, shared.name) == "OK"
                last = {f"r{each}": shared.name for each in range(number + 1)}
                assert await listed(them) == [last] * CONNECTIONS
            await answers_lie_there(them, "r3", file)
            assert await unregistered(them[-1], "r0") == "OK"
            assert all("r0" not in each for each in await listed(them))
            os.unlink(shared)
            before = acceptors_of(fleet)
            for each in before:
                os.kill(each, signal.SIGKILL)
            await returned(fleet, before)
        async with stubs(fleet.addresses.inference) as them:
            left = dict.fromkeys(("r1", "r2", "r3"), shared.name)
            assert await listed(them) == [left] * CONNECTIONS
            await answers_lie_there(them, "r3", file)
            await until_held_by(1 + ACCEPTORS, fleet, shared)
            assert await unregistered(them[0], "") == "OK"
            assert await listed(them) == [{}] * CONNECTIONS
            refused = [each.ModelInfer(in_memory("r3", number)) for number, each in enumerate(them)]
            assert {await status_of(each) for each in refused} == {"NOT_FOUND"}

            await until_held_by(0, fleet, shared)

    with running(settings, plan) as fleet:
        asyncio.run(play(fleet))
    os.close(file)


def test_wrong_regions_and_places_are_refused_by_all_and_change_nothing(
    tmp_path: Path, shared: Path
) -> None:
    settings, plan = write_fleet(tmp_path)

    async def play(fleet: RunningFleet) -> None:
        async with stubs(fleet.addresses.inference) as them:
            taken = await asyncio.gather(*(registered(each, "r", shared.name) for each in them))
            assert Counter(taken) == {"OK": 1, "INVALID_ARGUMENT": CONNECTIONS - 1}
            for each in them[:4]:
                assert await registered(each, "r", "another") == "INVALID_ARGUMENT"
                assert await registered(each, "s", "vanished") == "INVALID_ARGUMENT"
                assert await registered(each, "s", "../passwd") == "INVALID_ARGUMENT"
                assert await registered(each, "s", shared.name, 1 << 60) == "INVALID_ARGUMENT"
                assert await unregistered(each, "never there") == "OK"
            assert await listed(them) == [{"r": shared.name}] * CONNECTIONS
            beyond = [each.ModelInfer(in_memory("r", 2 * CONNECTIONS)) for each in them]
            assert {await status_of(each) for each in beyond} == {"INVALID_ARGUMENT"}
            unknown = [each.ModelInfer(in_memory("s", 0)) for each in them]
            assert {await status_of(each) for each in unknown} == {"NOT_FOUND"}
            os.truncate(shared, ROW_BYTES)
            cut = [each.ModelInfer(in_memory("r", 1)) for each in them]
            assert {await status_of(each) for each in cut} == {"INVALID_ARGUMENT"}
            os.unlink(shared)
            assert await registered(them[0], "s", shared.name) == "INVALID_ARGUMENT"
            plain = [each.ModelInfer(asked(np.zeros((1, WIDTH), "<f4"))) for each in them]
            assert {await status_of(each) for each in plain} == {"OK"}

    with running(settings, plan) as fleet:
        asyncio.run(play(fleet))
