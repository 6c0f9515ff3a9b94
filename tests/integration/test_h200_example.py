"""The H200 example is what its files say: profiles from data, a plan from profiles."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from penstock.formats.plans import write_plan
from planner.digests import input_digests
from planner.files import load_cluster, load_plan, load_profiles
from planner.planning import make_plan
from planner.verify import find_faults

EXAMPLE = Path(__file__).parents[2] / "examples" / "h200-slices"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_profiles", EXAMPLE / "make_profiles.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_makes_the_committed_profiles(script: ModuleType, tmp_path: Path) -> None:
    script.main(tmp_path)
    made = {each.relative_to(tmp_path): each.read_bytes() for each in tmp_path.rglob("*.*")}
    committed = EXAMPLE / "profiles"
    assert made == {
        each.relative_to(committed): each.read_bytes() for each in committed.rglob("*.*")
    }
    assert len(made) == 2 * 4 * 2


def test_blocks_hold_every_unit_once(script: ModuleType) -> None:
    starts = script.group_units([5.0, 5.0, 30.0, 1.0, 1.0, 8.0, 50.0])
    assert starts == [0, 2, 3, 6]
    assert len(script.group_units([1.0] * 100)) == 10


def test_the_committed_plan_is_sound_and_the_one_that_is_planned() -> None:
    cluster = load_cluster(EXAMPLE / "cluster.yaml")
    profiles = load_profiles(EXAMPLE / "profiles", cluster)
    committed = load_plan(EXAMPLE / "plan.json")
    digests = input_digests(cluster, profiles)
    assert list(find_faults(committed, cluster, profiles, digests)) == []
    planned = make_plan(cluster, profiles)
    timeless = replace(committed, solve=replace(planned.solve, seconds=0.0))
    again = replace(planned, solve=replace(planned.solve, seconds=0.0))
    assert json.loads(write_plan(again)) == json.loads(write_plan(timeless))


def test_partitioning_pays_as_the_readme_says() -> None:
    cluster = load_cluster(EXAMPLE / "cluster.yaml")
    profiles = load_profiles(EXAMPLE / "profiles", cluster)
    whole, split = (make_plan(cluster, profiles, partition=each) for each in (False, True))
    assert split.solve.objective_rps / whole.solve.objective_rps == pytest.approx(1.58, abs=0.01)
