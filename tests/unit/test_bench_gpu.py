"""bench/gpu.py as far as a host without a GPU goes: its plans, its summary, its refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.gpu import LAYOUTS, stage_links, summary_of
from bench.gpu_plans import Layout, plan_layout, split_evenly
from penstock.domain.execution import ExecutionOptions
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile, ProfileRow, Provenance
from penstock.formats.plans import read_plan, write_plan
from tests.support.processes import ROOT

BLOCKS_US = (100, 300, 200, 200, 400)


def a_profile(batch: int) -> LatencyProfile:
    rows = tuple(
        ProfileRow(
            block=block,
            batch=size,
            share=share,
            latency_mean_us=round(size * us / share),
            latency_p99_us=round(size * us / share),
            samples=1,
        )
        for share in {each.share for each in LAYOUTS}
        for block, us in enumerate(BLOCKS_US)
        for size in range(1, batch + 1)
    )
    return LatencyProfile(
        model=ModelName("m"),
        gpu_class=GpuClassName("gpu"),
        blocks=len(BLOCKS_US),
        rows=rows,
        cut_bytes=(4, 8, 16, 32),
        weight_bytes=(1,) * len(BLOCKS_US),
        activation_bytes=(1,) * len(BLOCKS_US),
        provenance=Provenance(kind="measured", device="d", driver="", torch="", date="2026-01-01"),
    )


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=8), st.data())
def test_blocks_are_split_into_as_many_stages_as_asked(
    latencies: list[int], data: st.DataObject
) -> None:
    stages = data.draw(st.integers(1, len(latencies)))
    ends = split_evenly(latencies, stages)
    assert len(ends) == stages + 1
    assert (ends[0], ends[-1]) == (0, len(latencies))
    assert list(ends) == sorted(set(ends))


def test_the_slowest_stage_is_as_quick_as_it_can_be() -> None:
    assert split_evenly(BLOCKS_US, 2) == (0, 3, 5)
    assert split_evenly(BLOCKS_US, 3) == (0, 2, 4, 5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_fills_one_gpu_with_a_plan_that_can_be_read(layout: Layout) -> None:
    plan = plan_layout(a_profile(2), layout, 2, 1 << 30, ExecutionOptions())
    assert read_plan(write_plan(plan), "plan.json") == plan
    (model,) = plan.models
    assert sum(pool.share * pool.instances for pool in model.pools) == 1
    slowest_us = max(pool.latency_us for pool in model.pools)
    assert model.throughput_rps == pytest.approx(layout.copies * 2e6 / slowest_us)


def test_stages_take_what_was_measured_on_their_share() -> None:
    plan = plan_layout(a_profile(1), Layout(stages=2), 1, 1 << 30, ExecutionOptions())
    assert [pool.share for pool in plan.models[0].pools] == [Fraction(1, 2)] * 2
    assert [pool.latency_us for pool in plan.models[0].pools] == [1_200, 1_200]
    assert plan.models[0].pipelines[0].transfers[0].bytes_per_sample == 16


def test_the_summary_tells_the_worst_beside_the_bar() -> None:
    lines = [
        {"part": "executor", "over_bare": 0.98},
        {"part": "executor", "over_bare": 0.96},
        {"part": "shares", "attainment": 1.0, "over_planned": 0.95, "links": ""},
        {"part": "shares", "attainment": 1.0, "over_planned": 0.97, "links": "CUDA IPC"},
    ]
    summary = summary_of(lines)
    assert summary["executor_over_bare"] == 0.96
    assert summary["served_over_bare"] is None
    assert summary["stage_links"] == ["CUDA IPC"]
    assert summary["bar"]["executor_over_bare"] == 0.97
    assert json.dumps(summary)


def test_links_between_stages_are_told_apart_from_the_frontends() -> None:
    ends = [("frontend", "p0/0"), ("p0/0", "p1/0"), ("p0/1", "p1/0"), ("p1/0", "frontend")]
    kinds = ["shared memory", "CUDA IPC", "CUDA IPC", "shared memory"]
    links = [
        {"sender": sender, "receiver": receiver, "kind": kind}
        for (sender, receiver), kind in zip(ends, kinds, strict=True)
    ]
    assert stage_links(links) == "CUDA IPC"
    assert stage_links([]) == ""


def test_without_a_gpu_it_says_so_and_does_nothing_else() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    command = [sys.executable, "-m", "bench.gpu"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "needs a CUDA device" in result.stderr
