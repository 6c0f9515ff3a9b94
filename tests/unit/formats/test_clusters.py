from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.domain.cluster import DeviceRates, PlannerOptions
from penstock.domain.errors import InvalidCluster
from penstock.formats.clusters import check_cluster, read_cluster, write_cluster
from penstock.formats.sources import Source
from penstock.formats.yaml_text import parse_yaml, write_yaml

GOOD = """\
schema: penstock.cluster/1
gpu_classes:
  - name: L4
    count: 4
    memory_gib: 24
    gpus_per_server: 2
    network_gbps: 10
    price_per_hour: 0.7
    max_share_denominator: 2
    peak_tflops: 30.3
    memory_gbytes_per_s: 300
    launch_us: 5
  - name: T4
    count: 8
    network_gbps: 10
    datasheet: T4
models:
  - name: digits
    source: examples.digits.model:build
    slo_ms: 100
    weight: 2
    rate_rps: 200
planner:
  max_stages: 3
  hop_overhead_ms: 1.5
  relative_gap: 1e-4
"""


def test_reads_units_people_write_into_units_of_the_domain() -> None:
    cluster = read_cluster(GOOD, "cluster.yaml")
    l4, t4 = cluster.gpu_classes
    (digits,) = cluster.models
    assert (l4.name, l4.count, l4.memory_bytes) == ("L4", 4, 24 << 30)
    assert l4.rates == DeviceRates(peak_tflops=30.3, memory_gbytes_per_s=300.0, launch_us=5.0)
    assert (t4.memory_bytes, t4.gpus_per_server, t4.price_per_hour) == (16 << 30, 1, None)
    assert t4.rates is not None
    assert (digits.slo_us, digits.weight, digits.rate_rps) == (100_000, 2.0, 200.0)
    assert cluster.options.hop_overhead_us == 1_500
    assert cluster.options.relative_gap == 1e-4
    assert cluster.options.max_batch == 8


def test_rates_in_the_file_override_single_rates_of_the_datasheet() -> None:
    text = GOOD.replace("    datasheet: T4\n", "    datasheet: T4\n    launch_us: 9\n")
    rates = read_cluster(text, "cluster.yaml").gpu_classes[1].rates
    assert rates is not None
    assert (rates.launch_us, rates.memory_gbytes_per_s) == (9.0, 320.0)


def test_a_class_without_rates_has_none() -> None:
    text = GOOD.replace("datasheet: T4", "memory_gib: 16")
    assert read_cluster(text, "cluster.yaml").gpu_classes[1].rates is None


def test_writing_and_reading_back_gives_the_same_cluster() -> None:
    cluster = read_cluster(GOOD, "cluster.yaml")
    assert read_cluster(write_cluster(cluster), "again") == cluster


def test_tolerates_a_byte_order_mark_and_crlf() -> None:
    text = "\ufeff" + GOOD.replace("\n", "\r\n")
    assert read_cluster(text, "cluster.yaml") == read_cluster(GOOD, "cluster.yaml")


@pytest.mark.parametrize("text", ["no", "on", "2024-01-01", "1:30", "0x10", "1_000", "1.2.3"])
def test_text_is_what_it_looks_like(text: str) -> None:
    source = "examples.digits.model:build"
    assert read_cluster(GOOD.replace(source, text), "cluster.yaml").models[0].source == text


@pytest.mark.parametrize("text", ["1e5", "1", "null", "~", "true", ".5", ".inf", "", "a: b", "é#"])
def test_text_is_quoted_where_it_would_be_read_as_something_else(text: str) -> None:
    assert parse_yaml(write_yaml({"a": text}), Source("x", InvalidCluster)) == {"a": text}


def test_limits_of_a_model_are_read_in_milliseconds() -> None:
    limits = """\
    gpu_classes: [T4, L4]
    forbidden_gpu_classes: [L4]
    max_stages: 1
    max_latency_ms: 40.5
    margin_ms: 12.25
"""
    (digits,) = read_cluster(GOOD.replace("    weight: 2\n", limits), "cluster.yaml").models
    assert (digits.gpu_classes, digits.forbidden_gpu_classes) == (("T4", "L4"), ("L4",))
    assert (digits.max_stages, digits.max_latency_us, digits.margin_us) == (1, 40_500, 12_250)


def test_what_a_model_or_the_options_do_not_say_is_the_domain_s_default() -> None:
    cluster = read_cluster(GOOD, "cluster.yaml")
    (digits,) = cluster.models
    assert (digits.gpu_classes, digits.forbidden_gpu_classes) == ((), ())
    assert (digits.max_stages, digits.max_latency_us, digits.margin_us) == (None, None, None)
    expected = PlannerOptions(max_stages=3, hop_overhead_us=1_500, relative_gap=1e-4)
    assert cluster.options == expected


