"""Settings of workers and instances."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.domain.errors import InvalidSettings, UnknownName
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
        ({"gpu_class": ""}, "--gpu-class: expected the name of a GPU class"),
        ({"repository": Path("/nowhere")}, "--repository: expected a directory, found /nowhere"),
        ({"threads": 0}, "--threads: expected at least 1, found 0"),
    ],
)
def test_a_setting_that_cannot_work_is_told(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSettings, match=message):
        some_settings(tmp_path, **changes)


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
        parent=1,
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
    )


def test_instance_settings_survive_the_way_to_the_child() -> None:
    line = instance_settings().to_json()
    assert "\n" not in line
    assert InstanceSettings.from_json(line) == instance_settings()


@pytest.mark.parametrize("line", ["", "{}", "[]", '{"order": {}}', '{"order": 3}', "junk"])
def test_other_lines_are_told(line: str) -> None:
    with pytest.raises(InvalidSettings, match="expected the settings a supervisor writes"):
        InstanceSettings.from_json(line)
