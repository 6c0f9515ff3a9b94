"""Two stages in processes of their own hand tensors over on one device.

The device is played; the last test needs a real one, and is skipped without.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from penstock.domain.blocks import BlockPartition
from penstock.domain.execution import ExecutionOptions
from penstock.rpc.frames import announce
from penstock.rpc.links import FRONTEND, LinkReceiver, LinkSender, LinkServer
from penstock.shares.base import ShareOrder
from protos.link_pb2 import FrameHeader, Hop, RunStage, StageReport
from tests.support.link_processes import ROOT, line_of
from tests.support.repositories import unsplit, write_tiny_model
from tests.unit.worker.test_settings import instance_settings
from worker.settings import InstanceSettings
from worker.stages import StageOrder

pytestmark = pytest.mark.e2e

WIDTH, BATCH = 512, 4
LOAD_LIMIT_S = 60  # torch is slow to import where others keep the processor busy
PLAYED, REAL = "tests.support.played_instance", "worker.process"
_WHERE = ("stage", "first", "count")
ROW_BYTES = WIDTH * 4


@dataclass(frozen=True)
class Model:
    repository: Path
    partition: BlockPartition

    def scores_of(self, rows: np.ndarray) -> np.ndarray:
        data = unsplit(self.repository / "m/1", self.partition, rows.tobytes(), len(rows))
        return np.frombuffer(data, np.float32).reshape(rows.shape)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    repository = tmp_path_factory.mktemp("models")
    return Model(repository, write_tiny_model(repository, width=WIDTH))


@dataclass
class Frontend:
    """What a frontend sees of its instances."""

    server: LinkServer
    kinds: dict[tuple[str, str], str] = field(default_factory=dict)
    rows: dict[int, dict[int, np.ndarray]] = field(default_factory=dict)
    failed: list[StageReport] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def on_frame(self, sender: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        match header.WhichOneof("kind"):
            case "link_opened":
                self.kinds[sender, header.link_opened.receiver] = header.link_opened.kind
            case "result":
                rows = np.frombuffer(bytes(views[0]), np.float32).reshape(-1, WIDTH)
                self.rows.setdefault(header.result.batch_id, {})[header.result.first] = rows
            case "report" if header.report.outcome == StageReport.FAILED:
                self.failed.append(header.report)
        self.news.set()

    def on_peer_lost(self, sender: str) -> None:
        self.lost.append(sender)
        self.news.set()

    def came(self, batch: int) -> np.ndarray:
        parts = self.rows.get(batch, {})
        return np.concatenate([parts[first] for first in sorted(parts)] or [np.empty((0, WIDTH))])

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not wanted():
                self.news.clear()
                await self.news.wait()

    async def answer(self, batch: int, rows: int) -> np.ndarray:
        await self.until(lambda: len(self.came(batch)) >= rows or bool(self.failed))
        assert not self.failed, self.failed
        return self.came(batch)


@dataclass
class Stage:
    name: str
    process: Process
    address: str
    link: LinkSender
    copies: Path

    def copied(self) -> list[int]:
        """Return the sizes of all copies from and to device memory of links."""
        return [int(line) for line in self.copies.read_text().splitlines()]


@asynccontextmanager
async def a_frontend() -> AsyncIterator[Frontend]:
    frontend = Frontend(LinkServer("127.0.0.1"))
    receiver = LinkReceiver(frontend.on_frame, frontend.on_peer_lost)
    await frontend.server.start(receiver)
    try:
        yield frontend
    finally:
        receiver.close()
        await frontend.server.stop()


def settings_of(name: str, model: Model, block: int, frontend: Frontend) -> InstanceSettings:
    order = StageOrder(
        model="m",
        version="1",
        first_block=block,
        end_block=block + 1,
        batch=BATCH,
        latency_us_by_batch=(1,) * BATCH,
        execution=ExecutionOptions(compile="off"),
    )
    return replace(
        instance_settings(),
        instance=name,
        executor="cuda",
        repository=str(model.repository),
        host="127.0.0.1",
        frontend_link=frontend.server.address,
        order=order,
        share=ShareOrder(),
    )


@asynccontextmanager
async def a_stage(
    name: str, block: int, model: Model, frontend: Frontend, directory: Path, module: str
) -> AsyncIterator[Stage]:
    copies = directory / f"copies of {name}"
    copies.touch()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, str(os.getpid())),
        cwd=ROOT,
        env={**os.environ, "PLAYED_COPIES": str(copies)},
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        assert process.stdin is not None
        load = {"load": settings_of(name, model, block, frontend).to_fields()}
        process.stdin.write(json.dumps(load).encode() + b"\n")
        said = json.loads(await line_of(process, LOAD_LIMIT_S))
        address = f"127.0.0.1:{said['ready']['port']}"
        link = LinkSender(address, FRONTEND)
        await link.opened()
        yield Stage(name, process, address, link, copies)
        await link.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def a_pipeline(
    model: Model, directory: Path, module: str = PLAYED
) -> AsyncIterator[tuple[Frontend, Stage, Stage]]:
    async with a_frontend() as frontend, AsyncExitStack() as stack:
        stages = [
            a_stage(name, block, model, frontend, directory, module)
            for block, name in enumerate("ab")
        ]
        first, second = await asyncio.gather(*map(stack.enter_async_context, stages))
        yield frontend, first, second


def images(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32)


def hop(to: Stage, sequence: int, **part: int) -> Hop:
    return Hop(instance_id=to.name, address=to.address, sequence=sequence, **part)


def run(batch: int, rows: np.ndarray, route: list[Hop], **where: int) -> tuple[FrameHeader, bytes]:
    data = rows.tobytes()
    order = RunStage(
        batch_id=batch,
        model="m",
        samples=BATCH if where else len(rows),
        route=route,
        abandon_in_us=10_000_000,
    )
    announce(order.tensors, "t0", "FP32", rows.shape, [data])
    order.stage, order.first, order.count = (where.get(key, 0) for key in _WHERE)
    return FrameHeader(run_stage=order), data


async def serve(frontend: Frontend, first: Stage, second: Stage, batch: int) -> np.ndarray:
    rows = images(BATCH - batch % 2, batch)
    header, data = run(batch, rows, [hop(first, batch), hop(second, batch)])
    first.link.send_nowait(header, [data])
    return rows


async def check_answers(model: Model, frontend: Frontend, first: Stage, second: Stage) -> None:
    rows = [await serve(frontend, first, second, 0)]
    await frontend.answer(0, BATCH)
    await frontend.until(lambda: frontend.kinds.get(("a", "b")) == "CUDA IPC")
    rows += [await serve(frontend, first, second, batch) for batch in range(1, 40)]
    for batch, sent in enumerate(rows):
        check(await frontend.answer(batch, len(sent)), model.scores_of(sent))


async def check_parts(model: Model, frontend: Frontend, first: Stage, second: Stage) -> None:
    read, half, whole = len(second.copied()), BATCH // 2, images(BATCH, 1)
    cut = [
        hop(first, 40, stage=0, first=0, count=BATCH),
        hop(second, 40, stage=1, first=0, count=half),
        hop(second, 41, stage=1, first=half, count=half),
    ]
    header, data = run(40, whole, cut, first=0, count=BATCH)
    first.link.send_nowait(header, [data])
    check(await frontend.answer(40, BATCH), model.scores_of(whole))
    assert second.copied()[read:] == [half * ROW_BYTES] * 2
    joined = [
        hop(first, 41, stage=0, first=0, count=half),
        hop(first, 42, stage=0, first=half, count=half),
        hop(second, 42, stage=1, first=0, count=BATCH),
    ]
    for place in range(2):
        rows = whole[place * half : (place + 1) * half]
        header, data = run(41, rows, joined, stage=place, first=place * half, count=half)
        first.link.send_nowait(header, [data])
    check(await frontend.answer(41, BATCH), model.scores_of(whole))
    assert second.copied()[read + 2 :] == [half * ROW_BYTES] * 2


def check(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


async def test_tensors_go_from_stage_to_stage_on_the_device(model: Model, tmp_path: Path) -> None:
    async with a_pipeline(model, tmp_path) as (frontend, first, second):
        await check_answers(model, frontend, first, second)
        written, read = first.copied(), second.copied()
        assert len(written) >= 30  # some may have found no room, none of them is lost
        assert set(written) == {BATCH * ROW_BYTES, (BATCH - 1) * ROW_BYTES}
        assert sorted(read) == sorted(written)
        await check_parts(model, frontend, first, second)
        assert frontend.failed == []
        first.process.kill()
        await frontend.until(lambda: frontend.lost == ["a"])
        rows = images(BATCH, 9)  # the second stage serves what comes from elsewhere
        order = run(50, rows, [hop(second, 43)])[0].run_stage
        order.tensors[0].name = "t1"
        second.link.send_nowait(FrameHeader(run_stage=order), [rows.tobytes()])
        await frontend.answer(50, BATCH)
        assert frontend.lost == ["a"]


async def test_a_stage_that_is_killed_is_one_loss_for_the_one_before(
    model: Model, tmp_path: Path
) -> None:
    async with a_pipeline(model, tmp_path) as (frontend, first, second):
        for batch in range(5):
            await serve(frontend, first, second, batch)
        await frontend.answer(4, BATCH)
        second.process.kill()
        await frontend.until(lambda: frontend.lost == ["b"])
        await serve(frontend, first, second, 5)
        await frontend.until(lambda: any(each.batch_id == 5 for each in frontend.failed))
        assert {each.instance_id for each in frontend.failed} == {"b"}
        assert all(each.retriable for each in frontend.failed)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
async def test_tensors_stay_on_a_real_device(model: Model, tmp_path: Path) -> None:
    async with a_pipeline(model, tmp_path, REAL) as (frontend, first, second):
        await check_answers(model, frontend, first, second)
        first.process.kill()
        await frontend.until(lambda: frontend.lost == ["a"])
        assert frontend.failed == []
