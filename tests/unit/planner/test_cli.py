from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.command import run
from penstock.formats.clusters import write_cluster
from penstock.formats.layout import profile_paths
from penstock.formats.plans import read_plan
from penstock.formats.profiles import write_profile
from penstock.verbs import verbs_of
from tests.unit.planner.fleets import mixed_fleet

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cluster, profiles = mixed_fleet(slo_ms=45)
    (tmp_path / "cluster.yaml").write_text(write_cluster(cluster), encoding="utf-8")
    for (model, gpu_class), profile in profiles.items():
        paths = profile_paths(tmp_path / "profiles", model, gpu_class)
        for path, text in zip(paths, write_profile(profile), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        run("planner", verbs_of("planner"), arguments)
    code = exited.value.code
    return code if isinstance(code, int) else 0


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_plan_writes_a_plan_that_check_and_explain_read(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", "cluster.yaml", "--out", "build/plan.json") == 0
    assert "125.0 samples/s" in capsys.readouterr().out
    plan = read_plan((fleet / "build/plan.json").read_text(encoding="utf-8"), "plan.json")
    assert plan.solve.objective_rps == pytest.approx(125)
    assert call("check", "build/plan.json") == 0
    assert "verified" in capsys.readouterr().out
    assert call("explain", "build/plan.json") == 0
    assert "blocks 0-1 on 1× fast" in capsys.readouterr().out


@pytest.mark.usefixtures("fleet")
def test_json_is_all_that_stdout_gets(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml", "--json", "--solver", "highs") == 0
    assert json.loads(capfd.readouterr().out)["schema"] == "penstock.plan/1"
    assert call("check", "plan.json", "--json") == 0
    assert json.loads(capfd.readouterr().out)["verified"] is True
    assert call("explain", "plan.json", "--json") == 0
    assert json.loads(capfd.readouterr().out)["gpus_used"] == {"fast": 1, "slow": 2}


@pytest.mark.usefixtures("fleet")
def test_options_override_the_cluster_file(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--margin", "0.1", "--max-stages", "1", "--max-batch", "1", "--seed", "3")
    assert call("plan", "cluster.yaml", *options, "--time-limit", "5", "--json") == 0
    plan = printed(capsys)
    assert plan["models"][0]["margin_us"] == 4500
    assert plan["solve"]["seed"] == 3
    assert {pool["position"] for pool in plan["models"][0]["pools"]} == {0}
    assert call("check", "plan.json") == 2
    assert "margin is 4500" in capsys.readouterr().err
    assert call("check", "plan.json", "--margin", "0.1") == 0


def test_the_pool_map_is_drawn(fleet: Path) -> None:
    assert call("plan", "cluster.yaml", "--plot", "pools.png") == 0
    assert (fleet / "pools.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("fleet")
def test_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml", "--no-partition", "--json") == 0
    assert printed(capsys)["solve"]["objective_rps"] == pytest.approx(62.5)


@pytest.mark.usefixtures("fleet")
def test_infeasible_is_one_line_and_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml", "--margin", "0.9") == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: infeasible: model digits: SLO: the fastest path")
    assert captured.err.count("\n") == 1


def test_a_changed_input_is_noticed(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml") == 0
    rows = fleet / "profiles/digits/slow.csv"
    rows.write_text(rows.read_text(encoding="utf-8").replace("6000", "6001"), encoding="utf-8")
    capsys.readouterr()
    assert call("check", "plan.json", "--json") == 2
    told = printed(capsys)
    assert told["verified"] is False
    assert "input profile digits slow: has changed since the plan was made" in told["faults"]


def test_a_missing_profile_is_named(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fleet / "profiles/digits/slow.json").unlink()
    assert call("plan", "cluster.yaml") == 2
    assert "profiles/digits/slow.json: expected a file" in capsys.readouterr().err


def test_a_repository_binds_the_plan_to_its_newest_blocks(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("2", "10"):
        directory = fleet / "models" / "digits" / version
        directory.mkdir(parents=True)
        (directory / "blocks.json").write_text(version, encoding="utf-8")
    assert call("plan", "cluster.yaml", "--repository", "models", "--json") == 0
    digest = "4a44dc15364204a80fe80e9039455cc1608281820fe2b24f1e5233ade6af1dd5"  # of "10"
    assert printed(capsys)["models"][0]["blocks_digest"] == digest
    assert call("plan", "cluster.yaml", "--repository", "profiles") == 2
    assert "expected a version such as 1/blocks.json" in capsys.readouterr().err


@pytest.mark.usefixtures("fleet")
def test_planning_imports_neither_torch_nor_grpc() -> None:
    code = (
        "import sys, planner.cli, planner.planning, planner.files, planner.explain\n"
        "print([name for name in ('torch', 'grpc') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"
