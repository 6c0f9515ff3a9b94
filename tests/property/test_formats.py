"""What is written is read back equal; whatever else is read is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import is_dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.arrivals import Arrival
from penstock.domain.blocks import Block, BlockPartition, TensorSpec
from penstock.domain.cluster import (
    Cluster,
    DeviceRates,
    GpuClass,
    Objective,
    Packing,
    PlannerOptions,
    ServedModel,
)
from penstock.domain.errors import InvalidInput
from penstock.domain.execution import Computed
from penstock.domain.graph import Layer, ModelGraph
from penstock.domain.ids import GpuClassName, ModelName, PipelineId, PoolId
from penstock.domain.plan import (
    Digest,
    ModelPlan,
    ObjectiveUnit,
    Pipeline,
    Plan,
    PlannedClass,
    Pool,
    SolvePhase,
    SolveReport,
    Transfer,
)
from penstock.domain.profiles import LatencyProfile, ProfileRow, Provenance
from penstock.domain.tensors import DATATYPE_BYTES
from penstock.formats.clusters import read_cluster, write_cluster
from penstock.formats.graphs import read_blocks, read_graph, write_blocks, write_graph
from penstock.formats.plans import read_plan, write_plan
from penstock.formats.profiles import read_profile, write_profile
from penstock.formats.runlog import EFFECTS, EVENTS, LogEntry, read_run_log, write_run_log
from penstock.formats.traces import read_trace, write_trace
from penstock.scheduling.events import PlanApplied

T = TypeVar("T")

fewer = settings(max_examples=settings().max_examples // 3)  # each example is a whole file

NAMES: st.SearchStrategy[Any] = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,7}", fullmatch=True)
TEXTS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)
NOTES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SHA256 = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
SHARES = st.builds(Fraction, st.just(1), st.integers(1, 9999))
SIZES = st.integers(0, 1 << 62)
MICROS = st.integers(1, 1 << 40)
COUNTS = st.integers(1, 1000)
POSITIVE = st.floats(1e-3, 1e9)
FROM_0 = st.floats(0, allow_infinity=False)
UNITS: dict[Objective, ObjectiveUnit] = {
    "max-min": "rps",
    "goodput": "rps",
    "least-cost": "per-hour",
    "fewest-gpus": "gpus",
}
OBJECTIVES, PACKINGS = list(UNITS), list[Packing](get_args(Packing))


def unique(names: st.SearchStrategy[T], least: int = 1) -> st.SearchStrategy[list[T]]:
    return st.lists(names, min_size=least, max_size=3, unique=True)


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    objective, capped = draw(st.sampled_from(OBJECTIVES)), draw(st.booleans())
    priced, rated = objective == "least-cost" or capped, objective != "max-min"
    names = draw(unique(NAMES))
    compat = draw(st.booleans())
    rates = st.builds(
        DeviceRates, peak_tflops=POSITIVE, memory_gbytes_per_s=POSITIVE, launch_us=POSITIVE
    )
    return Cluster(
        gpu_classes=tuple(
            draw(
                st.builds(
                    GpuClass,
                    name=st.just(name),
                    count=st.integers(5, 1000),
                    memory_bytes=st.integers(1, 1 << 50),
                    gpus_per_server=COUNTS,
                    network_gbps=POSITIVE,
                    price_per_hour=POSITIVE if priced else st.none() | POSITIVE,
                    max_share_denominator=COUNTS,
                    rates=st.none() | rates,
                )
            )
            for name in names
        ),
        models=tuple(
            draw(
                st.builds(
                    ServedModel,
                    name=st.just(name),
                    source=TEXTS,
                    slo_us=st.integers(1_001, 10**12),
                    weight=POSITIVE,
                    rate_rps=POSITIVE if rated else st.none() | POSITIVE,
                    gpu_classes=st.sampled_from([(), tuple(names)]),
                    forbidden_gpu_classes=st.just(tuple(names[1:])),
                    max_stages=st.none() | COUNTS,
                    max_latency_us=st.none() | st.integers(1, 10**12),
                    margin_us=st.none() | st.integers(0, 1_000),
                )
            )
            for name in draw(unique(NAMES, 0))
        ),
        options=draw(
            st.builds(
                PlannerOptions,
                mode=st.just("compat" if compat else "general"),
                objective=st.just(objective),
                packing=st.just("per-stage") if compat else st.sampled_from(PACKINGS),
                rebatch=st.just(value=False) if compat else st.booleans(),
                workspace_bytes=st.integers(0, 1 << 49),
                max_price_per_hour=POSITIVE if capped else st.none(),
                spare_gpus=st.integers(0, 4),
                max_stages=COUNTS,
                max_batch=COUNTS,
                slo_margin=st.floats(0, 1, exclude_max=True),
                batch_build_factor=POSITIVE,
                hop_overhead_us=st.integers(0, 10**12),
                time_limit_s=POSITIVE,
                relative_gap=st.floats(0, 1),
                seed=st.integers(0, (1 << 31) - 1),
            )
        ),
    )


@st.composite
def profiles(draw: st.DrawFn) -> LatencyProfile:
    blocks = draw(st.integers(1, 4))
    pairs = draw(st.lists(st.tuples(COUNTS, SHARES), min_size=1, max_size=4, unique=True))
    return LatencyProfile(
        model=draw(NAMES),
        gpu_class=draw(NAMES),
        blocks=blocks,
        rows=tuple(
            ProfileRow(
                block=block,
                batch=batch,
                share=share,
                latency_mean_us=draw(MICROS),
                latency_p99_us=draw(MICROS),
                samples=draw(st.integers(0, 100)),
            )
            for block in range(blocks)
            for batch, share in sorted(pairs)
        ),
        cut_bytes=several(draw, SIZES, blocks - 1),
        weight_bytes=several(draw, SIZES, blocks),
        activation_bytes=several(draw, SIZES, blocks),
        provenance=draw(
            st.builds(
                Provenance,
                device=NOTES,
                driver=NOTES,
                torch=NOTES,
                date=NOTES,
                note=NOTES,
                computed=st.none() | st.builds(Computed),
            )
        ),
        blocks_digest=draw(st.just("") | SHA256),
    )


@st.composite
def graphs(draw: st.DrawFn) -> ModelGraph:
    names = draw(unique(TEXTS))
    return ModelGraph(
        model=draw(NAMES),
        layers=tuple(
            Layer(
                name=name,
                operator=draw(NOTES),
                flops=draw(SIZES),
                activation_bytes=draw(SIZES),
                weight_bytes=draw(SIZES),
                launches=draw(SIZES),
            )
            for name in names
        ),
        cut_bytes=several(draw, SIZES, len(names) - 1),
    )


@st.composite
def partitions(draw: st.DrawFn) -> BlockPartition:
    ends = list(accumulate(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)), initial=0))
    tensors = [
        draw(
            st.builds(
                TensorSpec,
                name=st.just(f"x{number}"),
                datatype=st.sampled_from(sorted(DATATYPE_BYTES)),
                shape=st.lists(st.integers(1, 9) | st.just(-1), max_size=3).map(tuple),
            )
        )
        for number in range(len(ends))
    ]
    return BlockPartition(
        model=draw(NAMES),
        version=draw(NAMES),
        inputs=(tensors[0],),
        outputs=(tensors[-1],),
        blocks=tuple(
            draw(
                st.builds(
                    Block,
                    index=st.just(index),
                    first_layer=st.just(first),
                    end_layer=st.just(end),
                    inputs=st.just((tensors[index],)),
                    outputs=st.just((tensors[index + 1],)),
                    flops=SIZES,
                    moved_bytes=SIZES,
                    launches=SIZES,
                    activation_bytes=SIZES,
                    weight_bytes=SIZES,
                    file=st.just(f"block_{index}.pt2"),
                    sha256=SHA256,
                )
            )
            for index, (first, end) in enumerate(pairwise(ends))
        ),
        cut_bytes=several(draw, SIZES, len(ends) - 2),
        band=(draw(st.floats(0, 1)), draw(st.floats(1, 10))),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    classes, objective = draw(unique(NAMES)), draw(st.sampled_from(OBJECTIVES))
    return Plan(
        gpu_classes=tuple(
            draw(
                st.builds(
                    PlannedClass,
                    name=st.just(name),
                    count=COUNTS,
                    memory_bytes=MICROS,
                    gpus_per_server=COUNTS,
                    network_gbps=POSITIVE,
                    price_per_hour=st.none() | FROM_0,
                )
            )
            for name in classes
        ),
        models=tuple(model_plan(draw, name, classes) for name in draw(unique(NAMES))),
        hop_overhead_us=draw(SIZES),
        packing=draw(st.sampled_from(PACKINGS)),
        solve=draw(
            st.builds(
                SolveReport,
                objective=st.just(objective),
                unit=st.just(UNITS[objective]),
                objective_rps=FROM_0,
                value=FROM_0,
                bound=FROM_0,
                gap=st.floats(0, 1),
                seconds=FROM_0,
                phases=st.lists(st.builds(SolvePhase, name=TEXTS, seconds=FROM_0), max_size=2).map(
                    tuple
                ),
                solver=NOTES,
                formulation=NOTES,
                status=NOTES,
                seed=SIZES,
            )
        ),
        inputs=draw(st.lists(st.builds(Digest, name=TEXTS, sha256=SHA256), max_size=2).map(tuple)),
    )


def model_plan(draw: st.DrawFn, name: ModelName, classes: list[GpuClassName]) -> ModelPlan:
    ends = list(accumulate(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)), initial=0))
    stages = list(pairwise(ends))
    slo_us = draw(MICROS)
    return ModelPlan(
        model=name,
        blocks=ends[-1],
        slo_us=slo_us,
        weight=draw(POSITIVE),
        margin_us=draw(st.integers(0, slo_us - 1)),
        throughput_rps=draw(POSITIVE),
        pools=tuple(
            a_pool(draw, PoolId(f"{name}/{position}"), position, stage, classes)
            for position, stage in enumerate(stages)
        ),
        pipelines=(
            Pipeline(
                id=PipelineId(f"{name}/0"),
                pools=tuple(PoolId(f"{name}/{position}") for position in range(len(stages))),
                transfers=several(
                    draw,
                    st.builds(Transfer, bytes_per_sample=SIZES, us_per_sample=SIZES),
                    len(stages) - 1,
                ),
                throughput_rps=draw(POSITIVE),
                batch_build_us=draw(SIZES),
                latency_us=draw(MICROS),
            ),
        ),
        blocks_digest=draw(st.just("") | SHA256),
    )


def a_pool(
    draw: st.DrawFn,
    name: PoolId,
    position: int,
    stage: tuple[int, int],
    classes: list[GpuClassName],
) -> Pool:
    batch = draw(st.sampled_from([1, 2, 4]))
    return Pool(
        id=name,
        position=position,
        first_block=stage[0],
        end_block=stage[1],
        gpu_class=draw(st.sampled_from(classes)),
        share=draw(SHARES),
        batch=batch,
        instances=draw(COUNTS),
        latency_us_by_batch=several(draw, MICROS, batch),
        memory_bytes=draw(SIZES),
    )


def several(draw: st.DrawFn, each: st.SearchStrategy[T], count: int) -> tuple[T, ...]:
    return tuple(draw(st.lists(each, min_size=count, max_size=count)))


ARRIVALS = st.lists(
    st.builds(Arrival, arrival_us=SIZES, model=NAMES, samples=COUNTS, slo_us=st.none() | MICROS),
    max_size=8,
).map(lambda arrivals: tuple(sorted(arrivals, key=lambda each: each.arrival_us)))


def filled(hint: Any) -> st.SearchStrategy[Any]:
    """Return values of a type of the scheduling core, with integers that fit a file."""
    if is_dataclass(hint):
        parts = {name: filled(each) for name, each in get_type_hints(hint).items()}
        return st.builds(hint, **parts)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        return st.lists(filled(get_args(hint)[0]), max_size=3).map(tuple)
    if get_origin(hint) is UnionType:
        return st.one_of([filled(each) for each in get_args(hint)])
    base = getattr(hint, "__supertype__", hint)  # what a NewType stands for
    return {int: SIZES, str: NOTES}.get(base, st.from_type(base))


EVENT = st.one_of([filled(kind) for kind in EVENTS.values() if kind is not PlanApplied])
EFFECT = st.one_of([filled(kind) for kind in EFFECTS.values()])
ENTRIES = st.lists(
    st.builds(
        LogEntry,
        SIZES,
        EVENT | st.builds(PlanApplied, plans()),
        st.lists(EFFECT, max_size=3).map(tuple),
    ),
    max_size=3,
).map(lambda entries: sorted(entries, key=lambda each: each.now_us))


@fewer
@given(clusters())
def test_clusters(cluster: Cluster) -> None:
    text = write_cluster(cluster)
    assert read_cluster(text, "cluster.yaml") == cluster
    assert write_cluster(read_cluster(text, "cluster.yaml")) == text


@fewer
@given(profiles())
def test_profiles(profile: LatencyProfile) -> None:
    rows, head = write_profile(profile)
    assert read_profile(rows, head, "profile.csv") == profile
    assert write_profile(read_profile(rows, head, "profile.csv")) == (rows, head)


@fewer
@given(graphs())
def test_graphs(graph: ModelGraph) -> None:
    assert read_graph(write_graph(graph), "graph.json") == graph


@fewer
@given(partitions())
def test_partitions(partition: BlockPartition) -> None:
    assert read_blocks(write_blocks(partition), "blocks.json") == partition


@fewer
@given(plans())
def test_plans(plan: Plan) -> None:
    text = write_plan(plan)
    assert read_plan(text, "plan.json") == plan
    assert write_plan(read_plan(text, "plan.json")) == text


@fewer
@given(ARRIVALS)
def test_traces(arrivals: tuple[Arrival, ...]) -> None:
    assert read_trace(write_trace(arrivals), "trace.csv") == arrivals


@fewer
@given(ENTRIES)
def test_run_logs(entries: list[LogEntry]) -> None:
    text = write_run_log(entries)
    assert list(read_run_log(text.splitlines(), "run.jsonl")) == entries


Reader = Callable[[str], object]
READERS: dict[str, Reader] = {
    "cluster": lambda text: read_cluster(text, "x"),
    "profile rows": lambda text: read_profile(text, HEAD, "x.csv"),
    "profile head": lambda text: read_profile("", text, "x.csv"),
    "graph": lambda text: read_graph(text, "x"),
    "blocks": lambda text: read_blocks(text, "x"),
    "plan": lambda text: read_plan(text, "x"),
    "trace": lambda text: read_trace(text, "x"),
    "run log": lambda text: list(read_run_log(text.splitlines(), "x")),
}
HEAD = """{"schema": "penstock.profile/1", "model": "m", "gpu_class": "g", "blocks": 1,
"cut_bytes": [], "weight_bytes": [0], "activation_bytes": [0], "provenance":
{"kind": "imported", "device": "", "driver": "", "torch": "", "date": ""}}"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def answers_or_refuses(read: Reader, text: str) -> None:
    try:
        read(text)
    except InvalidInput as refusal:
        line = str(refusal)
    else:
        return
    assert line.isprintable()
    assert len(line) < 1000


