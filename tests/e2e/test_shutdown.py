"""A frontend process and its signals: nothing accepted is lost, nothing is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from penstock.formats.runlog import read_run_log
from tests.support.processes import ROOT, a_loopback_server, a_server

pytestmark = pytest.mark.e2e

# Sends requests, tells when all are accepted, then tells how each ended.
CALLER = """
import asyncio, json, sys
import grpc
from protos import inference_pb2_grpc
from tests.support.messages import echo_request

async def end(call):
    try:
        return list((await call).outputs[0].shape)
    except grpc.aio.AioRpcError as error:
        return error.code().name

async def main(address, count):
    async with grpc.aio.insecure_channel(address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        await channel.channel_ready()
        calls = [asyncio.ensure_future(end(stub.ModelInfer(echo_request(2)))) for _ in range(count)]
        await asyncio.sleep(0.15)
        print("sent", flush=True)
        print(json.dumps(await asyncio.gather(*calls)), flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def a_caller(address: str, count: int) -> subprocess.Popen[str]:
    """Start sending; returns when all is sent."""
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, address, str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert caller.stdout is not None
    assert caller.stdout.readline() == "sent\n"
    return caller


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_answers_all_that_was_accepted(tmp_path: Path, sent: signal.Signals) -> None:
    with a_server(a_loopback_server(tmp_path, "--delay-s", "0.5")) as server:
        with a_caller(server.addresses["inference"], 8) as caller:
            assert server.stop(sent) == 0
            ends = json.loads(caller.communicate(timeout=20)[0])
        assert ends == [[2, 4]] * 8
        assert server.event("stopped")["unanswered"] == "0"


def test_a_second_signal_stops_at_once_and_says_so(tmp_path: Path) -> None:
    options = ("--hold", "--drain-limit-s", "60", "--no-uvloop")
    with a_server(a_loopback_server(tmp_path, *options)) as server:
        with a_caller(server.addresses["inference"], 3) as caller:
            server.process.send_signal(signal.SIGTERM)
            server.event("draining")
            assert server.stop() == 1
            ends = json.loads(caller.communicate(timeout=20)[0])
        assert all(isinstance(each, str) for each in ends)
        assert server.event("stopped")["unanswered"] == "3"


def test_an_idle_frontend_stops_and_leaves_a_run_log(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    with a_server(a_loopback_server(tmp_path, "--run-log", str(log))) as server:
        url = f"http://{server.addresses['metrics']}/status.json"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert json.load(answer)["ready"]
        with a_caller(server.addresses["inference"], 1) as caller:
            caller.communicate(timeout=20)
        assert server.stop() == 0
    with log.open(encoding="utf-8") as lines:
        kinds = [type(entry.event).__name__ for entry in read_run_log(lines, "run.jsonl")]
    assert kinds[0] == "PlanApplied"
    assert "RequestArrived" in kinds
    assert "BatchFinished" in kinds
