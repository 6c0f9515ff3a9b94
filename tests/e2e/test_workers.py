"""Client, frontend and workers, each in processes of their own: the product from end to end."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.formats.codec import digest
from penstock.formats.layout import BLOCKS_FILE
from penstock.formats.plans import write_plan
from tests.e2e.test_tritonclient import CHECKS, checked
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.fleet import worker_process
from tests.support.processes import a_server
from tests.support.repositories import write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SLO_US = 3_000_000


def write_files(directory: Path) -> list[str]:
    """Write a tiny model of three blocks and a plan of two stages; return the frontend's flags."""
    write_tiny_model(directory, blocks=3, width=3)
    text = (directory / "m" / "1" / BLOCKS_FILE).read_text(encoding="utf-8")
    pools = (
        a_pool("p0", blocks=(0, 2), latencies_us=(5_000,) * 4),
        a_pool("p1", position=1, blocks=(2, 3), gpu_class="other", latencies_us=(4_000,) * 4),
    )
    model = replace(a_model_plan(pools, slo_us=SLO_US), blocks_digest=digest(text))
    plan = directory / "plan.json"
    plan.write_text(write_plan(a_plan(model)), encoding="utf-8")
    return ["--plan", str(plan), "--repository", str(directory)]


async def test_tritonclient_is_served_by_workers(tmp_path: Path) -> None:
    flags = write_files(tmp_path)
    ports = ["--port", "0", "--metrics-port", "0", "--control-port", "0"]
    with a_server(["frontend", *flags, *ports, "--json"], ready=False) as server:
        control = server.addresses["control"]
        async with (
            worker_process(control, tmp_path, executor="emulated", worker_id="a"),
            worker_process(
                control, tmp_path, executor="emulated", gpu_class="other", worker_id="b"
            ),
        ):
            await asyncio.to_thread(server.event, "ready")
            address = server.addresses["inference"]
            results = await asyncio.to_thread(checked, address, "m")
            assert results == dict.fromkeys(CHECKS, "ok")
            url = f"http://{server.addresses['metrics']}/status.json"
            status = json.loads(await asyncio.to_thread(read, url))
            assert status["emulated"]
            assert {each["worker"] for each in status["workers"]} == {"a", "b"}
            links = {(each["sender"], each["receiver"]): each["kind"] for each in status["links"]}
            assert links == {
                ("frontend", "p0/0"): "shared memory",
                ("frontend", "p1/0"): "shared memory",
                ("p0/0", "frontend"): "shared memory",
                ("p1/0", "frontend"): "shared memory",
                ("p0/0", "p1/0"): "shared memory",
            }
            assert status["models"][0]["failed"] == 1  # the request with a timeout of 1 µs
            assert await asyncio.to_thread(server.stop, signal.SIGTERM) == 0


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())