@pytest.mark.parametrize("name", READERS)
@fewer
@given(text=st.text())
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    answers_or_refuses(READERS[name], text)


def places(content: object) -> list[list[Any]]:
    """Return the path of every value inside plain data."""
    pairs: list[tuple[Any, object]] = []
    if isinstance(content, dict):
        pairs = list(content.items())
    elif isinstance(content, list):
        pairs = list(enumerate(content))
    return [[key, *path] for key, value in pairs for path in ([], *places(value))]


@fewer
@given(st.data(), plans(), JSON)
def test_a_plan_with_any_one_value_replaced_is_read_or_refused(
    data: st.DataObject, plan: Plan, value: object
) -> None:
    content = json.loads(write_plan(plan))
    *path, last = data.draw(st.sampled_from(places(content)))
    node = content
    for part in path:
        node = node[part]
    node[last] = value
    answers_or_refuses(READERS["plan"], json.dumps(content))


@fewer
@given(
    st.data(),
    clusters(),
    st.sampled_from(["\n", ":", "- ", "[", "&a ", "*a", "!!x ", "!!int ", "\t", "'"]),
)
def test_a_cluster_with_any_one_mark_inserted_is_read_or_refused(
    data: st.DataObject, cluster: Cluster, mark: str
) -> None:
    text = write_cluster(cluster)
    at = data.draw(st.integers(0, len(text)))
    answers_or_refuses(READERS["cluster"], text[:at] + mark + text[at:])
