"""compose.yaml: every command in it is one that the command line takes."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock import command
from penstock.verbs import VERBS, Verb

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())[
    "services"
]


def with_defaults(text: str) -> str:
    """Replace ``${NAME:-default}`` by its default, as Compose does when NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def commands() -> list[tuple[str, list[str]]]:
    """Return what each service, and each health check, runs after ``penstock``."""
    found = []
    for name, service in SERVICES.items():
        found.append((name, service["command"]))
        if "healthcheck" in service:
            kind, program, *arguments = service["healthcheck"]["test"]
            assert (kind, program) == ("CMD", "penstock")
            found.append((f"{name} health", arguments))
    return [(name, [with_defaults(word) for word in words]) for name, words in found]


@pytest.mark.parametrize(("service", "arguments"), commands(), ids=lambda value: str(value)[:24])
def test_the_command_line_takes_each_command(
    service: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[dict[str, Any]] = []
    load = command.load

    def load_recorder(verb: Verb) -> Any:
        @functools.wraps(load(verb))
        def record(**options: object) -> None:
            taken.append(options)

        return record

    monkeypatch.setattr(command, "load", load_recorder)
    with pytest.raises(SystemExit) as ended:
        command.run("penstock", VERBS, arguments)
    assert (service, ended.value.code) == (service, 0)
    assert len(taken) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_builds_from_a_file_that_exists(service: str) -> None:
    build = SERVICES[service]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_services_depend_on_services_that_exist() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_cuda_workers_reserve_devices_and_stay_behind_a_profile() -> None:
    cuda = {name: one for name, one in SERVICES.items() if "--executor=cuda" in one["command"]}
    assert cuda
    for service in cuda.values():
        assert service["profiles"] == ["gpu"]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]


def test_the_load_generator_runs_only_when_asked_for() -> None:
    assert SERVICES["bench"]["profiles"] == ["bench"]
