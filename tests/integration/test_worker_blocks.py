"""Real blocks in real processes: what comes back is what the unsplit model gives."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from pathlib import Path

import pytest

from penstock.scheduling.events import BatchFinished, InstanceJoined
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.fleet import fp32, frontend_side, worker_process
from tests.support.repositories import unsplit, write_tiny_model

pytestmark = pytest.mark.e2e

ROWS, WIDTH = 4, 3


async def test_two_stages_in_two_processes_equal_the_unsplit_model(tmp_path: Path) -> None:
    partition = write_tiny_model(tmp_path, blocks=3, width=WIDTH)
    digest = hashlib.sha256((tmp_path / "m/1/blocks.json").read_bytes()).hexdigest()
    first = a_pool("p0", blocks=(0, 2), latencies_us=(30_000,) * ROWS)
    second = a_pool("p1", position=1, blocks=(2, 3), gpu_class="real", latencies_us=(1,) * ROWS)
    model = a_model_plan((first, second))
    plan = a_plan(dataclasses.replace(model, blocks_digest=digest))
    data = struct.pack(f"<{ROWS * WIDTH}f", *(0.5 * each - 2 for each in range(ROWS * WIDTH)))
    async with (
        frontend_side(plan) as side,
        worker_process(side.control, tmp_path, executor="emulated", worker_id="a"),
        worker_process(side.control, tmp_path, executor="cpu", gpu_class="real", worker_id="b"),
    ):
        await side.inbox.count(InstanceJoined, 2)
        for batch, rows in enumerate((ROWS, 1, ROWS)):
            part = data[: 4 * WIDTH * rows]
            side.payloads.inputs = [fp32("t0", rows, WIDTH, part)]
            side.run_batch(batch, "p0/0", "p1/0", samples=rows)
            await side.inbox.count(BatchFinished, batch + 1)
            (output,) = side.payloads.scattered[-1]
            expected = unsplit(tmp_path / "m/1", partition, part, rows)
            assert output.shape == (rows, WIDTH)
            assert bytes(output.data) == expected
        assert side.overruns == []
