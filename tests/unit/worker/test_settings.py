"""Settings of workers and instances."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from penstock.domain.errors import InvalidSettings, PenstockError, UnknownName
from penstock.shares.base import ShareOrder
from tests.support.nvml import FakeNvml
from worker.settings import InstanceSettings, WorkerSettings, worker_settings
from worker.stages import StageOrder


def some_settings(tmp_path: Path, **changes: object) -> WorkerSettings:
    given = {
        "frontend": "localhost:8003",
        "gpu_class": "L4",
        "executor": "cpu",
        "repository": tmp_path,
        **changes,
    }
    return worker_settings(**given)  # type: ignore[arg-type]


def test_what_is_left_out_is_filled_in(tmp_path: Path) -> None:
    settings = some_settings(tmp_path, device="3")
    assert settings.worker_id.split("-")[-3:-1] == ["L4", "3"]
    assert settings.server
    assert settings.host == "127.0.0.1"
    assert some_settings(tmp_path, worker_id="me", server="s").worker_id == "me"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frontend": "localhost"}, "--frontend: expected host:port, found 'localhost'"),
        ({"frontend": ":80"}, "--frontend: expected host:port"),
        ({"gpu_class": ""}, "--gpu-class: expected the name of a GPU class, found nothing"),
        ({"share": "green"}, r"--share: expected auto or none with executor cpu, .* found green"),
        ({"process_per": "gpu"}, "--process-per: expected instance or device, found 'gpu'"),
        ({"metrics_port": 70_000}, r"--metrics-port: expected a port, .* found 70000"),
        ({"repository": Path("/nowhere")}, "--repository: expected a directory, found /nowhere"),
        ({"threads": 0}, "--threads: expected at least 1, found 0"),
    ],
)
def test_a_setting_that_cannot_work_is_told(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSettings, match=message):
        some_settings(tmp_path, **changes)


def test_an_unknown_way_to_share_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown way to share a GPU 'mig'; known: auto, green"):
        some_settings(tmp_path, share="mig")


def test_an_unknown_executor_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown executor 'tpu'; known: cpu"):
        some_settings(tmp_path, executor="tpu")


def instance_settings() -> InstanceSettings:
    return InstanceSettings(
        instance="p/0",
        executor="cpu",
        repository="/models",
        host="127.0.0.1",
        frontend_link="127.0.0.1:1",
        threads=2,
        order=StageOrder(
            model="m",
            version="1",
            first_block=0,
            end_block=2,
            batch=2,
            latency_us_by_batch=(5, 6),
            blocks_sha256="ab",
        ),
        share=ShareOrder(mechanism="green", gpu=True, denominator=4, taken=(1, 2)),
    )


def test_instance_settings_survive_the_way_to_the_child() -> None:
    line = json.dumps(instance_settings().to_fields())
    assert "\n" not in line
    assert InstanceSettings.from_fields(json.loads(line)) == instance_settings()


@pytest.mark.parametrize("line", ["{}", "[]", '{"order": {}}', '{"order": 3}'])
def test_other_lines_are_told(line: str) -> None:
    with pytest.raises(InvalidSettings, match="expected the settings a supervisor writes"):
        InstanceSettings.from_fields(json.loads(line))


@pytest.mark.parametrize(
    ("name", "found"), [("NVIDIA H200", "H200"), (b"NVIDIA A100-SXM4-80GB", "A100")]
)
def test_the_class_of_a_gpu_may_be_left_out(
    name: str | bytes, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(name=name))
    settings = some_settings(tmp_path, executor="cuda", gpu_class="")
    assert settings.gpu_class == found
    assert f"-{found}-0-" in settings.worker_id
    assert some_settings(tmp_path, executor="cuda", gpu_class="mine").gpu_class == "mine"


def test_a_gpu_of_an_unknown_class_needs_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(name="NVIDIA L40S"))
    said = "--gpu-class: expected the name of a GPU class, because 'NVIDIA L40S' is none of P4, T4"
    with pytest.raises(InvalidSettings, match=said):
        some_settings(tmp_path, executor="cuda", gpu_class="")


def test_a_gpu_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    with pytest.raises(PenstockError, match="CUDA device 7: Invalid Argument"):
        some_settings(tmp_path, executor="cuda", gpu_class="", device="7")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(absent=True))
    with pytest.raises(PenstockError, match="CUDA device 0: NVML Shared Library Not Found"):
        some_settings(tmp_path, executor="cuda", gpu_class="")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(PenstockError, match="need nvidia-ml-py, which is not installed"):
        some_settings(tmp_path, executor="cuda", gpu_class="")
