from __future__ import annotations

import pytest

from planner.explain import explain, facts, gpus_used
from planner.planning import make_plan
from tests.unit.planner.fleets import mixed_fleet


def test_a_plan_in_words() -> None:
    plan = make_plan(*mixed_fleet(slo_ms=45))
    lines = explain(plan).splitlines()
    assert lines[:4] == [
        "digits: 125.0 samples/s within 45.0 ms (weight 1)",
        "  blocks 0-1 on 1× fast (batch 1, 8.00 ms) → blocks 2-3 on 2× slow (batch 1, 12.0 ms)",
        "    45.0 ms = compute 20.0 ms + transfer 0.08 ms + hops 1.50 ms + margin 18.0 ms "
        "+ spare 5.42 ms",
        "GPUs used: 1 of 1 fast, 2 of 3 slow",
    ]
    assert lines[4] == (
        "digits binds; full: computing in blocks 0-1 on 1× fast (batch 1, 8.00 ms); "
        "no GPU left of fast"
    )
    assert lines[5].startswith("Found by gscip (paths) in ")


def test_shares_and_several_pipelines_are_told() -> None:
    text = explain(make_plan(*mixed_fleet(slo_ms=120)))
    assert "2× 1/2 of fast" in text
    assert text.count("samples/s") == 3  # the model and both of its pipelines


def test_facts_for_programs() -> None:
    plan = make_plan(*mixed_fleet(slo_ms=45))
    told = facts(plan)
    assert told["gpus_used"] == gpus_used(plan) == {"fast": 1, "slow": 2}
    assert told["objective_rps"] == pytest.approx(125)
    (pipeline,) = told["models"][0]["pipelines"]
    assert list(pipeline["pool_use"].values()) == [1.0, 0.75]
