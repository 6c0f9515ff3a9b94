from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bench import planner_scale, ppipe_plans, replan
from bench.fleets import A100, KINDS, L4, T4, Shape, counts, make_fleet
from bench.planned import Lines, Timed, make_timed
from penstock.domain.cluster import PlannerOptions
from penstock.domain.errors import InvalidSettings, PlanningFailed
from penstock.domain.ids import GpuClassName
from planner.baselines import no_partition
from planner.published import configurations
from planner.replan import running_stages
from planner.search import find_solution
from tests.unit.planner.test_published_layout import MODELS, NAME, entry, write_plans, write_timings

KEYS = {
    "config",
    "scheduler",
    "objective_rps",
    "published_rps",
    "ratio",
    "bound_rps",
    "gap",
    "seconds",
    "verified",
}
SUMMARY = {
    "summary",
    "configs",
    "min_ratio",
    "mean_ratio",
    "median_seconds",
    "max_seconds",
    "max_gap",
    "all_verified",
}


def call(main: Callable[..., None], *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return result.exit_code, lines, result.stderr


def plans(data: Path, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    return call(ppipe_plans.main, "--data", str(data), "--set", "main", *arguments)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact with one configuration, planned by all three schedulers."""
    write_timings(tmp_path)
    for scheduler in ("v4", "bl", "dart-r"):
        write_plans(tmp_path, [entry(model) for model in MODELS], scheduler=scheduler)
    return tmp_path


def test_each_scheduler_has_a_line(artifact: Path) -> None:
    code, (*lines, total), table = plans(artifact)
    assert code == 0
    assert [line["scheduler"] for line in lines] == ["v4", "dart-r", "bl"]
    extra = {"v4": set(), "dart-r": {"division"}, "bl": set()}
    for line in lines:
        assert set(line) == KEYS | extra[line["scheduler"]]
        assert line["config"] == NAME
        assert line["published_rps"] == pytest.approx(100 / 0.6)
        assert line["ratio"] == pytest.approx(line["objective_rps"] / line["published_rps"])
        assert line["bound_rps"] >= line["objective_rps"] > 0
        assert line["gap"] <= 1e-5
        assert line["verified"] is True
        assert line["seconds"] > 0
    assert set(total) >= SUMMARY
    assert table.count(NAME[:20]) == 3


def test_partitioning_is_worth_something(artifact: Path) -> None:
    _, (partitioned, _, whole, _), _ = plans(artifact)
    assert partitioned["objective_rps"] > whole["objective_rps"]


def test_the_summary_is_of_the_lines(artifact: Path) -> None:
    _, (*lines, total), _ = plans(artifact)
    ratios = [line["ratio"] for line in lines]
    assert total["summary"] is True
    assert (total["configs"], total["lines"]) == (1, 3)
    assert total["min_ratio"] == min(ratios)
    assert total["mean_ratio"] == pytest.approx(sum(ratios) / 3)
    assert total["max_gap"] == max(line["gap"] for line in lines)
    assert total["median_seconds"] == total["max_seconds"] == lines[0]["seconds"]  # of v4 alone
    assert total["all_verified"] is True
    assert list(total["by_scheduler"]) == ["v4", "dart-r", "bl"]
    assert total["by_scheduler"]["bl"]["min_ratio"] == lines[2]["ratio"]


def a_line(scheduler: str = "v4", **values: object) -> dict[str, Any]:
    defaults = {"config": "c", "ratio": 1.0, "gap": 0.0, "seconds": 1.0, "verified": True}
    return {"scheduler": scheduler, **defaults, **values}


def test_seconds_are_those_of_partitioned_plans() -> None:
    lines = [a_line(seconds=each) for each in (1.0, 2.0, 6.0)] + [a_line("bl", seconds=50.0)]
    total = ppipe_plans.summary(lines)
    assert (total["median_seconds"], total["max_seconds"]) == (2.0, 6.0)
    alone = ppipe_plans.summary([a_line("bl", seconds=50.0)])
    assert (alone["median_seconds"], alone["max_seconds"]) == (50.0, 50.0)


def test_one_fault_is_enough() -> None:
    assert ppipe_plans.summary([a_line(), a_line(verified=False)])["all_verified"] is False
    compat = a_line(compat_verified=False, gain_over_compat=1.0)
    assert ppipe_plans.summary([a_line(), compat])["all_verified"] is False


def test_lines_without_a_ratio_do_not_count_into_it() -> None:
    total = ppipe_plans.summary([a_line(ratio=None), a_line(ratio=0.9)])
    assert (total["min_ratio"], total["mean_ratio"]) == (0.9, 0.9)
    nothing = ppipe_plans.summary([a_line(ratio=None, gap=None, seconds=None, verified=False)])
    assert [nothing[key] for key in ("min_ratio", "mean_ratio", "max_gap", "max_seconds")] == [
        None
    ] * 4


def test_schedulers_may_be_missing(artifact: Path) -> None:
    for scheduler in ("bl", "v4"):
        (artifact / "plans" / "main" / f"{NAME}_{scheduler}.json").unlink()
    code, (line, total), _ = plans(artifact)
    assert code == 0
    assert (line["scheduler"], line["division"]) == ("dart-r", "computed")
    assert total["max_seconds"] == line["seconds"]  # there is no v4


def test_the_published_division_is_taken_where_there_is_one(artifact: Path) -> None:
    assert plans(artifact)[1][1]["division"] == "published"


def test_general_mode_against_compat(artifact: Path) -> None:
    code, (line, *_, total), _ = plans(artifact, "--mode", "general", "--against-compat")
    assert code == 0
    assert line["gain_over_compat"] == pytest.approx(line["objective_rps"] / line["compat_rps"])
    assert line["gain_over_compat"] >= 1 - 1e-9
    assert total["mean_gain_over_compat"] == line["gain_over_compat"]
    assert total["never_below_compat"] is True
    without = plans(artifact, "--mode", "general")[1]
    assert set(without[0]) == KEYS
    assert "mean_gain_over_compat" not in without[-1]


def test_below_compat_is_a_failure(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = {"compat_rps": 2.0, "compat_verified": True, "gain_over_compat": 0.9}
    monkeypatch.setattr(ppipe_plans, "_against_compat", lambda *_: worse)
    code, lines, table = plans(artifact, "--mode", "general", "--against-compat")
    assert (code, lines[-1]["never_below_compat"]) == (1, False)
    assert f"general mode is below compat mode in 1: {NAME}" in table


def asked(**values: Any) -> ppipe_plans.Asked:
    defaults = {"mode": "compat", "solver": "highs", "time_limit_s": 60.0, "gap": 1e-5}
    return ppipe_plans.Asked(**{**defaults, **values})


@pytest.mark.parametrize(
    ("stages", "expected"), [(None, [2, 2, 1]), (1, [1, 2, 1]), (3, [3, 2, 1])]
)
def test_stages_are_those_of_the_file_or_those_asked_for(
    artifact: Path, stages: int | None, expected: list[int]
) -> None:
    cases = ppipe_plans.published(configurations(artifact, "main"), asked(stages=stages))
    assert [each.cluster.options.max_stages for each in cases] == expected


def test_only_partitioned_plans_are_made_in_general_mode(artifact: Path) -> None:
    cases = ppipe_plans.published(configurations(artifact, "main"), asked(mode="general"))
    modes = [(each.cluster.options.mode, each.cluster.options.packing) for each in cases]
    assert modes == [("general", "whole-gpu"), ("compat", "per-stage"), ("compat", "per-stage")]


def test_a_margin_takes_the_place_of_that_in_the_file(artifact: Path) -> None:
    _, (published, *_), _ = plans(artifact)
    _, (same, *_), _ = plans(artifact, "--margin", "0.4")
    _, (tight, *_), _ = plans(artifact, "--margin", "0.9")
    assert same["objective_rps"] == pytest.approx(published["objective_rps"])
    assert tight["objective_rps"] < published["objective_rps"]


def test_what_cannot_be_planned_says_so(artifact: Path) -> None:
    code, (*lines, total), table = plans(artifact, "--margin", "0.999")
    assert code == 0
    for line in lines:
        assert set(line) == KEYS | {"why_not"}
        assert (line["objective_rps"], line["verified"]) == (None, False)
        assert "infeasible" in line["why_not"]
    assert (total["all_verified"], total["min_ratio"]) == (False, None)
    assert "infeasible" in table


def test_each_model_alone_once_per_cluster(artifact: Path) -> None:
    other = NAME.replace("2-3_bw", "3-3_bw")
    for name in (other, NAME.replace("wide_net_2-b-3_0.4-0.6", "b-3_1.0")):
        models = MODELS if name == other else ("b-3",)
        write_plans(artifact, [entry(model) for model in models], name)
    code, (*lines, total), _ = plans(artifact, "--single-model", "--margin", "0.1", "--stages", "3")
    assert code == 0
    tails = ("L4-T4_2-3_bw-gbps-8_sla-multiplier-5", "L4-T4_3-3_bw-gbps-8_sla-multiplier-5")
    expected = {f"{model}_{tail}" for model in MODELS for tail in tails}
    assert {line["config"] for line in lines} == expected
    assert (len(lines), total["configs"]) == (4, 4)
    for line in lines:
        assert (line["scheduler"], line["published_rps"], line["ratio"]) == ("v4", None, None)
        assert line["verified"] is True
    assert total["min_ratio"] is None


@pytest.mark.parametrize(
    ("only", "found"), [("0", 1), ("0,1", 2), ("_2-3_", 1), ("", 2), ("sla", 2)]
)
def test_only_some_configurations(artifact: Path, only: str, found: int) -> None:
    write_plans(artifact, [entry(m) for m in MODELS], NAME.replace("2-3_bw", "3-3_bw"))
    code, (*_, total), _ = plans(artifact, "--only", only)
    assert (code, total["configs"]) == (0, found)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "7"), "indexes below 1"),
        (("--only", "V100"), "--only: expected part of the name of one of 1 configurations"),
        (("--set", "maf99"), "unknown plan set 'maf99'; known: main"),
        (("--data", "nowhere"), "nowhere: plans: expected the data folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(
    artifact: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    code, lines, errors = plans(artifact, *arguments)
    assert (code, lines) == (1, [])
    assert errors.startswith("error: ")
    assert complaint in errors
    assert len(errors.splitlines()) == 1


def test_a_spoilt_file_is_one_line_too(artifact: Path) -> None:
    write_plans(artifact, "[{}]")
    code, lines, errors = plans(artifact)
    assert (code, lines, len(errors.splitlines())) == (1, [], 1)
    assert f"{NAME}_v4.json" in errors


def test_the_lines_go_to_a_file_as_well(artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "lines.jsonl"
    _, lines, _ = plans(artifact, "--out", str(out))
    assert [json.loads(line) for line in out.read_text().splitlines()] == lines


def test_batches_get_the_time_to_fill_that_the_plan_itself_takes(artifact: Path) -> None:
    # At the published 10 000 samples/s a batch of 3 needs next to no time to fill.
    for scheduler in ("v4", "bl", "dart-r"):
        quick = [entry(model, est_xput=10_000.0) for model in MODELS]
        write_plans(artifact, quick, scheduler=scheduler)
    _, (*lines, _), errors = plans(artifact)
    assert all(line["verified"] for line in lines), errors


TINY = Shape(kinds=(A100, L4, T4), reference=L4, models=2, blocks=3, batches=(1, 2), shares=(1, 2))
WHOLE = replace(TINY, shares=(1,))  # without shares there is little to search
OPTIONS = PlannerOptions(max_stages=2, max_batch=2, relative_gap=0.1, time_limit_s=20)


def test_equal_seeds_make_equal_fleets() -> None:
    assert make_fleet(9, TINY, OPTIONS, 3) == make_fleet(9, TINY, OPTIONS, 3)
    assert make_fleet(9, TINY, OPTIONS, 3) != make_fleet(9, TINY, OPTIONS, 4)


def test_only_the_counts_differ_between_sizes() -> None:
    small, profiles = make_fleet(9, TINY, OPTIONS, 3)
    large, same_profiles = make_fleet(90, TINY, OPTIONS, 3)
    assert (small.models, profiles) == (large.models, same_profiles)
    assert sum(each.count for each in large.gpu_classes) == 90


@pytest.mark.parametrize("gpus", [5, 6, 17, 50, 1000])
def test_fleets_have_as_many_gpus_as_asked_and_some_of_each_kind(gpus: int) -> None:
    found = counts(gpus, KINDS)
    assert sum(found) == gpus
    assert min(found) >= 1


def test_some_blocks_gain_much_from_a_fast_gpu_and_some_little() -> None:
    _, profiles = make_fleet(50, Shape(models=5), OPTIONS, 0)
    ratios = []
    for (model, gpu_class), profile in profiles.items():
        if gpu_class == "T4":
            fast = profiles[model, GpuClassName(A100.name)]
            ratios += [
                slow.latency_mean_us / quick.latency_mean_us
                for slow, quick in zip(profile.rows, fast.rows, strict=True)
                if slow.batch == 1 and slow.share == 1
            ]
    assert min(ratios) < 1.5
    assert max(ratios) > 2.5


def test_a_larger_fleet_sustains_more() -> None:
    lines = [planner_scale.measured(size, TINY, OPTIONS, 0) for size in (6, 24)]
    for line in lines:
        assert line["verified"] is True
        assert line["value"] <= line["proven_bound"] * (1 + 1e-9)
        assert line["proven_bound"] <= line["bound"] * (1 + 1e-6)
        assert line["gap"] == pytest.approx(1 - line["value"] / line["bound"])
        assert line["peak_rss_gib"] > 0
        assert {"rates", "enumeration", "relaxation"} <= set(line["seconds_by_phase"])
        assert line["paths"] > 0
    assert lines[1]["value"] > lines[0]["value"]


def scale_line(gpus: int = 1000, **values: object) -> dict[str, Any]:
    line = {"gpus": gpus, "models": 2, "paths": 5, "value": 99.5, "bound": 100.0, "gap": 0.005}
    return {**line, "seconds": 30.0, "peak_rss_gib": 1.0, "verified": True, **values}


@pytest.mark.parametrize(
    ("missed", "met"),
    [({}, True), ({"gap": 0.02}, False), ({"seconds": 61.0}, False), ({"peak_rss_gib": 5}, False)],
)
def test_the_bar_is_for_the_largest_fleet(missed: dict[str, Any], met: bool) -> None:
    small = scale_line(50, gap=0.2)
    total = planner_scale.summary([scale_line(**missed), small])
    assert total["bar_met"] is met
    assert total["max_gap"] == 0.2


def test_lines_and_picture_are_written(tmp_path: Path) -> None:
    lines = [scale_line(50), scale_line()]
    assert not planner_scale.report(lines, [50, 1000], tmp_path / "bench")
    assert planner_scale.report([scale_line(verified=False)], [1000], tmp_path / "bench")
    assert (tmp_path / "bench" / "planner_scale.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "bench" / "planner_scale.jsonl").read_text()
    assert json.loads(text.splitlines()[-1])["summary"] is True


def test_a_fleet_without_a_plan_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = replace(WHOLE, models=4)  # for three GPUs, none of them shared
    line = planner_scale.measured(3, many, OPTIONS, 0)
    assert "infeasible" in line["why_not"]
    assert planner_scale.report([line, scale_line()], [3, 1000], tmp_path)
    told = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
    assert (told[0], told[1]["gpus"], told[2]["sizes"]) == (line, 1000, [1000])
    assert planner_scale.report([line], [3], tmp_path / "none")
    assert not (tmp_path / "none" / "planner_scale.png").exists()


def test_each_size_runs_in_a_process_of_its_own() -> None:
    small = {"--models": 1, "--stages": 1, "--max-batch": 1, "--time-limit": 20}
    line = planner_scale.in_child(5, small)
    assert (line["gpus"], line["models"], line["verified"]) == (5, 1, True)


@pytest.mark.parametrize("text", ["", "x", "4", "50,-1", "50,,60"])
def test_sizes_must_be_numbers(text: str) -> None:
    with pytest.raises(InvalidSettings, match="expected numbers of at least 5, with commas"):
        planner_scale.sizes_of(text)
    assert call(planner_scale.main, "--gpus", text)[0] == 1


def test_planning_again_is_compared_with_planning_afresh() -> None:
    lines = list(replan.measured(6, 1, WHOLE, OPTIONS, 20.0))
    assert len(lines) == 2 * 2 * 2  # objectives, models, down and up
    assert {(line["objective"], line["what"]) for line in lines} == {
        ("max-min", "weight"),
        ("fewest-gpus", "rate"),
    }
    for line in lines:
        assert 0 <= line["kept"] <= line["instances"]
        assert line["kept_fraction"] == line["kept"] / line["instances"]
        assert line["kept_fraction"] >= line["kept_fraction_afresh"]
        assert line["as_good"] is True
        assert line["verified"] is True
    total = replan.summary(lines)
    assert total["cases"] == 8
    assert total["min_kept_fraction"] == min(line["kept_fraction"] for line in lines)
    assert total["max_seconds"] == max(line["seconds"] for line in lines)


@pytest.fixture(scope="module")
def timed() -> Timed:
    cluster, profiles = make_fleet(9, TINY, OPTIONS, 0)
    return make_timed(cluster, profiles, find_solution, "general", "highs")


def test_what_does_not_change_is_kept(timed: Timed) -> None:
    plan = timed.plan
    running = running_stages(plan)
    assert replan.kept(plan, running) == sum(running.values())
    fewer = dict.fromkeys(running, 1)
    assert replan.kept(plan, fewer) == len(fewer)
    assert replan.kept(plan, {}) == 0


@pytest.mark.parametrize(("part", "good"), [(1.0, True), (0.9985, True), (0.99, False)])
def test_keeping_must_not_cost_more_than_the_gap(timed: Timed, part: float, good: bool) -> None:
    plan = timed.plan
    worse = replace(plan, solve=replace(plan.solve, value=part * plan.solve.value))
    assert replan.as_good(worse, plan, 1e-3) is good
    gpus = replace(plan.solve, objective="fewest-gpus")
    dearer = replace(plan, solve=replace(gpus, value=plan.solve.value / part))
    assert replan.as_good(dearer, replace(plan, solve=gpus), 1e-3) is good


def test_a_change_is_of_one_weight_or_one_rate(timed: Timed) -> None:
    cluster, _ = make_fleet(9, TINY, OPTIONS, 0)
    up = replan.Change(model=1, factor=1.2).of(cluster)
    assert up.models[0] == cluster.models[0]
    assert up.models[1].weight == pytest.approx(1.2 * cluster.models[1].weight)
    asking = replan.with_rates(cluster, timed.plan)
    down = replan.Change(model=0, factor=0.8).of(asking)
    assert down.models[0].weight == cluster.models[0].weight
    assert asking.models[0].rate_rps is not None
    assert down.models[0].rate_rps == pytest.approx(0.8 * asking.models[0].rate_rps)


def test_the_replan_bench_prints_lines_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    line = next(replan.measured(6, 1, WHOLE, OPTIONS, 20.0))
    assert not replan.report(iter([line]), Lines())
    assert replan.report(iter([{**line, "verified": False}]), Lines())
    assert replan.report(iter([{**line, "as_good": False}]), Lines())
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(printed[0]) == line
    assert json.loads(printed[1])["cases"] == 1


def test_plans_that_are_not_found_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_vain(*_: object, **__: object) -> Timed:
        raise PlanningFailed("no plan was found in time")

    found = list(replan.measured(6, 1, WHOLE, OPTIONS, 20.0))[:1]
    change = replan.Change(model=0, factor=0.8)
    cluster, profiles = make_fleet(6, WHOLE, OPTIONS, 0)
    before = make_timed(cluster, profiles, find_solution, "general", "highs")
    monkeypatch.setattr(replan, "plan_of", in_vain)
    line = replan.replanned(cluster, profiles, before, change)
    assert (line["changed"], line["why_not"]) == ("model00", "no plan was found in time")
    lines = [*found, {**line, "seed": 0, "objective": "max-min"}]
    total = replan.summary(lines)
    assert (total["cases"], total["not_planned"]) == (1, 1)
    assert replan.summary(lines[1:])["max_seconds"] is None
    assert replan.report(iter(lines), Lines())
    assert "model00: no plan was found in time" in capsys.readouterr().err


def test_a_faulty_plan_is_found() -> None:
    cluster, profiles = make_fleet(9, TINY, OPTIONS, 0)
    # Shares and cuts that a plan called whole must not have.
    whole = make_timed(
        cluster, profiles, lambda i, s: find_solution(no_partition(i), s), "no-partition", "highs"
    )
    assert whole.verified
    falsely = make_timed(cluster, profiles, find_solution, "no-partition", "highs")
    assert falsely.verified is False
