"""A frontend with acceptors, as real processes: right answers, once each, whoever dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from launcher.local import FleetSettings, read_counter
from penstock.domain.blocks import BlockPartition
from penstock.formats.plans import write_plan
from penstock.formats.runlog import read_run_log
from penstock.scheduling.effects import PartHop, RunBatch
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.support.acceptors import (
    ACCEPTORS,
    APART,
    CONNECTIONS,
    acceptors_of,
    asked,
    returned,
    running,
    stubs,
)
from tests.support.fleet import worker_process
from tests.support.fleets import (
    WIDTH,
    RunningFleet,
    descendants,
    still_alive,
    write_fleet,
)
from tests.support.processes import ROOT
from tests.support.repositories import unsplit, write_tiny_model
from tests.support.uneven import an_uneven_plan

pytestmark = pytest.mark.e2e


async def infer(stub: Any, samples: int = 1) -> str:
    """Ask once; return the status."""
    try:
        answer = await stub.ModelInfer(asked(np.zeros((samples, WIDTH), "<f4")))
    except grpc.aio.AioRpcError as error:
        return error.code().name
    assert list(answer.outputs[0].shape) == [samples, WIDTH]
    return "OK"


@dataclass(slots=True)
class Load:
    """Connections that each ask again as soon as they are answered, until told to stop."""

    stubs: Sequence[Any]
    stopped: bool = False

    async def run(self) -> list[Counter[str]]:
        """Return how often each connection got which status."""
        return list(await asyncio.gather(*(self._ask(each) for each in self.stubs)))

    async def _ask(self, stub: Any) -> Counter[str]:
        ends: Counter[str] = Counter()
        while not self.stopped:
            ends[await infer(stub, samples=1 + sum(ends.values()) % 3)] += 1
        return ends


def test_every_request_of_many_connections_gets_its_own_rows_back(tmp_path: Path) -> None:
    partition = write_tiny_model(tmp_path / "models", blocks=2, width=WIDTH)
    plan = an_uneven_plan((4, 2), (1, 1), hop_us=1_000, slo_us=5_000_000)
    file = tmp_path / "plan.json"
    file.write_text(write_plan(plan), encoding="utf-8")
    settings = FleetSettings(
        plan=file,
        repository=tmp_path / "models",
        executor="emulated",
        logs=tmp_path / "logs",
        run_log=tmp_path / "run.jsonl",
    )
    dice = np.random.default_rng(0)
    inputs = [dice.normal(size=(1 + number % 6, WIDTH)).astype("<f4") for number in range(96)]

    async def ask(address: str) -> tuple[list[np.ndarray], int]:
        async with stubs(address) as them:
            calls = [them[n % CONNECTIONS].ModelInfer(asked(r)) for n, r in enumerate(inputs)]
            answers = await asyncio.gather(*calls)
            counted = await them[0].ModelStatistics(pb.ModelStatisticsRequest(name="m"))
        arrays = [np.frombuffer(a.raw_output_contents[0], "<f4") for a in answers]
        return arrays, counted.model_stats[0].inference_stats.success.count

    with running(settings, plan) as fleet:
        outputs, counted = asyncio.run(ask(fleet.addresses.inference))
        answered = read_counter(fleet.addresses.metrics, "penstock_requests_total")
        assert fleet.fleet.process_ids["frontend"] not in acceptors_of(fleet)
    found = np.concatenate([each.reshape(-1, WIDTH) for each in outputs])
    expected = given_whole(tmp_path / "models/m/1", partition, np.concatenate(inputs))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (counted, answered) == (len(inputs), len(inputs))
    assert mixed_batches(tmp_path / "run.jsonl") > 0


def given_whole(directory: Path, partition: BlockPartition, rows: np.ndarray) -> np.ndarray:
    """Return what the unsplit model makes of some rows; it takes 64 at once."""
    pieces = [rows[first : first + 64] for first in range(0, len(rows), 64)]
    data = b"".join(unsplit(directory, partition, each.tobytes(), len(each)) for each in pieces)
    return np.frombuffer(data, "<f4").reshape(-1, WIDTH)


def mixed_batches(log: Path) -> int:
    """Return how many batches of several requests ran in parts."""
    effects = (
        effect
        for entry in read_run_log(log.read_text().splitlines(), str(log))
        for effect in entry.effects
    )
    return sum(
        isinstance(each, RunBatch) and len(each.slices) > 1 and isinstance(each.route[0], PartHop)
        for each in effects
    )


def test_a_killed_acceptor_takes_its_own_connections_with_it_and_comes_back(
    tmp_path: Path,
) -> None:
    settings, plan = write_fleet(tmp_path)

    async def play(fleet: RunningFleet) -> tuple[list[Counter[str]], list[str]]:
        before = acceptors_of(fleet)
        assert len(before) == ACCEPTORS
        async with stubs(fleet.addresses.inference) as them:
            load = Load(them)
            async with asyncio.TaskGroup() as group:
                under_way = group.create_task(load.run())
                await asyncio.sleep(0.7)
                os.kill(min(before), signal.SIGKILL)
                await returned(fleet, before)
                await asyncio.sleep(0.7)
                load.stopped = True
            return under_way.result(), [await infer(each) for each in them]

    with running(settings, plan) as fleet:
        ends, after = asyncio.run(play(fleet))
        in_flight = read_counter(fleet.addresses.metrics, "penstock_requests_in_flight")
    untouched = [each for each in ends if set(each) == {"OK"}]
    hurt = [each for each in ends if set(each) != {"OK"}]
    assert untouched
    assert hurt
    assert all(set(each) == {"OK", "UNAVAILABLE"} for each in hurt)
    assert set(after) == {"OK"}
    assert in_flight == 0


def test_a_drain_tells_every_acceptor_and_loses_nothing(tmp_path: Path) -> None:
    settings, plan = write_fleet(tmp_path)

    async def play(fleet: RunningFleet) -> list[Counter[str]]:
        async with stubs(fleet.addresses.inference) as them:
            load = Load(them)
            async with asyncio.TaskGroup() as group:
                under_way = group.create_task(load.run())
                await asyncio.sleep(0.7)
                os.kill(fleet.fleet.process_ids["frontend"], signal.SIGTERM)
                await asyncio.sleep(1.0)
                load.stopped = True
        return under_way.result()

    with running(settings, plan) as fleet:
        below = acceptors_of(fleet)
        ends = asyncio.run(play(fleet))
        fleet.fleet.stop()
    said = (settings.logs / "frontend.log").read_text()
    assert '{"event": "stopped", "unanswered": "0"}' in said
    # Refused or not listened to any more is no loss. gRPC cancels what it had not handed over.
    assert {status for each in ends for status in each} <= {"OK", "UNAVAILABLE", "CANCELLED"}
    assert all(each["OK"] for each in ends)
    assert still_alive(below) == set()
    assert answered_in(tmp_path / "run.jsonl") == sum(each["OK"] for each in ends)


def answered_in(log: Path) -> int:
    lines = log.read_text().splitlines()
    return sum(line.count('"CompleteRequest"') for line in lines)


async def test_health_says_no_at_every_acceptor_before_anything_is_refused(tmp_path: Path) -> None:
    settings, _ = write_fleet(tmp_path)
    serving = health_pb2.HealthCheckResponse.SERVING
    not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
    with a_frontend(settings, "--drain-pause-s", "2") as (process, told):
        async with AsyncExitStack() as stack:
            address = told["inference"]
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(address, options=APART))
                for _ in range(CONNECTIONS)
            ]
            stub = GRPCInferenceServiceStub(channels[0])
            assert await healths(channels) == {not_serving}
            assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
            assert await infer(stub) == "UNAVAILABLE"
            for number, gpu_class in enumerate(("fast", "slow", "slow")):
                worker = worker_process(
                    told["control"],
                    settings.repository,
                    gpu_class=gpu_class,
                    worker_id=str(number),
                )
                await stack.enter_async_context(worker)
            await asyncio.to_thread(event_of, process, "ready")
            await until_healths_are(channels, {serving})  # acceptors hear of it a moment later
            assert await infer(stub) == "OK"
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(event_of, process, "draining")
            await until_healths_are(channels, {not_serving})
            assert await infer(stub) == "OK"
            assert await asyncio.to_thread(process.wait, 20) == 0


async def until_healths_are(channels: Sequence[grpc.aio.Channel], wanted: set[int]) -> None:
    async with asyncio.timeout(1):
        while await healths(channels) != wanted:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


async def healths(channels: Sequence[grpc.aio.Channel]) -> set[int]:
    stubs = [health_pb2_grpc.HealthStub(each) for each in channels]
    return {(await each.Check(health_pb2.HealthCheckRequest())).status for each in stubs}


def event_of(process: subprocess.Popen[str], wanted: str) -> dict[str, str]:
    """Read what a frontend says until it tells of an event, or ends."""
    assert process.stdout is not None
    told: dict[str, str] = {}
    for line in process.stdout:
        told = json.loads(line)
        if told["event"] == wanted:
            break
    return told


@contextmanager
def a_frontend(
    settings: FleetSettings, *options: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run a frontend without workers; yield what it says of its addresses, if it says so."""
    command = [
        sys.executable, "-m", "frontend", "--json", "--acceptors", str(ACCEPTORS),
        "--plan", str(settings.plan), "--repository", str(settings.repository),
        "--port", "0", "--metrics-port", "0", "--control-port", "0", *options,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process, event_of(process, "listening")
    finally:
        process.kill()
        process.communicate()


def test_acceptors_do_not_outlive_their_frontend(tmp_path: Path) -> None:
    settings, _ = write_fleet(tmp_path)
    with a_frontend(settings) as (process, told):
        below = descendants(process.pid)
        assert len(below) == ACCEPTORS
        assert "inference" in told
        process.kill()
        process.wait()
        until_s = time.monotonic() + 5
        while still_alive(below) and time.monotonic() < until_s:
            time.sleep(0.02)
        assert still_alive(below) == set()


@pytest.mark.parametrize("shares", [False, True])
def test_a_port_that_is_taken_is_one_clear_error(tmp_path: Path, shares: bool) -> None:
    settings, _ = write_fleet(tmp_path)
    with socket.socket() as foreign:
        foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        port = foreign.getsockname()[1]
        with a_frontend(settings, "--port", str(port)) as (process, told):
            assert process.wait(20) == 1
            assert told["event"] == "settings"
            assert process.stderr is not None
            said = process.stderr.read().strip()
    assert said.endswith(f"cannot listen on 127.0.0.1:{port}: is it taken?")
    assert "\n" not in said


def test_an_unmodified_tritonclient_is_served(tmp_path: Path) -> None:
    settings, plan = write_fleet(tmp_path)
    with running(settings, plan) as fleet:
        command = [sys.executable, "-m", "tests.e2e.triton_checks", fleet.addresses.inference, "m"]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        with urllib.request.urlopen(f"http://{fleet.addresses.metrics}/metrics") as page:
            assert 'penstock_requests_refused_total{status="NOT_FOUND"}' in page.read().decode()
    results: dict[str, str] = json.loads(done.stdout)
    assert set(results.values()) == {"ok"}, results
