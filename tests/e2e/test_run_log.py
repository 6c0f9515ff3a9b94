"""The run log of a frontend process, however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import ROOT, a_loopback_server, a_server

pytestmark = pytest.mark.e2e

CALLER = """
import asyncio, sys
import grpc
from protos import inference_pb2_grpc
from tests.support.messages import echo_request

async def main(address):
    async with grpc.aio.insecure_channel(address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        await asyncio.gather(*(stub.ModelInfer(echo_request(2)) for _ in range(50)))

asyncio.run(main(sys.argv[1]))
"""


def replayed(log: Path) -> dict[str, object]:
    """Replay a log as a user does; return what it says."""
    command = [sys.executable, "-m", "penstock", "replay", str(log), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    said: dict[str, object] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_log_replays_however_the_frontend_ended(tmp_path: Path, end: signal.Signals) -> None:
    log = tmp_path / "run.jsonl"
    with a_server(a_loopback_server(tmp_path, "--run-log", str(log))) as server:
        caller = [sys.executable, "-c", CALLER, server.addresses["inference"]]
        subprocess.run(caller, cwd=ROOT, check=True, timeout=60)
        time.sleep(1.5)  # what is older than a second is in the file, whatever happens
        server.process.send_signal(end)
        server.process.wait(20)
    said = replayed(log)
    assert said["identical"]
    assert said["requests"] == 50
    assert said["open_requests"] == 0