def planned(*lines: str) -> PlannerOptions:
    options = "".join(f"  {line}\n" for line in lines)
    text = GOOD.replace("  datasheet: T4\n", "  datasheet: T4\n    price_per_hour: 0.4\n")
    return read_cluster(text.replace("  max_stages: 3\n", options), "cluster.yaml").options


def test_options_are_read_in_the_file_s_units() -> None:
    options = planned(
        "objective: least-cost",
        "packing: per-stage",
        "rebatch: true",
        "workspace_mib: 1.5",
        "max_price_per_hour: 3.5",
        "spare_gpus: 7",  # more than there are of one class
    )
    assert (options.mode, options.objective) == ("general", "least-cost")
    assert (options.packing, options.rebatch) == ("per-stage", True)
    assert options.workspace_bytes == 3 << 19
    assert (options.max_price_per_hour, options.spare_gpus) == (3.5, 7)


@pytest.mark.parametrize("packing", [(), ("packing: per-stage",)])
def test_mode_compat_packs_per_stage(packing: tuple[str, ...]) -> None:
    options = planned("mode: compat", *packing)
    assert (options.mode, options.packing) == ("compat", "per-stage")


@pytest.mark.parametrize("objective", ["goodput", "least-cost", "fewest-gpus"])
def test_all_objectives_but_max_min_need_rates(objective: str) -> None:
    text = GOOD.replace("    rate_rps: 200\n", "").replace(
        "max_stages: 3", f"objective: {objective}"
    )
    text = text.replace("datasheet: T4", "datasheet: T4\n    price_per_hour: 0.4")
    with pytest.raises(InvalidCluster) as caught:
        read_cluster(text, "cluster.yaml")
    assert str(caught.value) == (
        "cluster.yaml: models[0].rate_rps: expected a rate, which objective "
        f"{objective} needs of every model, found none"
    )


def test_a_cluster_whose_options_were_changed_is_checked_like_a_file() -> None:
    cluster = read_cluster(GOOD, "cluster.yaml")
    check_cluster(cluster, "cluster.yaml")
    compat = replace(cluster, options=replace(cluster.options, mode="compat"))
    with pytest.raises(InvalidCluster, match=r"^fleet: planner\.packing: expected per-stage"):
        check_cluster(compat, "fleet")


def test_everything_written_is_read_back() -> None:
    options = planned(
        "mode: compat",
        "objective: least-cost",
        "workspace_mib: 0.5",
        "max_price_per_hour: 3.5",
        "spare_gpus: 1",
    )
    cluster = read_cluster(GOOD, "cluster.yaml")
    (model,) = cluster.models
    model = replace(
        model,
        gpu_classes=(cluster.gpu_classes[0].name,),
        forbidden_gpu_classes=(cluster.gpu_classes[1].name,),
        max_stages=2,
        max_latency_us=40_001,
        margin_us=0,
    )
    classes = tuple(replace(each, price_per_hour=0.0) for each in cluster.gpu_classes)
    cluster = replace(cluster, gpu_classes=classes, models=(model,), options=options)
    assert read_cluster(write_cluster(cluster), "again") == cluster


def test_what_says_nothing_is_not_written() -> None:
    text = write_cluster(read_cluster(GOOD, "cluster.yaml"))
    assert "null" not in text
    assert "[]" not in text


