"""Metrics of a worker: its device, and what its instances really got."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.domain.errors import PenstockError
from protos.control_pb2 import InstanceGone, InstanceReady, ObtainedShare, WorkerMessage
from tests.support.nvml import FakeNvml
from worker.metrics import WorkerMetrics, serve_metrics
from worker.nvml import NvmlDevice, nvml_device
from worker.settings import WorkerSettings, worker_settings


def some_settings(tmp_path: Path, executor: str, port: int | None = 0) -> WorkerSettings:
    return worker_settings(
        frontend="127.0.0.1:1",
        gpu_class="H200",
        executor=executor,
        repository=tmp_path,
        worker_id="w",
        metrics_port=port,
    )


def ready(instance: str, mechanism: str = "green", sms: int = 64) -> WorkerMessage:
    share = ObtainedShare(mechanism=mechanism, sms=sms, device_sms=132)
    return WorkerMessage(ready=InstanceReady(instance_id=instance, share=share))


async def page(port: int | None) -> str:
    def read() -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return bytes(answer.read())

    return (await asyncio.to_thread(read)).decode()


@contextmanager
def fake_device(device: str) -> Iterator[NvmlDevice]:
    with nvml_device(device, FakeNvml(silent={"power"})) as opened:
        yield opened


async def test_a_gpu_is_sampled_and_shares_are_shown(tmp_path: Path) -> None:
    settings = some_settings(tmp_path, "cuda")
    metrics = WorkerMetrics(settings)
    async with serve_metrics(metrics, settings, fake_device) as port:
        metrics.note(ready("p/0"))
        metrics.note(ready("p/1", sms=40))
        metrics.note(ready("p/1", mechanism="mps", sms=42))
        metrics.note(ready("p/2", sms=0))
        metrics.note(WorkerMessage(gone=InstanceGone(instance_id="p/0")))
        async with asyncio.timeout(5):
            while "busy_ratio{" not in (text := await page(port)):  # noqa: ASYNC110  # no event
                await asyncio.sleep(0.01)
    labels = 'gpu_class="H200",worker="w"'
    lines = text.splitlines()
    assert f"penstock_worker_device_busy_ratio{{{labels}}} 0.75" in lines
    assert f"penstock_worker_device_sm_clock_hertz{{{labels}}} 1.98e+09" in lines
    assert 'penstock_worker_device_info{device="NVIDIA H200",' + labels + "} 1.0" in lines
    assert not [each for each in lines if each.startswith("penstock_worker_device_power_watts{")]
    shares = [each for each in lines if each.startswith("penstock_worker_instance_sms{")]
    said = 'gpu_class="H200",instance="p/1",mechanism="mps",worker="w"'
    assert shares == [f"penstock_worker_instance_sms{{{said}}} 42.0"]
    metrics.forget_instances()
    assert b"instance_sms{" not in metrics_text(metrics)


def metrics_text(metrics: WorkerMetrics) -> bytes:
    from prometheus_client import generate_latest

    return generate_latest(metrics.registry)


async def test_a_host_without_nvml_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    def none(device: str) -> Iterator[NvmlDevice]:
        with nvml_device(device, FakeNvml(absent=True)) as opened:
            yield opened

    settings = some_settings(tmp_path, "cuda")
    metrics = WorkerMetrics(settings)
    async with serve_metrics(metrics, settings, none) as port:
        assert "penstock_worker_device_busy_ratio" in await page(port)
    said = [each for each in caplog.messages if each.startswith("no metrics of the device")]
    assert said == ["no metrics of the device: CUDA device 0: NVML Shared Library Not Found"]


async def test_an_executor_without_a_gpu_has_metrics_of_instances_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings = some_settings(tmp_path, "cpu")
    async with serve_metrics(WorkerMetrics(settings), settings) as port:
        await page(port)
    assert "no metrics of the device: executor cpu uses no GPU" in caplog.messages


async def test_without_a_port_nothing_is_opened(tmp_path: Path) -> None:
    settings = some_settings(tmp_path, "cuda", None)
    async with serve_metrics(WorkerMetrics(settings), settings, fake_device) as port:
        assert port is None


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = some_settings(tmp_path, "cuda", taken.getsockname()[1])
        with pytest.raises(PenstockError, match=r"cannot offer metrics on 127.0.0.1:"):
            async with serve_metrics(WorkerMetrics(settings), settings, fake_device):
                pass
