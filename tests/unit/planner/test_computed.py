"""Profiles that were measured otherwise than their model is to be served are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from penstock.command import run
from penstock.domain.cluster import Cluster
from penstock.domain.execution import Computed, ExecutionOptions
from penstock.verbs import verbs_of
from planner.computed import computed_otherwise
from planner.inputs import Profiles
from tests.unit.planner.fleets import FAST, SLOW, mixed_fleet
from tests.unit.planner.long import write_fleet

EAGER = Computed(executor="cuda", compiled="eager", precision="fp32", memory_format="contiguous")
COMPILED = replace(EAGER, compiled="inductor")
HALVES = replace(COMPILED, precision="fp16", memory_format="channels_last")
FP16 = ExecutionOptions(precision="fp16", memory_format="channels_last")


def fleet_of(
    asked: ExecutionOptions, fast: Computed | None, slow: Computed | None = None
) -> tuple[Cluster, Profiles]:
    cluster, profiles = mixed_fleet(slo_ms=45)
    models = tuple(replace(each, execution=asked) for each in cluster.models)
    computed = {FAST: fast, SLOW: slow}
    told = {
        key: replace(each, provenance=replace(each.provenance, computed=computed[key[1]]))
        for key, each in profiles.items()
    }
    return replace(cluster, models=models), told


@pytest.mark.parametrize(
    ("asked", "computed"),
    [
        (ExecutionOptions(), None),
        (ExecutionOptions(), COMPILED),
        (ExecutionOptions(compile="on"), COMPILED),
        (ExecutionOptions(), replace(COMPILED, not_compiled=(1,))),
        (ExecutionOptions(capture=False, max_error=0.5), COMPILED),
        (ExecutionOptions(compile="off"), EAGER),
        (ExecutionOptions(), replace(EAGER, executor="cpu")),
        (FP16, HALVES),
    ],
)
def test_nothing_is_told_of_what_is_as_asked(
    asked: ExecutionOptions, computed: Computed | None
) -> None:
    assert list(computed_otherwise(*fleet_of(asked, computed), Path("profiles"))) == []


@pytest.mark.parametrize(
    ("asked", "computed"),
    [
        (ExecutionOptions(), EAGER),
        (ExecutionOptions(compile="off"), COMPILED),
        (ExecutionOptions(compile="on"), replace(EAGER, executor="cpu")),
        (ExecutionOptions(), replace(COMPILED, executor="cpu")),
        (FP16, COMPILED),
        (FP16, replace(HALVES, memory_format="contiguous")),
    ],
)
def test_what_differs_is_told(asked: ExecutionOptions, computed: Computed) -> None:
    assert len(list(computed_otherwise(*fleet_of(asked, computed), Path("profiles")))) == 1


def test_one_line_tells_files_ways_and_the_command() -> None:
    (told,) = computed_otherwise(*fleet_of(FP16, EAGER, COMPILED), Path("profiles"))
    assert told == (
        "digits is to be served as inductor, fp16, channels_last, but was measured otherwise: "
        "profiles/digits/fast.csv (eager, fp32, contiguous), "
        "profiles/digits/slow.csv (inductor, fp32, contiguous); figures will be off. "
        "Measure again: penstock profile digits --gpu-class fast --device cuda "
        "--precision fp16 --memory-format channels_last --compile auto"
    )


def test_planning_warns_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_fleet(*fleet_of(ExecutionOptions(), EAGER), tmp_path)
    with pytest.raises(SystemExit) as ended:
        run("planner", verbs_of("planner"), ["plan", "cluster.yaml", "--json"])
    assert not ended.value.code
    lines = capsys.readouterr().err.splitlines()
    assert [each.partition(" is to be served")[0] for each in lines if "warning" in each] == [
        "warning: digits"
    ]
    assert Path("plan.json").exists()
