"""Execution options from a plan to a real worker and back: how it computes, or why it does not."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import struct
from pathlib import Path

import pytest

from frontend.membership import InstanceState, InstanceStatus
from penstock.domain.execution import ExecutionOptions
from penstock.domain.plan import Plan
from penstock.scheduling.events import BatchFinished, InstanceJoined
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.fleet import FrontendSide, fp32, frontend_side, worker_process
from tests.support.repositories import unsplit, write_tiny_model

pytestmark = pytest.mark.e2e

ROWS, WIDTH = 2, 3


def a_plan_with(repository: Path, options: ExecutionOptions) -> Plan:
    digest = hashlib.sha256((repository / "m/1/blocks.json").read_bytes()).hexdigest()
    model = a_model_plan((a_pool("p0", blocks=(0, 2), latencies_us=(1_000,) * ROWS),))
    return a_plan(dataclasses.replace(model, blocks_digest=digest, execution=options))


def instance_of(side: FrontendSide) -> InstanceStatus | None:
    instances = [each for worker in side.membership.snapshot() for each in worker.instances]
    return instances[0] if instances else None


async def test_a_worker_computes_as_planned_and_says_how_far_off(tmp_path: Path) -> None:
    partition = write_tiny_model(tmp_path, blocks=2, width=WIDTH)
    plan = a_plan_with(tmp_path, ExecutionOptions(precision="bf16"))
    data = struct.pack(f"<{ROWS * WIDTH}f", *(0.5 * each - 1 for each in range(ROWS * WIDTH)))
    async with frontend_side(plan) as side, worker_process(side.control, tmp_path, executor="cpu"):
        await side.inbox.count(InstanceJoined)
        status = instance_of(side)
        assert status is not None
        assert status.computation.startswith("eager, plain, bf16, contiguous, error max ")
        side.payloads.inputs = [fp32("t0", ROWS, WIDTH, data)]
        side.run_batch(0, "p0/0", samples=ROWS)
        await side.inbox.count(BatchFinished)
        (output,) = side.payloads.scattered[-1]
        assert output.datatype == "FP32"
        found = struct.unpack(f"<{ROWS * WIDTH}f", output.data)
        expected = struct.unpack(
            f"<{ROWS * WIDTH}f", unsplit(tmp_path / "m/1", partition, data, ROWS)
        )
        assert found == pytest.approx(expected, rel=0.1, abs=0.1)
        assert found != expected


async def test_a_stage_that_is_too_inexact_is_not_served_and_the_worker_lives(
    tmp_path: Path,
) -> None:
    write_tiny_model(tmp_path, blocks=2, width=WIDTH)
    plan = a_plan_with(tmp_path, ExecutionOptions(precision="bf16", max_error=1e-9))
    async with frontend_side(plan) as side, worker_process(side.control, tmp_path, executor="cpu"):
        async with asyncio.timeout(30):
            while True:
                status = instance_of(side)
                if status is not None and status.state is InstanceState.FAILED:
                    break
                await asyncio.sleep(0.02)
        assert "bf16 differs from the model as exported by" in status.detail
        assert "max_error allows 1e-09" in status.detail
        assert len(side.membership.snapshot()) == 1
        assert not side.inbox.of(InstanceJoined)