BAD = [
    # what is replaced, by what, place, expected, found
    ("penstock.cluster/1", "penstock.cluster/2", "schema", "'penstock.cluster/1'", "'penstock.clu"),
    ("schema: penstock.cluster/1\n", "", "schema", "'penstock.cluster/1'", "none"),
    ("name: T4", "name: L4", "gpu_classes[1].name", "another name than that of gpu_c", "'L4'"),
    ("name: T4", "name: a b", "gpu_classes[1].name", "a name of letters", "'a b'"),
    ("name: T4", "name: ../T4", "gpu_classes[1].name", "a name of letters", "'../T4'"),
    ("name: T4", "name: 4", "gpu_classes[1].name", "text", "4"),
    ("name: T4", "name:", "gpu_classes[1].name", "text", "null"),
    ("count: 8", "count: 0", "gpu_classes[1].count", "at least 1", "0"),
    ("count: 8", "count: -1", "gpu_classes[1].count", "at least 1", "-1"),
    ("count: 8", "count: 1.5", "gpu_classes[1].count", "an integer", "1.5"),
    ("count: 8", "count: true", "gpu_classes[1].count", "an integer", "true"),
    ("count: 8", "count: '8'", "gpu_classes[1].count", "an integer", "'8'"),
    ("count: 8", f"count: {'9' * 30}", "gpu_classes[1].count", "an integer of at most 64", "999"),
    ("count: 8", f"count: {'9' * 9000}", "gpu_classes[1].count", "an integer of at most 64", "999"),
    ("count: 8", "count: [8]", "gpu_classes[1].count", "an integer", "a list of 1"),
    ("count: 8", "count: {}", "gpu_classes[1].count", "an integer", "an empty object"),
    ("    count: 8\n", "", "gpu_classes[1].count", "a value, which is required", "none"),
    ("count: 8", "cuont: 8", "gpu_classes[1]", "only the fields name, count, m", "'cuont'"),
    ("memory_gib: 24", "memory_gib: 0", "gpu_classes[0].memory_gib", "more than 0", "0"),
    ("memory_gib: 24", "memory_gib: 1e300", "gpu_classes[0].memory_gib", "at most 1e+09", "1e+300"),
    ("memory_gib: 24", "memory_gib: .nan", "gpu_classes[0].memory_gib", "a finite number", "nan"),
    ("memory_gib: 24", "memory_gib: -.inf", "gpu_classes[0].memory_gib", "a finite number", "-inf"),
    ("    datasheet: T4\n", "", "gpu_classes[1].memory_gib", "or a datasheet that says it", "none"),
    (
        "datasheet: T4",
        "datasheet: T5",
        "gpu_classes[1].datasheet",
        "one of A10, A100, H100",
        "'T5'",
    ),
    (
        "    launch_us: 5\n",
        "",
        "gpu_classes[0].launch_us",
        "memory_gbytes_per_s, launch_us",
        "none",
    ),
    ("slo_ms: 100", "slo_ms: 0", "models[0].slo_ms", "at least 0.001", "0"),
    ("slo_ms: 100", "slo_ms: -5", "models[0].slo_ms", "at least 0.001", "-5"),
    ("slo_ms: 100", "slo: 100", "models[0]", "only the fields name, source, slo_ms", "'slo'"),
    ("weight: 2", "weight: 0", "models[0].weight", "more than 0", "0"),
    ("rate_rps: 200", "rate_rps: -1.0", "models[0].rate_rps", "more than 0", "-1.0"),
    ("source: examples.digits.model:build", "source: ''", "models[0].source", "text on one", "''"),
    ("max_stages: 3", "slo_margin: 1.0", "planner.slo_margin", "less than 1", "1.0"),
    (
        "max_stages: 3",
        "max_stage: 3",
        "planner",
        "only the fields mode, objective, ",
        "'max_stage'",
    ),
    ("max_stages: 3", "mode: strict", "planner.mode", "'general' or 'compat'", "'strict'"),
    ("max_stages: 3", "objective: best", "planner.objective", "'max-min', 'goodput'", "'best'"),
    ("max_stages: 3", "packing: tight", "planner.packing", "'whole-gpu' or 'per-stage'", "'tight'"),
    ("max_stages: 3", "rebatch: 1", "planner.rebatch", "true or false", "1"),
    ("max_stages: 3", "workspace_mib: -1", "planner.workspace_mib", "at least 0", "-1"),
    ("max_stages: 3", "workspace_mib: .inf", "planner.workspace_mib", "a finite number", "inf"),
    ("max_stages: 3", "spare_gpus: -1", "planner.spare_gpus", "at least 0", "-1"),
    ("max_stages: 3", "spare_gpus: 1.5", "planner.spare_gpus", "an integer", "1.5"),
    (
        "max_stages: 3",
        "max_price_per_hour: 0",
        "planner.max_price_per_hour",
        "more than 0",
        "0",
    ),
    (
        "max_stages: 3",
        "max_price_per_hour: .nan",
        "planner.max_price_per_hour",
        "a finite number",
        "nan",
    ),
    ("weight: 2", "max_stages: 0", "models[0].max_stages", "at least 1", "0"),
    ("weight: 2", "max_latency_ms: 0", "models[0].max_latency_ms", "at least 0.001", "0"),
    ("weight: 2", "max_latency_ms: .nan", "models[0].max_latency_ms", "a finite number", "nan"),
    ("weight: 2", "margin_ms: -1", "models[0].margin_ms", "at least 0", "-1"),
    ("weight: 2", "margin_ms: .inf", "models[0].margin_ms", "a finite number", "inf"),
    ("weight: 2", "gpu_classes: L4", "models[0].gpu_classes", "a list", "'L4'"),
    ("weight: 2", "gpu_classes: [4]", "models[0].gpu_classes[0]", "text", "4"),
    # what contradicts itself
    ("weight: 2", "margin_ms: 100", "models[0].margin_ms", "less than slo_ms (100)", "100"),
    (
        "weight: 2",
        "gpu_classes: [T4, H100]",
        "models[0].gpu_classes[1]",
        "one of gpu_classes (L4, T4)",
        "'H100'",
    ),
    (
        "weight: 2",
        "gpu_classes: [T4, T4]",
        "models[0].gpu_classes[1]",
        "another name than that of models[0].gpu_classes[0]",
        "'T4'",
    ),
    (
        "weight: 2",
        "forbidden_gpu_classes: [t4]",
        "models[0].forbidden_gpu_classes[0]",
        "one of gpu_classes (L4, T4)",
        "'t4'",
    ),
    (
        "weight: 2",
        "forbidden_gpu_classes: [T4, L4]",
        "models[0].forbidden_gpu_classes",
        "a GPU class left",
        "every one forbidden",
    ),
    (
        "weight: 2",
        "gpu_classes: [T4]\n    forbidden_gpu_classes: [T4]",
        "models[0].forbidden_gpu_classes",
        "a GPU class left",
        "every one forbidden",
    ),
    (
        "max_stages: 3",
        "mode: compat\n  packing: whole-gpu",
        "planner.packing",
        "per-stage with mode compat (or none, which means it), or mode general",
        "'whole-gpu'",
    ),
    (
        "max_stages: 3",
        "mode: compat\n  rebatch: true",
        "planner.rebatch",
        "false with mode compat, or mode general",
        "true",
    ),
    ("max_stages: 3", "spare_gpus: 8", "planner.spare_gpus", "less than the GPUs of the lar", "8"),
    (
        "max_stages: 3",
        "objective: least-cost",
        "gpu_classes[1].price_per_hour",
        "a price, which objective least-cost needs of every class",
        "none",
    ),
    (
        "max_stages: 3",
        "max_price_per_hour: 9",
        "gpu_classes[1].price_per_hour",
        "a price, which max_price_per_hour needs of every class",
        "none",
    ),
    ("count: 8", "count: 8\n    count: 9", "gpu_classes[1]", "every key once", "'count' twice"),
    ("count: 8", "? [a]\n    : 1", "line 14, column 7", "YAML", "a key that is not text"),
    ("count: 8", "1: 8", "gpu_classes[1]", "text as keys", "1"),
    ("count: 8", "count: 8: 9", "line 14, column 13", "YAML", "mapping values are not allowed"),
    ("count: 8", "count: &a 8\n    x: *a", "line 15, column 8", "YAML", "an alias; write the v"),
    ("count: 8", "count: !!python/name:os.system 8", "line 14, column 12", "YAML", "the tag 'tag"),
    ("count: 8", "count: !!int x", "line 14, column 12", "YAML", "the tag 'tag:yaml.org,2002:int'"),
    ("count: 8", "count: ! 8", "line 14, column 12", "YAML", "the tag '!'"),
    ("count: 8", "count: \0", "", "YAML", "the character #x0000"),
    ("count: 8", "count: 8\n---\n", "line 15, column 1", "YAML", "but found another document"),
    (GOOD, "", "", "an object with schema 'penstock.cluster/1'", "null"),
    (GOOD, "[" * 50_000, "line 1, column 42", "YAML", "more than 40 levels of nesting"),
    (
        GOOD,
        "schema: penstock.cluster/1\ngpu_classes: []",
        "gpu_classes",
        "at least one",
        "an empty",
    ),
    (
        GOOD,
        "schema: penstock.cluster/1\ngpu_classes: {}",
        "gpu_classes",
        "a list",
        "an empty object",
    ),
]


@pytest.mark.parametrize(("old", "new", "place", "expected", "found"), BAD)
def test_a_bad_file_gets_one_clear_line(
    old: str, new: str, place: str, expected: str, found: str
) -> None:
    assert old in GOOD
    with pytest.raises(InvalidCluster) as caught:
        read_cluster(GOOD.replace(old, new), "cluster.yaml")
    error = caught.value
    assert (error.source, error.place) == ("cluster.yaml", place)
    assert expected in error.expected
    assert found in error.found
    assert str(error).count("\n") == 0
    assert len(str(error)) < 400
