"""The examples of ``docs/formats.md`` are files that can be read."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from penstock.formats.clusters import read_cluster
from penstock.formats.graphs import read_blocks, read_graph
from penstock.formats.plans import read_plan
from penstock.formats.profiles import read_profile
from penstock.formats.runlog import read_run_log
from penstock.formats.schemas import SCHEMAS
from penstock.formats.traces import read_trace

PAGE = (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")


def examples() -> dict[str, list[str]]:
    found = defaultdict(list)
    for language, text in re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL):
        found[language].append(text)
    return found


def test_every_example_can_be_read() -> None:
    found = examples()
    (cluster,) = found["yaml"]
    assert [each.name for each in read_cluster(cluster, "yaml").gpu_classes] == ["L4", "in-house"]
    graph, blocks, head, plan = found["json"]
    assert len(read_graph(graph, "graph").layers) == 2
    assert len(read_blocks(blocks, "blocks").blocks) == 1
    rows, trace = found["csv"]
    assert len(read_profile(rows, head, "profile.csv").rows) == 4
    assert read_plan(plan, "plan").models[0].pools[0].latency_us == 870
    assert len(read_trace(trace, "trace")) == 2
    (log,) = found["jsonl"]
    assert [entry.now_us for entry in read_run_log(log.splitlines(), "log")] == [0, 250]


def test_every_schema_is_named() -> None:
    for name in SCHEMAS:
        assert f"`{name}`" in PAGE
