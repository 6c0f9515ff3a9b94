"""Settings: ranges, derived values, precedence of flag over environment over default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import frontend.cli
from frontend.settings import Settings
from penstock.domain.errors import InvalidSettings
from tests.support.frontends import some_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("metrics_port", 65536),
        ("control_port", 1 << 20),
        ("queue_samples", 0),
        ("stream_requests", 0),
        ("max_message_mib", 0),
        ("max_message_mib", 4096),
        ("drain_pause_s", -0.1),
        ("drain_limit_s", float("nan")),
    ],
)
def test_a_value_out_of_range_is_told_by_name(name: str, value: float) -> None:
    with pytest.raises(InvalidSettings, match=f"settings: {name}: expected"):
        some_settings(**{name: value})


@pytest.mark.parametrize(
    ("host", "advertise", "reachable"),
    [
        ("127.0.0.1", "", "127.0.0.1"),
        ("0.0.0.0", "", "127.0.0.1"),
        ("0.0.0.0", "frontend", "frontend"),
        ("10.0.0.7", "", "10.0.0.7"),
    ],
)
def test_workers_are_told_a_host_they_can_reach(host: str, advertise: str, reachable: str) -> None:
    assert some_settings(host=host, advertise=advertise).reachable_host == reachable


def test_every_setting_is_told_at_the_start() -> None:
    facts = some_settings().facts()
    assert facts["policy"] == "reservation"
    assert facts["run_log"] == ""
    assert set(facts) == set(Settings.__slots__)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Return the settings that the verb would have run with."""
    caught: list[Settings] = []
    monkeypatch.setattr(frontend.cli, "run", lambda settings, *_: caught.append(settings))
    return caught


def called(*arguments: str, **environment: str) -> Any:
    app = typer.Typer()
    app.command()(frontend.cli.frontend)
    return CliRunner().invoke(app, arguments, env=environment)


def test_a_flag_wins_over_the_environment_and_that_over_the_default(
    chosen: list[Settings],
) -> None:
    files = ("--plan", "plan.json", "--repository", "models")
    called(*files)
    called(*files, PENSTOCK_PORT="9001", PENSTOCK_REFLECTION="false")
    called(*files, "--port", "9002", "--reflection", PENSTOCK_PORT="9001")
    assert [(each.port, each.reflection) for each in chosen] == [
        (8001, True),
        (9001, False),
        (9002, True),
    ]
    assert chosen[0] == Settings(plan=Path("plan.json"), repository=Path("models"))


def test_the_plan_must_be_named(chosen: list[Settings]) -> None:
    done = called("--repository", "models")
    assert done.exit_code == 2
    assert not chosen
