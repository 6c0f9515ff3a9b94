from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bench import ppipe_load
from bench.carried import Asked, Planner, Timed, compared, jobs_of, utilisation
from bench.carried_plans import Cards, NoPlan, with_cards
from bench.carried_report import read_reference, summary
from penstock.arrivals import Poisson
from penstock.domain.errors import InvalidInput
from planner.published import Scheduler, configurations
from planner.published.plans import plan_of
from planner.verify import find_faults
from simulator.simulate import Scenario
from simulator.sustain import Trial, Trials
from tests.unit.planner.test_published_layout import MODELS, entry, write_plans, write_timings

SECOND_US = 1_000_000


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    write_timings(tmp_path)
    for scheduler in ("v4", "bl"):
        write_plans(tmp_path, [entry(model) for model in MODELS], scheduler=scheduler)
    return tmp_path


def run(data: Path, out: Path, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    app = typer.Typer()
    app.command()(ppipe_load.main)
    fixed = ("--data", str(data), "--set", "main", "--duration", "2", "--jobs", "1")
    result = CliRunner().invoke(app, [*fixed, "--out-dir", str(out), *arguments])
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return result.exit_code, lines, result.stderr


def test_a_published_plan_is_a_plan_that_its_inputs_allow(artifact: Path) -> None:
    (found,) = configurations(artifact, "main")
    for scheduler, published in found.plans.items():
        plan = plan_of(found, scheduler)
        told = {model.model: model.throughput_rps for model in plan.models}
        assert told == pytest.approx(dict(published.throughputs))
        instances = sum(stage.instances for each in published.pipelines for stage in each.stages)
        assert sum(pool.instances for model in plan.models for pool in model.pools) == instances
        assert not [
            each for each in find_faults(plan, published.cluster, found.profiles) if "SLO" in each
        ]


def test_the_yardstick_is_as_good_as_itself(artifact: Path, tmp_path: Path) -> None:
    code, lines, _ = run(artifact, tmp_path / "out", "--policy", "published")
    *configs, total = lines
    assert code == 0
    assert [line["ratio"] for line in configs] == [1.0]
    assert configs[0]["load_factor_by_model"] == configs[0]["published_load_factor_by_model"]
    assert total["mean_ratio"] == total["min_ratio"] == 1.0
    assert (tmp_path / "out" / ppipe_load.PICTURE).stat().st_size > 1_000
    assert (tmp_path / "out" / "ppipe_load.jsonl").read_text().count("\n") == len(lines)


def test_our_plans_have_margins_of_their_own(artifact: Path, tmp_path: Path) -> None:
    code, lines, _ = run(
        artifact, tmp_path, "--planner", "penstock", "--plan-seconds", "3", "--step", "0.2"
    )
    assert code == 0
    assert set(lines[0]["margins"]) == set(MODELS)
    assert lines[0]["tries"] >= 1
    assert lines[0]["sustained_rps"] > 0


def test_where_we_have_no_plan_the_line_says_so(artifact: Path) -> None:
    (found,) = configurations(artifact, "main")
    trials = Trials(law=Poisson(), span_us=SECOND_US, target=0.99, scenario=Scenario())
    asked = Asked(
        planner=Planner.PENSTOCK,
        scheduler=found.leading.scheduler,
        trials=trials,
        step=0.5,
        cards=Cards.GPU,
        stages=None,
        plan_seconds=1.0,
        jobs=1,
    )
    with ThreadPoolExecutor(1) as pool:
        line = compared(pool, found, Timed(NoPlan("too many at once"), 40.0), asked)
    assert (line["why_not"], line["sustained_rps"]) == ("too many at once", 0.0)
    assert line["published_sustained_rps"] > 0
    assert line["ratio"] == 0.0
    assert line["seconds"] >= 40.0
    assert summary([line])["not_planned"] == 1


def test_a_reference_is_compared_with(artifact: Path, tmp_path: Path) -> None:
    (found,) = configurations(artifact, "main")
    table = tmp_path / "reference.csv"
    rows = [
        f"{found.name}_v4.json,{model},v4,{pct}"
        for model, pct in zip(MODELS, (1, 100), strict=True)
    ]
    table.write_text("\n".join(["plan_file,model,scheduler,load_factor_pct", *rows]))
    _, lines, _ = run(artifact, tmp_path, "--policy", "published", "--reference", str(table))
    total = lines[-1]
    assert total["cases"] == 2
    assert total["within_reference"] <= 1  # nothing sustains 1 % only
    assert total["reference_mean_load_factor"] == pytest.approx(0.505)


@pytest.mark.parametrize(
    "text",
    [
        "plan_file,model\na_v4.json,one\n",
        "plan_file,model,scheduler,load_factor_pct\na_v4.json,one,v4,much\n",
    ],
)
def test_a_spoilt_reference_names_its_line(tmp_path: Path, text: str) -> None:
    table = tmp_path / "reference.csv"
    table.write_text(text)
    with pytest.raises(InvalidInput, match="line 2"):
        read_reference(table)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--set", "maf99"),
        ("--only", "nothing"),
        ("--policy", "hope"),
        ("--scheduler", "dart-r"),
        ("--arrivals", "gama"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(
    artifact: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    code, lines, told = run(artifact, tmp_path, *arguments)
    assert code == 1
    assert not lines
    assert "error:" in told
    assert "Traceback" not in told


def test_loads_reach_from_what_is_promised_down_to_a_step(artifact: Path) -> None:
    (found,) = configurations(artifact, "main")
    plan = plan_of(found, Scheduler.PPIPE)
    trials = Trials(law=Poisson(), span_us=SECOND_US, target=0.99, scenario=Scenario())
    half = {model.model: 0.5 * model.throughput_rps for model in plan.models}
    down = (1.0, 0.75, 0.5, 0.25)
    for job in jobs_of(plan, half, trials, 0.25):
        assert job.loads == (2.25, 2.0, 1.75, 1.5, 1.25, *down)
    assert [job.loads for job in jobs_of(plan, half, trials, 0.25, 1.0)] == [down, down]


def test_utilisation_is_of_all_gpus_of_a_class(artifact: Path) -> None:
    (found,) = configurations(artifact, "main")
    plan = with_cards(plan_of(found, Scheduler.PPIPE), Cards.GPU)
    assert {each.gpus_per_server for each in plan.gpu_classes} == {1}
    first = plan.gpu_classes[0]
    trial = Trial(
        load=1.0,
        offered_rps=1.0,
        attainment=1.0,
        busy_us={first.name: 0.5 * first.count * SECOND_US},
        span_us=SECOND_US,
    )
    assert utilisation(plan, [trial, None], frozenset({first.name})) == pytest.approx(0.5)
    assert utilisation(plan, [trial], frozenset()) is None


def test_a_summary_of_nothing_has_no_means() -> None:
    assert summary([])["mean_ratio"] is None
