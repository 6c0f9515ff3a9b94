"""A pipeline whose stages differ in batch size, served by real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc.aio
import numpy as np
import pytest

from client.inputs import random_inputs
from client.load import LoadSettings, Target, run_load
from client.outcomes import OK, LoadResult
from launcher.local import FleetSettings, LocalFleet
from penstock.arrivals import constant
from penstock.domain.arrivals import Arrival
from penstock.domain.blocks import TensorSpec
from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from penstock.formats.plans import write_plan
from penstock.formats.runlog import LogEntry, read_run_log
from penstock.scheduling.effects import PartHop, RunBatch
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.support.builders import MODEL
from tests.support.fleets import START_LIMIT_S, RunningFleet, descendants
from tests.support.repositories import unsplit, write_shapes_model, write_tiny_model
from tests.support.uneven import an_uneven_plan

pytestmark = pytest.mark.e2e

BATCHES, WIDTH = (4, 2, 4), 3


@contextmanager
def running(directory: Path, plan: Plan, executor: str) -> Iterator[RunningFleet]:
    file = directory / "plan.json"
    file.write_text(write_plan(plan), encoding="utf-8")
    settings = FleetSettings(
        plan=file,
        repository=directory / "models",
        executor=executor,
        logs=directory / "logs",
        run_log=directory / "run.jsonl",
    )
    with LocalFleet(settings, plan) as fleet:
        yield RunningFleet(fleet=fleet, addresses=fleet.start(START_LIMIT_S), plan=plan)


def log_of(directory: Path) -> list[LogEntry]:
    return list(read_run_log((directory / "run.jsonl").read_text().splitlines(), "run.jsonl"))


def cuts_of(entries: list[LogEntry]) -> set[tuple[int, ...]]:
    """Return how batches were cut: for each stage, how many parts it ran them in."""
    runs = [
        [hop.stage for hop in effect.route if isinstance(hop, PartHop)]
        for entry in entries
        for effect in entry.effects
        if isinstance(effect, RunBatch)
    ]
    return {tuple(stages.count(each) for each in sorted(set(stages))) for stages in runs}


def test_what_comes_back_is_what_the_unsplit_model_gives(tmp_path: Path) -> None:
    partition = write_tiny_model(tmp_path / "models", blocks=3, width=WIDTH)
    plan = an_uneven_plan(BATCHES, (1, 2, 1), hop_us=1_000, slo_us=3_000_000)
    sizes = [4, 1, 7, 3, 2, 4, 5, 6]
    dice = np.random.default_rng(0)
    inputs = [dice.normal(size=(size, WIDTH)).astype("<f4") for size in sizes]

    async def infer(address: str) -> list[np.ndarray]:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = GRPCInferenceServiceStub(channel)
            answers = await asyncio.gather(*(stub.ModelInfer(asked(rows)) for rows in inputs))
        return [
            np.frombuffer(each.raw_output_contents[0], "<f4").reshape(-1, WIDTH) for each in answers
        ]

    with running(tmp_path, plan, "emulated") as fleet:
        found = [asyncio.run(infer(fleet.addresses.inference)) for _ in range(2)]
    for outputs in found:
        for rows, output in zip(inputs, outputs, strict=True):
            data = unsplit(tmp_path / "models/m/1", partition, rows.tobytes(), len(rows))
            expected = np.frombuffer(data, "<f4").reshape(-1, WIDTH)
            np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    assert (1, 2, 1) in cuts_of(log_of(tmp_path))


def asked(rows: np.ndarray) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[rows.tobytes()])
    request.inputs.add(name="t0", datatype="FP32", shape=rows.shape)
    return request


def test_a_process_killed_in_mid_batch_loses_no_request(tmp_path: Path) -> None:
    digest = write_shapes_model(tmp_path / "models", blocks=3, width=WIDTH)
    plan = an_uneven_plan(BATCHES, (1, 2, 1), hop_us=1_000, slo_us=1_500_000, digest=digest)
    spec = TensorSpec(name="t0", datatype="FP32", shape=(-1, WIDTH))

    async def play(fleet: RunningFleet) -> LoadResult:
        arrivals = tuple(
            Arrival(arrival_us=at_us, model=MODEL, samples=4) for at_us in constant(25.0, 3_000_000)
        )
        target = Target(inputs=random_inputs((spec,), 0), slo_us=plan.models[0].slo_us)
        settings = LoadSettings(
            address=fleet.addresses.inference,
            arrivals=arrivals,
            targets={ModelName("m"): target},
            duration_us=3_000_000,
        )
        async with asyncio.TaskGroup() as group:
            under_way = group.create_task(run_load(settings))
            await asyncio.sleep(1.2)
            os.kill(second_stage(fleet), signal.SIGKILL)
        return under_way.result()

    with running(tmp_path, plan, "emulated-shapes") as fleet:
        outcomes = asyncio.run(play(fleet)).outcomes
    assert {each.status for each in outcomes} == {OK}
    kinds = [type(entry.event).__name__ for entry in log_of(tmp_path)]
    assert "InstanceLost" in kinds


def second_stage(fleet: RunningFleet) -> int:
    """Return the process of an instance of the second stage."""
    with urllib.request.urlopen(f"http://{fleet.addresses.metrics}/status.json") as answer:
        workers = json.load(answer)["workers"]
    (worker, *_) = [each["worker"] for each in workers if "p1/" in str(each["instances"])]
    (instance,) = descendants(fleet.fleet.process_ids[f"worker-{worker}"])
    return instance
