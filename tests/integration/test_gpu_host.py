"""A worker on a host that looks as if it had a GPU: what it chooses, says and leaves behind.

Real processes all the way; only CUDA's driver, NVML and the MPS control program are stand-ins.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.domain.plan import Plan
from penstock.shares.mps import CONTROL
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.fleet import FrontendSide, alive, frontend_side, gone, kill, worker_process
from tests.support.gpu_host import GpuHost, gpu_host
from tests.support.nvml import UUID

pytestmark = pytest.mark.e2e


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpuHost]:
    with gpu_host(tmp_path / "host", monkeypatch) as host:
        yield host


def a_fleet() -> Plan:
    return a_plan(a_model_plan((a_pool("p0", gpu_class="H200"),)))


async def attached(side: FrontendSide) -> tuple[str, str, str]:
    """Return class, device and shares of the worker that has come."""
    async with asyncio.timeout(30):
        while not side.membership.snapshot():  # noqa: ASYNC110  # no event: nobody else need know
            await asyncio.sleep(0.02)
    (worker,) = side.membership.snapshot()
    return worker.gpu_class, worker.device, worker.share


def daemons(host: GpuHost) -> list[int]:
    return [int(each.read_text()) for each in host.temporary.rglob(f"{CONTROL}.pid")]


async def test_a_worker_chooses_says_so_and_leaves_nothing(host: GpuHost, tmp_path: Path) -> None:
    async with (
        frontend_side(a_fleet()) as side,
        worker_process(side.control, tmp_path, executor="cuda", gpu_class="") as worker,
    ):
        note = "green (groups of 8 of 132 SMs, side by side through MPS), a process per instance"
        assert await attached(side) == ("H200", "NVIDIA H200", note)
        (daemon,) = daemons(host)
        assert alive(daemon)
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
        assert not alive(daemon)
        assert host.said() == [f"start {UUID} ", "quit"]
        assert not [*host.temporary.glob("penstock-*/*")]
        said = await worker.said()
        assert "instances share the GPU by green (groups of 8 of 132 SMs" in said
        assert "Traceback" not in said


async def test_the_daemon_of_a_killed_worker_is_ended_by_the_next(
    host: GpuHost, tmp_path: Path
) -> None:
    async with frontend_side(a_fleet()) as side:
        async with worker_process(
            side.control, tmp_path, executor="cuda", gpu_class="H200", worker_id="old"
        ) as old:
            await attached(side)
            (orphan,) = daemons(host)
            kill(old.pid)
            await old.ended()
            assert alive(orphan)
            async with asyncio.timeout(10):
                while side.membership.snapshot():  # noqa: ASYNC110  # no event
                    await asyncio.sleep(0.02)
        async with worker_process(
            side.control, tmp_path, executor="cuda", gpu_class="H200", worker_id="new"
        ) as new:
            await attached(side)
            assert not alive(orphan)
            (daemon,) = daemons(host)
            assert alive(daemon)
            new.send(signal.SIGTERM)
            assert await new.ended() == 0
            assert "its owner is gone" in await new.said()
            assert not alive(daemon)


async def test_a_worker_ends_when_its_daemon_is_gone(host: GpuHost, tmp_path: Path) -> None:
    async with (
        frontend_side(a_fleet()) as side,
        worker_process(side.control, tmp_path, executor="cuda", gpu_class="H200") as worker,
    ):
        await attached(side)
        kill(*daemons(host))
        await gone(daemons(host))
        assert await worker.ended() == 1
        said = await worker.said()
        assert "the MPS daemon is gone" in said
        assert "Traceback" not in said


async def test_without_mps_the_fallback_is_said(
    host: GpuHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MPS_FAILS", "1")
    async with (
        frontend_side(a_fleet()) as side,
        worker_process(side.control, tmp_path, executor="cuda", gpu_class="H200") as worker,
    ):
        assert (await attached(side))[2] == "none, a process per instance"
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
        said = await worker.said()
        assert "shares by green do not work here: processes would take turns without MPS" in said
        assert "shares by mps do not work here: " in said
        assert "no device may be used" in said


async def test_one_process_needs_no_daemon(host: GpuHost, tmp_path: Path) -> None:
    async with (
        frontend_side(a_fleet()) as side,
        worker_process(
            side.control,
            tmp_path,
            executor="cuda",
            gpu_class="H200",
            flags=("--process-per", "device"),
        ),
    ):
        note = "green (groups of 8 of 132 SMs), a process per device"
        assert (await attached(side))[2] == note
        assert host.said() == []


async def test_a_share_that_was_asked_for_is_not_exchanged(
    host: GpuHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MPS_FAILS", "1")
    async with (
        frontend_side(a_fleet()) as side,
        worker_process(
            side.control, tmp_path, executor="cuda", gpu_class="H200", flags=("--share", "mps")
        ) as worker,
    ):
        assert await worker.ended() == 1
        said = await worker.said()
        assert "exit code 1: no device may be used" in said
        assert "Traceback" not in said
