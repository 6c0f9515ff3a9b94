from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.planner.test_cli import call

DATA = Path(__file__).parents[3].parent / "shared" / "reference" / "ppipe" / "data"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no published plans in {DATA}")


@needs_data
def test_without_a_configuration_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("import", str(DATA), "--set", "maf19", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["configurations"]) == 24
    assert call("import", str(DATA)) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("  0  apcnet_r101")
    assert "24 configurations in maf19" in captured.err


@needs_data
def test_an_imported_project_can_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("import", str(DATA), "--config", "3", "--out", "p", "--scheduler", "v4") == 0
    command = capsys.readouterr().out.split()
    assert command[:2] == ["penstock", "plan"]
    assert call(*command[1:], "--mode", "compat", "--gap", "0.05", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert {each["name"] for each in plan["gpu_classes"]} == {"V100", "T4"}


@needs_data
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--config", "24"), "a number from 0 to 23"),
        (("--config", "none"), "unknown configuration 'none'"),
        (("--set", "none"), "unknown plan set 'none'"),
        (("--config", "0", "--scheduler", "v5"), "unknown scheduler 'v5'"),
    ],
)
def test_what_is_not_there(
    options: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("import", str(DATA), *options) == 2
    assert told in capsys.readouterr().err


def test_another_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("import", str(tmp_path)) == 2
    assert "the data folder of the PPipe artifact" in capsys.readouterr().err
