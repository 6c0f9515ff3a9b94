"""Execution options in cluster.yaml and plan.json: defaults, round trips, and what is refused."""

from __future__ import annotations

import dataclasses
import re

import pytest

from penstock.domain.errors import InvalidCluster, InvalidPlan
from penstock.domain.execution import ERROR_LIMITS, ExecutionOptions
from penstock.formats.clusters import read_cluster, write_cluster
from penstock.formats.plans import read_plan, write_plan
from tests.support.builders import a_model_plan, a_plan, a_pool

CLUSTER = """
schema: penstock.cluster/1
gpu_classes:
  - {name: L4, count: 1, memory_gib: 24, network_gbps: 10}
models:
  - name: m
    source: a:b
    slo_ms: 10
    execution: {precision: fp16, memory_format: channels_last, compile: off, max_error: 0.03}
"""
OPTIONS = ExecutionOptions(
    precision="fp16", memory_format="channels_last", compile="off", max_error=0.03
)


def test_a_cluster_says_how_a_model_is_computed() -> None:
    cluster = read_cluster(CLUSTER, "cluster.yaml")
    assert cluster.models[0].execution == OPTIONS
    assert read_cluster(write_cluster(cluster), "again") == cluster


def test_what_is_not_said_is_as_usual_and_not_written() -> None:
    text = CLUSTER[: CLUSTER.index("    execution")]
    cluster = read_cluster(text, "cluster.yaml")
    assert cluster.models[0].execution == ExecutionOptions()
    assert "execution" not in write_cluster(cluster)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("fp16", "fp8", ".precision: expected 'fp32', 'tf32'"),
        ("compile: off", "compile: sometimes", ".compile: expected"),
        ("max_error: 0.03", "max_error: 0", ".max_error: expected more than 0"),
        ("max_error: 0.03", "speed: fast", ": expected only the fields precision,"),
    ],
)
def test_what_cannot_be_is_told_where_it_stands(old: str, new: str, words: str) -> None:
    with pytest.raises(InvalidCluster, match=re.escape(f"models[0].execution{words}")):
        read_cluster(CLUSTER.replace(old, new), "cluster.yaml")


def test_a_plan_carries_it() -> None:
    plan = a_plan(dataclasses.replace(a_model_plan([a_pool()]), execution=OPTIONS))
    assert read_plan(write_plan(plan), "plan.json") == plan


def test_a_plan_without_it_has_the_defaults() -> None:
    plan = a_plan(a_model_plan([a_pool()]))
    text = write_plan(plan)
    start = text.index('      "execution"')
    without = text[:start] + text[text.index("},\n", start) + 3 :]
    assert read_plan(without, "plan.json") == plan


def test_a_plan_does_not_allow_a_negative_error() -> None:
    options = dataclasses.replace(OPTIONS, max_error=-1.0)
    plan = a_plan(dataclasses.replace(a_model_plan([a_pool()]), execution=options))
    with pytest.raises(InvalidPlan, match=r"models\[0\]\.execution\.max_error"):
        read_plan(write_plan(plan), "plan.json")


def test_each_precision_has_a_limit() -> None:
    for precision, limit in ERROR_LIMITS.items():
        assert ExecutionOptions(precision=precision).error_limit == limit
    assert OPTIONS.error_limit == 0.03
